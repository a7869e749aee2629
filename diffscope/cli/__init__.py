"""The command line: argv → one study, one report. Nothing here imports torch until a command needs it."""

from __future__ import annotations

import os
import sys

try:
    import contextlib
    import signal
    import warnings
    from collections.abc import Sequence
    from typing import TextIO

    from diffscope.allocation import keep_large_blocks
    from diffscope.cli.leaving import INTERRUPTED, SAID, answer_signals, ignore_signals
    from diffscope.cli.output import prepare_streams
    from diffscope.errors import DiffscopeError, GateHeld, RankLost, StoreError
    from diffscope.ranks import is_one_of_several
except KeyboardInterrupt:  # before `main` can answer it
    os._exit(130)

USAGE = 2
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "can't start new thread")
"""As torch says it of CUDA, torch of the host, and Python."""


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point: the one place that turns exceptions into a line on stderr and an exit code."""
    answer_signals()
    prepare_streams()
    keep_large_blocks()
    # What it has to say of a damaged picture is in the count of those left out.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    words = sys.argv[1:] if argv is None else argv
    if is_one_of_several():
        from diffscope.cli.distributed import run_together

        code = run_together(words, run)
    else:
        code = run(words)
    code = _flushed(code)
    ignore_signals()
    sys.exit(code)


def _flushed(code: int) -> int:
    """The exit code, once what was printed has left; of a result that cannot, 1."""
    try:
        sys.stdout.flush()
    except StoreError as lost:
        return code if code not in (0, GateHeld.exit_code) else _failed([str(lost)], lost.exit_code)
    return code


def run(argv: Sequence[str]) -> int:
    """The exit code of one command line; DIFFSCOPE_DEBUG=1 adds the traceback of whatever ended it."""
    try:
        return _debugged(argv) if os.environ.get("DIFFSCOPE_DEBUG") else _run(argv)
    except GateHeld as gate:
        return _noted(gate.lines, GateHeld.exit_code)
    except RankLost as lost:
        with _heard():
            return _failed([str(lost)], lost.exit_code)
    except DiffscopeError as error:
        return _failed([str(error)], error.exit_code)
    except KeyboardInterrupt:
        return _interrupted()
    except OSError as error:
        with _heard():
            return _refused(error)
    except MemoryError:
        with _heard():
            return _failed(["out of memory; use a smaller --batch-size, fewer layers or noise levels at a time"], 1)
    except Exception as error:
        return _unforeseen(error, argv)


def _heard() -> contextlib.redirect_stderr[TextIO]:
    """Of several processes only the first speaks (`distributed.Silence`), but for what befalls one of them alone."""
    return contextlib.redirect_stderr(getattr(sys.stderr, "behind", sys.stderr))


def _debugged(argv: Sequence[str]) -> int:
    try:
        return _run(argv)
    except BaseException:
        import traceback

        traceback.print_exc()
        raise


def _run(argv: Sequence[str]) -> int:
    import typer

    from diffscope.cli.app import build_app
    from diffscope.cli.flags import speak_in_flags

    speak_in_flags(argv)
    try:
        code = build_app()(args=list(argv), prog_name="diffscope", standalone_mode=False)
    except typer.Abort:
        return _interrupted()
    except typer.Exit as leave:
        code = leave.exit_code
    # typer makes Ctrl-C into Abort or into this exit code, as versions go.
    return _interrupted() if code == INTERRUPTED else code if isinstance(code, int) else 0


def _unforeseen(error: Exception, argv: Sequence[str]) -> int:
    """What the option parser refuses, and mistakes of ours."""
    from diffscope.cli.usage import explained

    if (refusal := explained(error, argv)) is not None:
        return _failed([refusal], USAGE)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    line = f"unexpected {text[:300]}; this is a bug: set DIFFSCOPE_DEBUG=1 for the traceback and report it"
    if any(words in text.lower() for words in OUT_OF_MEMORY):
        line = f"out of memory; use a smaller --batch-size or a lower --precision ({text[:120]})"
    with _heard():
        return _failed([line], 1)


def _refused(error: OSError) -> int:
    """A full disk, a file gone meanwhile: not foreseen where it happened, and no mistake of ours."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return _failed([f"{where}{error.strerror or f'{type(error).__name__}: {error}'}"], 1)


def _failed(lines: Sequence[str], code: int) -> int:
    from diffscope.report.terminal import fail

    for line in lines:
        fail(" ".join(line.split()))
    return code


def _noted(lines: Sequence[str], code: int) -> int:
    from diffscope.report.terminal import note

    for line in lines:
        note(line)
    return code


def _interrupted() -> int:
    return _noted([SAID[signal.SIGINT]], INTERRUPTED)
