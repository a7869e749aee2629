"""MLflow: `mlflow` or `mlflow:URI`, such as mlflow:sqlite:///mlflow.db or mlflow:http://localhost:5000.

Its own settings hold: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. Inside a training that has a run, that run is told,
unless a URI is given.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from diffscope.loggers.base import PROJECT, Destination, is_named, rest_of

LIBRARY = "mlflow"
AT_ONCE = 1000
"""Metrics that MLflow takes at one go."""
FOREIGN = re.compile(r"[^\w\-. /]", re.ASCII)
"""What its names may not hold."""


def accepts(spec: str) -> bool:
    """Whether it is spelled `mlflow` or `mlflow:…`."""
    return is_named(spec, LIBRARY)


def open(spec: str, title: str) -> Destination:
    """Takes the run that goes on, or begins one."""
    import mlflow

    uri = rest_of(spec) or None
    client, active = mlflow.MlflowClient(tracking_uri=uri), mlflow.active_run()
    if uri is None and active is not None:
        return _MLflow(client, active.info.run_id, is_ours=False)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    return _MLflow(client, client.create_run(experiment, run_name=title).info.run_id, is_ours=True)


class _MLflow(Destination):
    def __init__(self, client: Any, run: str, is_ours: bool) -> None:
        self._client, self._run, self._is_ours = client, run, is_ours

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = iter([Metric(_name(name), value, now, step) for name, value in values.items()])
        for some in _chunks(metrics):
            self._client.log_batch(self._run, metrics=some)

    def image(self, step: int, name: str, png: bytes) -> None:
        import tempfile
        from pathlib import Path

        folder, _, stem = name.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="diffscope-") as made:
            path = Path(made) / f"{stem}.png"
            path.write_bytes(png)
            self._client.log_artifact(self._run, str(path), folder or None)

    def text(self, step: int, name: str, text: str) -> None:
        self._client.set_tag(self._run, name.replace("/", "."), text)

    def close(self, failed: bool) -> None:
        if self._is_ours:
            self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


def _name(name: str) -> str:
    """With the numbers of foreign characters in their place, so that names stay apart."""
    return FOREIGN.sub(lambda found: f"_{ord(found[0]):x}_", name)


def _chunks(metrics: Iterator[Any]) -> Iterator[list[Any]]:
    while some := list(islice(metrics, AT_ONCE)):
        yield some
