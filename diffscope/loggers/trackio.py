"""Trackio: `trackio` or `trackio:PROJECT`, on this machine alone unless TRACKIO_SPACE_ID names a space.

Inside a training that has a run, that run is told; else one is begun.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from diffscope.errors import UsageError
from diffscope.loggers.base import PROJECT, Destination, is_named, rest_of

LIBRARY = "trackio"


def accepts(spec: str) -> bool:
    """Whether it is spelled `trackio` or `trackio:…`."""
    return is_named(spec, LIBRARY)


def open(spec: str, title: str) -> Destination:
    """Takes the run that goes on, or begins one; UsageError where that is of another project."""
    import trackio
    from trackio import context_vars

    project, run = rest_of(spec), context_vars.current_run.get()
    if run is not None and project not in ("", run.project):
        raise UsageError(f"`log={spec}`: a run of project {run.project} goes on; say trackio alone, or end it first")
    if run is not None:
        return _Trackio(run, is_ours=False)
    return _Trackio(trackio.init(project or PROJECT, config={"command": title}), is_ours=True)


class _Trackio(Destination):
    def __init__(self, run: Any, is_ours: bool) -> None:
        self._run, self._is_ours = run, is_ours

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, png: bytes) -> None:
        import trackio

        with Image.open(io.BytesIO(png)) as picture:
            self._run.log({name: trackio.Image(picture)}, step=step)

    def text(self, step: int, name: str, text: str) -> None:
        import trackio

        self._run.log({name: trackio.Markdown(text)}, step=step)

    def close(self, failed: bool) -> None:
        if self._is_ours:
            import trackio

            trackio.finish()
