"""The one door to a network's own code: `FILE.py:NAME` or `package.module:NAME`, named by the user and by nobody else.

What is run here is what `python FILE.py` would run: the user's own program. Neither a checkpoint, nor a Hub reference,
nor a URL can name it. The sha256 of the files stands in the protocol.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from diffscope.checkpoints.reader import one_line
from diffscope.errors import NetworkError, UsageError

EXPECTED = "expected FILE.py:NAME or package.module:NAME, of a class or a function that returns a torch.nn.Module"
T = TypeVar("T")
_MODULES: dict[str, ModuleType] = {}
"""Files that were imported, by their real path."""
_PREFIX = "_network_"
"""Of the names that files get as modules."""
_SIBLINGS: dict[str, str] = {}
"""What they imported from their own folders: name of a module → folder."""
_IMPORTING = threading.RLock()


@dataclass(frozen=True)
class Named:
    """Where a network's class, or the function that makes it, stands."""

    text: str
    place: str
    """A file, or a module's dotted name."""
    name: str

    @property
    def is_file(self) -> bool:
        """Whether `place` is a file."""
        return self.place.endswith(".py")


def named(text: str) -> Named:
    """Reads FILE.py:NAME or package.module:NAME; nothing is imported.

    Args:
        text: As the user wrote it.

    Returns:
        Its two parts.

    Raises:
        UsageError: If it is of another form.
        NetworkError: If there is no such file.
    """
    place, _, name = text.rpartition(":")
    if "://" in text:
        raise UsageError(
            f"`network={text}`: code is never fetched; save it as a file of your own, read it, and say FILE.py:NAME"
        )
    if not place or not name.isidentifier():
        raise UsageError(f"`network={text}`: {EXPECTED}")
    if place.endswith(".py"):
        if not os.path.isfile(place):
            raise NetworkError(f"`network={text}`: no file {place}; {EXPECTED}")
    elif not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"`network={text}`: '{place}' is neither a file ending in .py nor a module; {EXPECTED}")
    return Named(text, place, name)


def built(network: Named, arguments: Mapping[str, Any]) -> tuple[nn.Module, dict[str, str]]:
    """Imports the user's code and calls it.

    Args:
        network: From `named`.
        arguments: Of the class or function, by keyword.

    Returns:
        The network in evaluation mode, and {name of a source file: its sha256}: of the file that was named, and of that
        in which the network's class stands.

    Raises:
        NetworkError: If the code fails, there is no such name, or it makes no torch.nn.Module.
    """
    with _IMPORTING, _as_a_program(network), contextlib.redirect_stdout(sys.stderr):
        module = _imported(network)
        make = getattr(module, network.name, None)
        if make is None:
            names = [
                key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, nn.Module)
            ]
            raise NetworkError(
                f"`network={network.text}`: no {network.name} in it; its networks: {', '.join(names[:8])}"
            )
        if not callable(make) or isinstance(make, nn.Module):
            raise NetworkError(f"`network={network.text}`: {network.name} is a {type(make).__name__}; {EXPECTED}")
        found: object = _called(make, network, arguments)
    if not isinstance(found, nn.Module):
        raise NetworkError(f"`network={network.text}`: it returns a {type(found).__name__}; {EXPECTED}")
    found.eval().requires_grad_(False)
    return found, _sources(module, found)


@contextlib.contextmanager
def _as_a_program(network: Named) -> Iterator[None]:
    """The search path as Python has it for `python FILE.py`, or for `python -m package.module`.

    Afterwards the folder stays the last on it, for what the code imports while it runs.
    """
    folder = str(Path(network.place).resolve().parent) if network.is_file else os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _imported(network: Named) -> ModuleType:
    if not network.is_file:
        return _guarded(lambda: importlib.import_module(network.place), network, "imported")
    path = os.path.realpath(network.place)
    if path not in _MODULES:
        # A name of its own: `torch.py` or `models.py` of somebody's may not stand for another module of that name.
        name = f"{_PREFIX}{len(_MODULES)}_{re.sub(r'[^0-9a-zA-Z_]', '_', Path(path).stem)}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module, loader = importlib.util.module_from_spec(spec), spec.loader
        sys.modules[name] = module
        folder, before = os.path.dirname(path), set(sys.modules)
        # Two folders may each have a `layers.py`: a file is given its own neighbours, not those of another file.
        for sibling in [one for one, place in _SIBLINGS.items() if place != folder]:
            sys.modules.pop(sibling, None)
        try:
            _guarded(lambda: loader.exec_module(module), network, "imported")
        except BaseException:
            del sys.modules[name]
            raise
        _MODULES[path] = module
        _SIBLINGS.update({one: folder for one in set(sys.modules) - before if _lies_in(sys.modules[one], folder)})
    return _MODULES[path]


def _lies_in(module: ModuleType, folder: str) -> bool:
    path = getattr(module, "__file__", None)
    return path is not None and os.path.realpath(path).startswith(folder + os.sep)


def _called(make: Callable[..., Any], network: Named, arguments: Mapping[str, Any]) -> Any:
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            takes = ", ".join(str(p).partition(":")[0] for p in signature.parameters.values()) or "nothing"
            raise NetworkError(
                f"`network={network.text}`: {error}; {network.name} takes {takes}; say it with `arguments=FILE`"
            ) from None

    def call() -> Any:
        # The same each time, whatever it draws: a table of random frequencies that no checkpoint holds, for one.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make(**arguments)

    return _guarded(call, network, "built")


def _guarded(run: Callable[[], T], network: Named, what: str) -> T:
    """NetworkError for whatever the user's code raises, with the line of it."""
    try:
        return run()
    except (Exception, SystemExit) as error:
        advice = ""
        if isinstance(error, ImportError) and "relative import" in str(error):
            advice = "; a file of a package: say package.module:NAME, in the folder above the package"
        raise NetworkError(f"`network={network.text}`: cannot be {what}: {told(error)}{advice}") from error


def told(error: BaseException) -> str:
    """Spells an error of the user's code in a line: its kind, its words, and where in the code it was.

    Args:
        error: As caught.

    Returns:
        Such as "ValueError: too wide (models.py, line 12)".
    """
    words = " ".join(str(error).split())[:200]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    own = [f for f in frames if not f.filename.startswith((_HERE, _TORCH))]
    place = f" ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else ""
    return one_line(f"{type(error).__name__}: {words}{place}")


_HERE = str(Path(__file__).parents[1])
_TORCH = str(Path(torch.__file__).parent)


def _sources(module: ModuleType, found: nn.Module) -> dict[str, str]:
    """By the file's or the module's name, so that a moved folder changes nothing; torch's own classes are left out."""
    kind = type(found)
    # Of the class by its functions: another file may have taken its module's name since.
    codes = (getattr(inspect.unwrap(one), "__code__", None) for one in vars(kind).values() if callable(one))
    places = [(module.__name__, getattr(module, "__file__", None))]
    places += [(kind.__module__, code.co_filename) for code in codes if code is not None]
    return {
        os.path.basename(path) if name.startswith(_PREFIX) else name: hashlib.sha256(
            Path(path).read_bytes()
        ).hexdigest()
        for name, path in dict.fromkeys(places)
        if path is not None and not path.startswith(_TORCH) and os.path.isfile(path)
    }
