"""What the comparison of two records lets pass and what it does not; the records' files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from recording import differences, recorder, texts
from recording.recorder import Record

SCRIPT = Path(__file__).parents[1] / "scripts" / "record.py"
LINE = "enc.8x8_block1   0.3   0.4131   [0.4001, 0.4262]   1.1e-05   16 of 20"
RESULT = {"rows": [{"icr": 0.41310001, "n": 20, "notes": ["few_images: 0.41 of 20"], "replicates": [0.25, 0.5] * 8}]}
CSV = "layer,icr,n\nblocks.2,0.41310001,20\n"
RECORD = Record(
    "icr x.pt --out out",
    0,
    {"stdout": f"a title\n{LINE}\n", "out/result.json": json.dumps(RESULT, indent=2), "out/result.csv": CSV},
    {"out/icr.png": "0123"},
)


def changed(title: str, old: str, new: str, record: Record = RECORD) -> Record:
    assert old in record.texts[title]
    return replace(record, texts={**record.texts, title: record.texts[title].replace(old, new)})


def tolerated(record: Record) -> bool:
    return not differences.tolerant(*map(texts.trimmed, (RECORD, record)))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    for name, record in {
        "all": RECORD,
        "silent": Record("x", 3, {}, {}),
        "ends": Record("x 'a b'", 1, {"stdout": "unended", "stderr": "two ends\n\n", "result.csv": "a\r\nb\r\n"}, {}),
        "trimmed": texts.trimmed(RECORD),
    }.items():
        texts.write(tmp_path, name, record)
        assert texts.read(tmp_path)[name] == record


@pytest.mark.parametrize(
    ("title", "old", "new"),
    [
        ("stdout", "0.4131", "0.4132"),
        ("stdout", "0.4001", "0.4008"),
        ("stdout", "1.1e-05", "1.2e-05"),
        ("stdout", "   0.3   ", "  0.3 "),
        ("out/result.json", "0.41310001", "0.41310002"),
        ("out/result.json", "few_images: 0.41 ", "few_images: 0.42 "),
        ("out/result.csv", "0.41310001", "0.4131"),
    ],
)
def test_last_digits_may_differ_but_not_to_the_byte(title: str, old: str, new: str) -> None:
    other = changed(title, old, new)
    assert tolerated(other)
    assert any(line.startswith("+") for line in differences.exact(RECORD, other))


@pytest.mark.parametrize(
    ("title", "old", "new", "shown"),
    [
        ("stdout", "0.4131", "0.4151", "+enc.8x8_block1   0.3   0.4151"),
        ("stdout", "1.1e-05", "1.1e-04", "1.1e-04"),
        ("stdout", "16 of 20", "15 of 20", "15 of 20"),
        ("stdout", "block1", "block2", "enc.8x8_block2"),
        ("stdout", "a title\n", "a title\n\n", "+"),
        ("stdout", "a title\n", "", "-a title"),
        ("out/result.json", "0.41310001", "0.4143", "rows[0].icr: 0.4131 is now 0.4143"),
        ("out/result.json", '"n": 20', '"n": 20.0', "rows[0].n: 20 is now 20.0"),
        ("out/result.json", '"n": 20', '"n": null', "rows[0].n: 20 is now None"),
        ("out/result.json", '"n"', '"m"', "['n'] gone, ['m'] new"),
        ("out/result.json", "0.5", "0.51", "rows[0].replicates.last"),
        ("out/result.json", "few", "more", "more_images"),
        ("out/result.csv", "0.41310001", "0.4143", "[0].icr: 0.4131 is now 0.4143"),
        ("out/result.csv", "blocks.2", "blocks.3", "[0].layer"),
    ],
)
def test_what_matters_may_not(title: str, old: str, new: str, shown: str) -> None:
    lines = differences.tolerant(*map(texts.trimmed, (RECORD, changed(title, old, new))))
    assert any(shown in line for line in lines), lines


@pytest.mark.parametrize(
    "other",
    [
        replace(RECORD, code=1),
        replace(RECORD, files={}),
        replace(RECORD, files={"out/other.png": "0123"}),
        replace(RECORD, texts={**RECORD.texts, "stderr": "warning: x\n"}),
        replace(RECORD, texts={"stdout": RECORD.texts["stdout"]}),
    ],
)
def test_nor_what_was_written(other: Record) -> None:
    assert not tolerated(other)
    assert differences.exact(RECORD, other)


def test_the_order_of_keys_matters() -> None:
    turned = {"out/result.json": json.dumps({"rows": [dict(reversed(RESULT["rows"][0].items()))]}, indent=2)}
    assert not tolerated(replace(RECORD, texts={**RECORD.texts, **turned}))


def test_another_picture_is_another_byte() -> None:
    other = replace(RECORD, files={"out/icr.png": "4567"})
    assert tolerated(other)
    assert differences.exact(RECORD, other)[-2:] == ["-out/icr.png 0123", "+out/icr.png 4567"]


def test_nothing_of_the_hour_is_recorded(tmp_path: Path) -> None:
    def lasting(seconds: float, version: str, date: str, folder: Path, line: str = "icr x") -> Record:
        result = {"diffscope": version, "rows": [0.5], "timing": {"seconds": seconds, "rates": [seconds, 1]}}
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(result, indent=2), "utf-8")
        ran = recorder.Ran(0, f"used {date} {folder}/cache\n", "")
        return recorder._record(folder, line, ran, [folder / "result.json"])

    first = lasting(1.5, "0.1.0", "2026-01-02 03:04", tmp_path / "a")
    assert first == lasting(22e-05, "1.2.13", "2027-11-12 13:14", tmp_path / "b")
    assert first.texts["stdout"] == "used DATE FOLDER/cache\n"
    assert '"rates": [\n      0,\n      0\n    ]' in first.texts["result.json"]
    assert "0.5" in first.texts["result.json"]
    timed = lasting(1.5, "0.1.0", "2026-01-02 03:04", tmp_path / "c", "bench x")
    assert json.loads(timed.texts["result.json"])["timing"] == {"seconds": "float", "rates": ["float"]}


def test_the_script_names_the_command_that_differs(tmp_path: Path) -> None:
    for folder, record in {"old": RECORD, "new": changed("stdout", "0.4131", "0.4132")}.items():
        texts.write(tmp_path / folder, "same", RECORD)
        texts.write(tmp_path / folder, "icr", record)
    texts.write(tmp_path / "old", "gone", RECORD)

    def compared(old: str, new: str) -> tuple[int, str]:
        command = [sys.executable, str(SCRIPT), "--compare", old, new]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    assert compared("old", "old") == (0, "3 commands, all the same\n")
    code, out = compared("old", "new")
    assert code == 1
    assert "icr: diffscope icr x.pt --out out\n--- stdout" in out
    assert "gone: diffscope icr x.pt --out out\nonly in the old record" in out
    assert out.endswith("2 of 3 commands differ\n")
    assert compared("nowhere", "nowhere")[0] == 1


def test_an_update_writes_what_differs_and_removes_what_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # as the script does for its own process
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = importlib.util.spec_from_file_location("record", SCRIPT)
    assert found is not None
    assert found.loader is not None
    found.loader.exec_module(script := importlib.util.module_from_spec(found))
    for name in ("rounded", "other", "gone"):
        texts.write(tmp_path, name, texts.trimmed(RECORD))
    other = changed("stdout", "0.4131", "0.5131")
    script.update(
        tmp_path, iter([("rounded", changed("stdout", "0.4131", "0.4132")), ("other", other), ("new", other)])
    )
    assert capsys.readouterr().out == "other: written\nnew: written\ngone: removed\n"
    expected = {"rounded": RECORD, "other": other, "new": other}
    assert texts.read(tmp_path) == {name: texts.trimmed(record) for name, record in expected.items()}
