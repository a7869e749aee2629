"""Of several processes the first alone tells a log, and all of them hear of its alarm."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from processes import call

WITNESS = '''
"""A destination that keeps what it is told."""

from diffscope.loggers.base import Destination, is_named

LIBRARY = "json"
TOLD = []


def accepts(spec):
    return is_named(spec, "witness")


def open(spec, title):
    TOLD.append(title)
    return Witness()


class Witness(Destination):
    def scalars(self, step, values):
        TOLD.append(sorted(values))

    def image(self, step, name, png): ...

    def text(self, step, name, text): ...

    def close(self, failed):
        TOLD.append(["failed" if failed else "closed"])
'''


def of_two() -> dict[str, Any]:
    """In each of two processes that have met: what a command tells a log, and who hears of an alarm of the first."""
    from commands import DATA, diffscope

    from diffscope import loggers, ranks
    from diffscope.callbacks import has_turned

    # They have met: the command must not wait for them again.
    del os.environ["RANK"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "witness.py").write_text(WITNESS)
        loggers.__path__.append(folder)
        from diffscope.loggers import witness  # type: ignore[attr-defined]

        snapshots = sorted(map(str, (DATA / "series").glob("*.safetensors")))[1:3]
        images = str(DATA / "series" / "images.npz")
        ran = diffscope(
            "track", *snapshots, "--data", images, "--sigma", 0.3, "--views", 3, "--quiet", "--log", "witness"
        )
        loggers.__path__.remove(folder)
    heard = []
    for fired in (None, 102_400):
        monitor = SimpleNamespace(onset=SimpleNamespace(fired_at=fired if ranks.world().leads else None))
        heard.append(has_turned(monitor))  # type: ignore[arg-type]
    return {"code": ran.code, "err": ran.err, "told": witness.TOLD, "heard": heard}


def test_the_first_tells_the_log_and_all_hear_of_its_alarm() -> None:
    first, other = call(2, "loggers.test_log_of_several:of_two")
    assert (first["code"], other["code"]) == (0, 0), first["err"] + other["err"]
    title, *curves, closed = first["told"]
    assert (title, closed) == ("diffscope track", ["closed"])
    assert len(curves) == 2
    assert all("diffscope/icr/enc.8x8_block1/sigma_0.3" in names for names in curves)
    assert other["told"] == []
    assert first["heard"] == other["heard"] == [False, True]
