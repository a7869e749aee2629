"""Files of a repository: found, downloaded once, pinned to a commit, verified; every failure in one sentence."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import TOKEN, FakeHub

from diffscope import hub as hubs
from diffscope.errors import CheckpointError, DataError

FILES = {"a.pt": b"first" * 1000, "notes.txt": b"plain", "deep/b.pt": b"second"}
SHA256 = hashlib.sha256(FILES["a.pt"]).hexdigest()


def refusal(text: str, act: Callable[[hubs.Repository], object] = lambda repository: repository.files()) -> str:
    with pytest.raises(CheckpointError) as caught:
        act(hubs.open(text, "model"))
    message = str(caught.value)
    assert message.startswith(f"{text}: ")
    assert message.isprintable()
    assert TOKEN not in message
    return message


def test_a_file_is_downloaded_once_and_of_one_commit(hub: FakeHub) -> None:
    first = hub.add("o/n", FILES)
    repository = hubs.open("hf://o/n", "model")
    hub.push("o/n", {"a.pt": b"newer"})
    local = repository.find("a.pt")
    assert repository.commit == first
    assert local is not None
    assert local.read_bytes() == FILES["a.pt"]
    assert hub.downloads() == [SHA256]
    assert hubs.open(f"hf://o/n@{first}", "model").find("a.pt") == local
    assert hub.downloads() == [SHA256]
    assert hubs.open("hf://o/n", "model").find("deep/b.pt") is None


def test_a_file_kept_by_git(hub: FakeHub) -> None:
    hub.add("o/n", FILES)
    local = hubs.open("hf://o/n", "model").find("notes.txt")
    assert local is not None
    assert local.read_bytes() == b"plain"


def test_revisions(hub: FakeHub) -> None:
    first = hub.add("o/n", FILES)
    hub.repos["model", "o/n"].tags["v1"] = hub.repos["model", "o/n"].tags["release-1"] = first
    second = hub.push("o/n", {"a.pt": b"newer"})
    assert hubs.open("hf://o/n", "model").commit == second
    for revision in ("v1", first):
        repository = hubs.open(f"hf://o/n@{revision}", "model")
        assert repository.commit == first
        assert repository.files() == ["a.pt", "deep/b.pt", "notes.txt"]
    assert "no revision 'release-2' in the repository; close: release-1" in refusal("hf://o/n@release-2")
    assert "no revision 'xyz' in the repository; it has main, v1, release-1" in refusal("hf://o/n@xyz")
    assert f"no revision '{'0' * 40}'" in refusal(f"hf://o/n@{'0' * 40}", lambda r: r.find("a.pt"))


def test_several_files_at_once(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/n", FILES | {"odd[1]*.pt": b"odd"})
    repository = hubs.open("hf://o/n", "model")
    folder = repository.fetch(["deep/b.pt", "odd[1]*.pt"])
    assert sorted(f.name for f in folder.rglob("*") if f.is_file()) == ["b.pt", "odd[1]*.pt"]
    assert len(hub.downloads()) == 2
    monkeypatch.setattr("diffscope.hub.repository.FEW", 1)
    assert (repository.fetch(["a.pt", "deep/b.pt", "odd[1]*.pt"]) / "a.pt").is_file()
    assert not (folder / "notes.txt").exists()


def test_what_is_missing(hub: FakeHub) -> None:
    hub.add("o/n", FILES)
    hub.add("o/empty", {})
    assert f"no such model repository at {hub.endpoint}, or a private one" in refusal("hf://o/gone")
    assert "close: a.pt" in refusal("hf://o/n/b/a.pt")
    assert "close: deep/b.pt" in refusal("hf://o/n/deep/bb.pt")
    assert "it holds a.pt, deep/b.pt, notes.txt" in refusal("hf://o/n/xyzzy")
    assert "an empty repository" in refusal("hf://o/empty")
    with pytest.raises(DataError, match="no such dataset repository"):
        hubs.open("hf://datasets/o/n", "dataset")


def test_closed_repositories(hub: FakeHub) -> None:
    hub.add("o/n", FILES, gated=True)
    hub.add("o/n", FILES, kind="dataset", gated=True)
    text = refusal("hf://o/n/a.pt", lambda r: r.find("a.pt"))
    assert f"a gated repository; ask for access at {hub.endpoint}/o/n, then set HF_TOKEN" in text
    assert "gated" in refusal("hf://o/n", lambda r: r.fetch(["a.pt", "notes.txt"]))
    with pytest.raises(DataError, match=r"ask for access at .*/datasets/o/n, then"):
        hubs.open("hf://datasets/o/n", "dataset").find("a.pt")


def test_offline(hub: FakeHub, offline: Callable[[], None]) -> None:
    commit = hub.add("o/n", FILES)
    hubs.open("hf://o/n", "model").find("a.pt")
    offline()
    asked = len(hub.asked)
    for text in ("hf://o/n/a.pt", f"hf://o/n@{commit}/a.pt"):
        repository = hubs.open(text, "model")
        assert repository.commit == commit
        assert repository.find("a.pt") is not None
        assert "HF_HUB_OFFLINE is set and it is not in the cache" in refusal(text, lambda r: r.find("notes.txt"))
    assert "1 of 2 files are not in the cache, such as 'notes.txt'" in refusal(
        "hf://o/n", lambda r: r.fetch(["a.pt", "notes.txt"])
    )
    assert "list of files is not in the cache" in refusal("hf://o/n")
    assert hubs.open("hf://o/n", "model").files(complete=False) == ["a.pt"]
    assert "HF_HUB_OFFLINE is set" in refusal("hf://o/else")
    assert len(hub.asked) == asked


def test_offline_the_list_from_before(hub: FakeHub, offline: Callable[[], None]) -> None:
    hub.add("o/n", FILES)
    hubs.open("hf://o/n", "model").files()
    offline()
    assert hubs.open("hf://o/n", "model").files() == ["a.pt", "deep/b.pt", "notes.txt"]


def test_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    commit = hub.add("o/n", FILES)
    hubs.open("hf://o/n", "model").find("a.pt")
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
    assert f"the connection to {closed} failed" in refusal("hf://o/else")
    with caplog.at_level(logging.WARNING, "diffscope"):
        assert hubs.open("hf://o/n", "model").commit == commit
    assert [record.getMessage() for record in caplog.records] == [
        f"hf://o/n: the Hub cannot be reached; taking commit {commit} from before"
    ]


def patiently(text: str, name: str) -> Path | None:
    """As a user does it: clients before 2.0 leave it to the next run to go on."""
    try:
        return hubs.open(text, "model").find(name)
    except CheckpointError:
        return hubs.open(text, "model").find(name)


def test_a_broken_download_goes_on_where_it_stopped(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)  # a part of this size is what it keeps
    hub.add("o/n", FILES)
    hub.cuts[SHA256] = 1
    local = patiently("hf://o/n", "a.pt")
    assert local is not None
    assert local.read_bytes() == FILES["a.pt"]
    ranges = [asked.headers.get("Range") for asked in hub.asked if asked.server == "store"]
    assert ranges[0] is None
    assert ranges[1] in (f"bytes={len(FILES['a.pt']) // 2}-", None)  # or from the beginning


def test_a_download_that_breaks_for_good(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("o/n", FILES)
    hub.cuts[SHA256], hub.failing = 1, 501
    message = refusal("hf://o/n", lambda r: r.find("a.pt"))
    assert f"{hub.endpoint} answered with an error (501)" in message or "connection" in message
    assert not list(tmp_path.rglob("a.pt"))
    hub.failing = 0
    local = hubs.open("hf://o/n", "model").find("a.pt")
    assert local is not None
    assert local.read_bytes() == FILES["a.pt"]


@pytest.mark.parametrize("names", [["a.pt"], ["a.pt", "deep/b.pt"]])
def test_a_damaged_download_is_not_kept(hub: FakeHub, tmp_path: Path, names: list[str]) -> None:
    hub.add("o/n", FILES)
    hub.damaged.add(SHA256)
    hub.damaged.add(hashlib.sha256(FILES["deep/b.pt"]).hexdigest())
    found = hashlib.sha256(bytes(byte ^ 1 for byte in FILES["a.pt"])).hexdigest()
    message = refusal("hf://o/n", lambda r: r.fetch(names))
    assert f"'a.pt' arrived with sha256 {found[:12]}…, the Hub says {SHA256[:12]}…" in message
    assert "the damaged copy was deleted: run the command again" in message
    assert not list(tmp_path.rglob("a.pt"))
    assert not list(tmp_path.rglob("b.pt"))
    assert not list(tmp_path.rglob(SHA256))
    hub.damaged.clear()
    assert (hubs.open("hf://o/n", "model").fetch(names) / "a.pt").read_bytes() == FILES["a.pt"]


def test_a_blob_that_is_itself_a_link(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer clients share blobs between repositories, under another hash of as many digits."""
    from huggingface_hub import file_download

    original = getattr(file_download, "_chmod_and_move", None)
    if original is None:
        pytest.skip("a client that has another way to put a download in its place")

    def share(part: Path, blob: Path) -> None:
        original(part, shared := tmp_path / ("f" * 64))
        blob.symlink_to(shared)

    hub.add("o/n", FILES)
    monkeypatch.setattr(file_download, "_chmod_and_move", share)
    local = hubs.open("hf://o/n", "model").find("a.pt")
    assert local is not None
    assert local.read_bytes() == FILES["a.pt"]


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "is full; make room, or set HF_HUB_CACHE"), (errno.EACCES, "Permission denied; set HF_HUB_CACHE")],
)
def test_the_disk(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    hub.add("o/n", FILES)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", refuse)
    assert message in refusal("hf://o/n", lambda r: r.find("a.pt"))


def test_our_own_mistakes_are_not_dressed_up(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(*_: object, **__: object) -> None:
        raise TypeError("a bug")

    hub.add("o/n", FILES)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", mistake)
    with pytest.raises(TypeError, match="a bug"):
        hubs.open("hf://o/n", "model").find("a.pt")


def test_the_token_goes_to_the_endpoint_alone(hub: FakeHub) -> None:
    hub.add("o/n", FILES)
    repository = hubs.open("hf://o/n", "model")
    repository.fetch(repository.files())
    told = {(asked.server, TOKEN in asked.headers.get("authorization", "")) for asked in hub.asked}
    assert told == {("endpoint", True), ("store", False)}


def test_nothing_on_stderr_but_on_a_terminal(hub: FakeHub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.add("o/n", FILES)
    hub.cuts[SHA256] = 1
    patiently("hf://o/n", "a.pt")
    hubs.open("hf://o/n", "model").fetch(list(FILES))
    assert capfd.readouterr() == ("", "")


def test_the_client_is_left_as_it_was(hub: FakeHub) -> None:
    utils = importlib.import_module("huggingface_hub.utils")
    level = logging.getLogger("huggingface_hub").level
    hub.add("o/n", FILES)
    hubs.open("hf://o/n", "model").find("a.pt")
    refusal("hf://o/gone")
    assert not utils.are_progress_bars_disabled()
    assert logging.getLogger("huggingface_hub").level == level


PIPELINE: dict[str, Any] = {"_class_name": "DiTPipeline", "transformer": ["diffusers", "DiTTransformer2DModel"]}


def pipeline(index: dict[str, Any]) -> dict[str, bytes]:
    weights = {"transformer/config.json": b"{}", "transformer/w.safetensors": b"w", "transformer/own.py": b"import os"}
    return {"model_index.json": json.dumps(index).encode(), "README.md": b"", **weights}


def test_a_snapshot_of_a_pipeline(hub: FakeHub) -> None:
    files = pipeline(PIPELINE)
    hub.add("o/n", files)
    hub.add("o/nested", {f"sub/{name}": data for name, data in files.items()})
    for text in ("hf://o/n", "hf://o/nested/sub"):
        folder = hubs.snapshot(text, ["*.json", "transformer/*"])
        found = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
        assert found == ["model_index.json", "transformer/config.json", "transformer/w.safetensors"]


def test_a_pipeline_with_code_of_its_own_is_refused(hub: FakeHub) -> None:
    hub.add("o/n", pipeline({"_class_name": "P", "transformer": ["own", "OwnTransformer"]}))
    with pytest.raises(CheckpointError, match=r"Python modules of the repository \(transformer/own\.py\)"):
        hubs.snapshot("hf://o/n", ["*"])
    assert hub.downloads() == ["model_index.json"]
