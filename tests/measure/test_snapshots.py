"""Which files are the snapshots of a run, and in which order: from what they say of themselves, or their names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import DATA
from safetensors.numpy import load_file, save_file

from diffscope.errors import CheckpointError, UsageError
from diffscope.measure.snapshots import find_snapshots

SERIES = DATA / "series"
FIRST = SERIES / "snapshot-0025600.safetensors"


def weights(path: Path, metadata: dict[str, str] | None = None) -> Path:
    """The first snapshot under another name, silent on its step unless `metadata` has it."""
    save_file(load_file(FIRST), path, metadata={"format": "pt", **(metadata or {})})
    return path


def test_a_folder_is_its_checkpoints_by_step() -> None:
    snapshots, left_out = find_snapshots([str(SERIES)])
    assert [snapshot.step for snapshot in snapshots] == [25_600 * k for k in range(1, 17)]
    assert {snapshot.unit for snapshot in snapshots} == {"images"}
    assert left_out == []


def test_the_order_of_the_arguments_does_not_matter() -> None:
    paths = sorted(map(str, SERIES.glob("*.safetensors")))
    assert find_snapshots(paths[::-1]) == find_snapshots(paths)


def test_what_the_file_says_counts_more_than_its_name(tmp_path: Path) -> None:
    path = weights(tmp_path / "0000007.safetensors", {"step": "12", "step_unit": "images"})
    assert find_snapshots([str(path)])[0][0].step == 12


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("network-snapshot-000123", 123_000),
        ("network-snapshot-0000123-0.050", 123_000),
        ("0400000", 400_000),
        ("epoch=3-step=1200", 1200),
        ("run2_step_77", 77),
        ("model-50", 50),
        ("model050000", 50_000),
        ("ema_0.9999_050000", 50_000),
    ],
)
def test_names_that_tell_the_step(name: str, step: int, tmp_path: Path) -> None:
    assert find_snapshots([str(weights(tmp_path / f"{name}.safetensors"))])[0][0].step == step


def test_another_name_is_read_by_step_from(tmp_path: Path) -> None:
    paths = [str(weights(tmp_path / f"v2_{k}_of_9.safetensors")) for k in (3, 1)]
    with pytest.raises(CheckpointError, match="`step_from=`"):
        find_snapshots(paths)
    assert [s.step for s in find_snapshots(paths, r"v2_(\d+)")[0]] == [1, 3]
    _, left_out = find_snapshots([*paths, str(weights(tmp_path / "last.safetensors"))], r"v2_(\d+)")
    assert "finds no step" in left_out[0].why


@pytest.mark.parametrize(("pattern", "why"), [("(", "not a regular expression"), (r"\d+", "one group")])
def test_a_wrong_pattern_is_wrong_usage(pattern: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        find_snapshots([str(SERIES)], pattern)


def test_two_of_one_step_are_no_series(tmp_path: Path) -> None:
    a, b = (weights(tmp_path / f"network-snapshot-0000001-{std}.safetensors") for std in ("0.050", "0.100"))
    with pytest.raises(CheckpointError, match="one checkpoint a step"):
        find_snapshots([str(a), str(b)])


def test_steps_and_images_are_not_mixed(tmp_path: Path) -> None:
    a, b = weights(tmp_path / "0000100.safetensors"), weights(tmp_path / "network-snapshot-000200.safetensors")
    with pytest.raises(CheckpointError, match="counted differently"):
        find_snapshots([str(a), str(b)])


def test_broken_and_foreign_files_are_left_out_with_their_reason(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(FIRST, folder)
    (folder / "snapshot-0051200.safetensors").write_bytes(FIRST.read_bytes()[:1000])
    (folder / "log.txt").write_text("no checkpoint")
    (folder / ".snapshot-9.safetensors.part").write_text("unfinished")
    snapshots, left_out = find_snapshots([str(folder)])
    assert [snapshot.step for snapshot in snapshots] == [25_600]
    assert [entry.path for entry in left_out] == [str(folder / "snapshot-0051200.safetensors")]


def test_nothing_to_follow_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no snapshot"):
        find_snapshots([str(tmp_path)])
    with pytest.raises(CheckpointError, match="no such file"):
        find_snapshots([str(tmp_path / "absent.pt")])


def test_training_states_beside_snapshots_are_not_taken(tmp_path: Path) -> None:
    for name in ("network-snapshot-000001", "training-state-000001"):
        weights(tmp_path / f"{name}.safetensors")
    assert len(find_snapshots([str(tmp_path)])[0]) == 1


def run_of_openai(folder: Path, *rates: str) -> Path:
    """Raw weights, averages and optimisers of two steps."""
    for step in ("000010", "000020"):
        for kind in ("model", *(f"ema_{rate}_" for rate in rates)):
            weights(folder / f"{kind}{step}.safetensors")
        (folder / f"opt{step}.pt").write_bytes(b"no weights")
    return folder


@pytest.mark.parametrize(("asked", "kind"), [("ema", "ema_0.9999_"), ("model", "model")])
def test_of_raw_weights_and_averages_the_ones_asked_for_are_taken(asked: str, kind: str, tmp_path: Path) -> None:
    snapshots, left_out = find_snapshots([str(run_of_openai(tmp_path, "0.9999"))], weights=asked)
    assert [Path(s.path).name for s in snapshots] == [f"{kind}000010.safetensors", f"{kind}000020.safetensors"]
    assert left_out == []


def test_raw_weights_alone_are_taken(tmp_path: Path) -> None:
    assert [s.step for s in find_snapshots([str(run_of_openai(tmp_path))])[0]] == [10, 20]


def test_averages_of_two_rates_are_not_mixed(tmp_path: Path) -> None:
    run_of_openai(tmp_path, "0.999", "0.9999")
    with pytest.raises(CheckpointError, match=r"rates 0\.999 and 0\.9999 side by side.* give .*/ema_0\.999_\* or "):
        find_snapshots([str(tmp_path)])
    assert len(find_snapshots([str(tmp_path)], weights="model")[0]) == 2
    first, second = tmp_path / "ema_0.999_000010.safetensors", tmp_path / "ema_0.9999_000020.safetensors"
    with pytest.raises(CheckpointError, match=r"different weights .*EMA\) of rate 0\.999.*EMA\) of rate 0\.9999"):
        find_snapshots([str(first), str(second)])
    with pytest.raises(CheckpointError, match=r"different weights .*raw weights"):
        find_snapshots([str(first), str(tmp_path / "model000020.safetensors")])
