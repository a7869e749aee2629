"""A folder for results: that it can be written to, and holds nothing that would be lost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diffscope.errors import DataError, ProtocolMismatch, StoreError, UsageError
from diffscope.protocol import require_equal
from diffscope.ranks import world
from diffscope.results import RESULT, read_record


def make_ready(out: Path) -> None:
    """Makes the folder now, so that a place that cannot be written to costs no measurement.

    Raises:
        StoreError: Where it cannot be written to.
    """
    world().lead(partial(_make, out))


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except FileExistsError:
        raise StoreError(
            f"`out={out}`: a file of that name is there; expected a folder, new or old: choose another"
        ) from None
    except OSError as error:
        raise StoreError(f"`out={out}`: cannot be written to: {error.strerror or error}; choose another") from None


def refuse_other(protocol: Mapping[str, Any], out: Path) -> None:
    """Refuses a folder with a result that depends on something else: it would be lost in silence.

    Raises:
        StoreError: Naming the field in which the two protocols differ.
    """
    world().lead(partial(_refuse, protocol, out))


def agreement(out: Path | None, overwrite: bool) -> Callable[[Mapping[str, Any]], None]:
    """What a study is to be told of its protocol before it computes (`Listener.agree`).

    Args:
        out: Where the result goes, if anywhere.
        overwrite: Whether what stands there is replaced, whatever it is.
    """
    return (lambda protocol: None) if out is None or overwrite else partial(refuse_other, out=out)


def _refuse(protocol: Mapping[str, Any], out: Path) -> None:
    path = out / RESULT
    if not path.exists():
        return
    try:
        earlier = read_record(str(path)).get("protocol", {})
    except DataError as error:
        raise StoreError(f"{error}; it would be replaced: choose another `out=`, or `overwrite=`") from None
    require_same(earlier, protocol, path, "out")


def require_same(earlier: Mapping[str, Any], protocol: Mapping[str, Any], path: Path, option: str) -> None:
    """Refuses to replace what stands at `path`, unless it has the same protocol.

    Raises:
        StoreError: Naming the field, and `option` as what may be chosen otherwise.
    """
    try:
        require_equal(earlier, protocol, (), f"{path} and this run")
    except ProtocolMismatch as error:
        reason = str(error).split("; measure both")[0]
        raise StoreError(f"{reason}; choose another `{option}=`, or `overwrite=`") from None


def require_safetensors(path: Path) -> None:
    """Refuses a file whose name says that it is something else; UsageError."""
    if path.suffix.lower() != ".safetensors":
        raise UsageError(f"{path}: expected a name that ends in .safetensors, the one format that is written")


def metadata_of(path: Path) -> dict[str, str] | None:
    """Of a safetensors file, nothing where it is none; None where nothing is there."""
    if not path.exists():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}
