"""The libraries themselves, where they are installed: what was written is read back by their own readers."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import track
from PIL import Image

from diffscope.errors import StoreError, UsageError
from diffscope.loggers import Log, scalars_of
from diffscope.results import Result

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

RESULT = track(count=3)
POINTS = {(step, name): value for step, name, value in scalars_of(RESULT)}
CURVES = {name for _, name in POINTS}
LAST = max(step for step, _ in POINTS)


def tell(spec: str, result: Result = RESULT) -> None:
    with Log([spec], "diffscope track") as log:
        log.open()
        log.result(result)


def is_a_figure(png: bytes) -> bool:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.width > 400 and np.asarray(picture.convert("L")).std() > 5


def test_tensorboard_s_own_accumulator_reads_it_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell(f"tensorboard:{tmp_path / 'runs'}")
    read = EventAccumulator(str(tmp_path / "runs"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
    tags = read.Tags()
    assert set(tags["scalars"]) == CURVES
    found = {(event.step, name): event.value for name in tags["scalars"] for event in read.Scalars(name)}
    assert found == {at: pytest.approx(value, rel=1e-6) for at, value in POINTS.items()}  # stored as float32
    assert "diffscope/icr" in tags["images"]
    (picture,) = read.Images("diffscope/icr")
    assert picture.step == LAST
    assert is_a_figure(picture.encoded_image_string)
    (text,) = read.Tensors("diffscope/verdict/text_summary")
    assert b"onset of memorization" in text.tensor_proto.string_val[0]


def records_of(path: Path) -> Iterator[Any]:
    """Records of an offline run: chunks of a LevelDB log (its doc/log_format.md), after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block that holds no head
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield Record.FromString(whole)
            whole = b""


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield tmp_path
    wandb.teardown()  # it has read the environment once for the whole process


def test_an_offline_run_of_wandb_is_read_back(offline: Path) -> None:
    tell("wandb:mine")
    (path,) = offline.glob("wandb/offline-run-*/run-*.wandb")
    records = list(records_of(path))
    found: dict[tuple[int, str], float] = {}
    for record in records:
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for name, value in items.items():
            if name in CURVES:
                found[items["diffscope/step"], name] = value
    assert found == POINTS
    assert [record.run.project for record in records if record.run.project] == ["mine"]
    pictures = list(offline.glob("wandb/offline-run-*/files/media/images/**/*.png"))
    assert pictures
    assert all(is_a_figure(picture.read_bytes()) for picture in pictures)
    said = [
        item.value_json
        for record in records
        for item in record.summary.update
        if "diffscope/verdict" in (item.key, *item.nested_key)
    ]
    assert "onset of memorization" in said[-1]
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]


def test_a_run_of_wandb_that_goes_on_is_told_and_not_ended(offline: Path) -> None:
    import wandb

    run = wandb.init(project="training")
    with pytest.raises(UsageError, match="a run of project training goes on"):
        tell("wandb:other")
    run.log({"loss": 1.0})
    tell("wandb")
    assert wandb.run is run
    run.log({"loss": 0.5})
    run.finish()
    assert len(list(offline.glob("wandb/offline-run-*"))) == 1


def test_mlflow_s_own_client_reads_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tell(f"mlflow:{uri}")
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("diffscope").experiment_id])
    assert run.info.status == "FINISHED"
    found = {
        (point.step, name): point.value
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    }
    assert found == POINTS
    assert "onset of memorization" in run.data.tags["diffscope.verdict"]
    (picture,) = [file.path for file in client.list_artifacts(run.info.run_id, "diffscope") if "icr" in file.path]
    assert is_a_figure(Path(client.download_artifacts(run.info.run_id, picture, str(tmp_path))).read_bytes())


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="`log=mlflow:http") as caught:
        tell("mlflow:http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_trackio_s_own_storage_reads_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    if "trackio.utils" in sys.modules:
        monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path)
    from trackio.sqlite_storage import SQLiteStorage

    tell("trackio:mine")
    (run,) = SQLiteStorage.get_runs("mine")
    found: dict[tuple[int, str], Any] = {}
    for line in SQLiteStorage.get_logs("mine", run):
        found |= {(line["step"], name): value for name, value in line.items() if name.startswith("diffscope/")}
    assert {at: value for at, value in found.items() if isinstance(value, (int, float))} == POINTS
    assert "onset of memorization" in str(found[LAST, "diffscope/verdict"])
    assert any(is_a_figure(picture.read_bytes()) for picture in tmp_path.rglob("*.png"))
