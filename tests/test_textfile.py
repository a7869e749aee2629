"""Text files are read whole, but never a pipe, a device, or more than is sane."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import diffscope, refused

from diffscope import textfile
from diffscope.textfile import read_text


def test_text_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufeffstep,fid\r\n1,2\r\n".encode())
    assert read_text(tmp_path / "a.csv", "utf-8-sig") == "step,fid\r\n1,2\r\n"


def test_pipes_devices_and_folders_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match="a pipe, socket or device, and not a file"):
            read_text(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)


def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "hole.json"
    with open(path, "wb") as file:
        file.truncate(textfile.MOST + 1)
    with pytest.raises(OSError, match=f"{textfile.MOST + 1} bytes, where at most {textfile.MOST} are read"):
        read_text(path)


def test_a_result_is_never_read_without_end(tmp_path: Path) -> None:
    (tmp_path / "old.json").symlink_to("/dev/zero")
    refused(diffscope("compare", tmp_path / "old.json", tmp_path), 1, "not a file", "result.json")


def test_a_shell_s_pipe_is_read_where_it_may_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "MOST", 4)
    for text in ("step", "step,"):
        reading, writing = os.pipe()
        os.write(writing, text.encode())
        os.close(writing)
        try:
            if len(text) > 4:
                with pytest.raises(OSError, match="more than 4 characters"):
                    read_text(f"/dev/fd/{reading}", piped=True)
            else:
                assert read_text(f"/dev/fd/{reading}", piped=True) == text
        finally:
            os.close(reading)
