"""The next checkpoint of a run, read in a thread while the network of another computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from diffscope.checkpoints import Checkpoint, read
from diffscope.families.base import Denoiser
from diffscope.measure.opening import load
from diffscope.options.settings import Loading

Loaded = tuple[Checkpoint, Denoiser]


class ReadAhead:
    """Holds what was started last, and what was asked for last until it is taken.

    Of a caller that starts one more when it has asked for one, two networks are in memory at most. What was not started
    is read when it is asked for. CheckpointError and its children are raised where one is asked for.

    Args:
        loading: How checkpoints are read.
    """

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self._thread = ThreadPoolExecutor(1)
        self._started: _Reading | None = None
        self._asked: _Reading | None = None

    def start(self, path: str, known: Callable[[str], bool]) -> None:
        """Begins to hash a file, and to load it.

        Args:
            path: The file.
            known: Of a sha256: whether there is a record, so that the network is not wanted.
        """
        if self._started is not None:  # never asked for
            self._started.loaded.cancel()
        sha = self._thread.submit(self._hash, path)
        loaded = self._thread.submit(lambda: None if known(sha.result()) else self._load(path, sha.result()))
        self._started = _Reading(path, sha, loaded)

    def sha256(self, path: str) -> str:
        """Of the file's bytes; for `loaded` to go on from."""
        if self._started is not None and self._started.path == path:
            self._asked, self._started = self._started, None
        else:
            self._asked = self._at_once(path)
        return self._asked.sha256.result()

    def loaded(self, path: str) -> Loaded:
        """The checkpoint and its network, which are let go."""
        if self._asked is None or self._asked.path != path:
            self.sha256(path)
        asked, self._asked = self._asked, None
        assert asked is not None
        return asked.loaded.result() or self._load(path, asked.sha256.result())

    def _at_once(self, path: str) -> _Reading:
        """Hashed now, and to be loaded where it is wanted."""
        sha: Future[str] = Future()
        loaded: Future[Loaded | None] = Future()
        sha.set_result(self._hash(path))
        loaded.set_result(None)
        return _Reading(path, sha, loaded)

    def _hash(self, path: str) -> str:
        return read(path, self.loading.weights, outline=True).sha256()

    def _load(self, path: str, sha256: str) -> Loaded:
        checkpoint, denoiser = load(path, self.loading)
        return checkpoint.hashed(sha256), denoiser


@dataclass(frozen=True)
class _Reading:
    """One checkpoint, on its way."""

    path: str
    sha256: Future[str]
    loaded: Future[Loaded | None]
    """None where only its hash was wanted so far."""
