"""The next checkpoint of a run, read in a thread while the network of another computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from diffscope.checkpoints import Checkpoint, read
from diffscope.families.base import Denoiser
from diffscope.studies.opening import Loading, load

Loaded = tuple[Checkpoint, Denoiser]


class ReadAhead:
    """Holds one checkpoint at most; what was not started is read when it is asked for.

    Errors (CheckpointError and its children) are raised where the checkpoint is asked for.
    """

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self._thread = ThreadPoolExecutor(1)
        self._path: str | None = None
        self._sha: Future[str]
        self._loaded: Future[Loaded | None]

    def start(self, path: str, known: Callable[[str], bool]) -> None:
        """Begin to hash `path`, and to load it unless its sha256 is `known`."""
        self._path = path
        self._sha = sha = self._thread.submit(self._hash, path)
        self._loaded = self._thread.submit(lambda: None if known(sha.result()) else self._load(path, sha.result()))

    def sha256(self, path: str) -> str:
        """Of the file's bytes."""
        return self._sha.result() if path == self._path else self._hash(path)

    def loaded(self, path: str) -> Loaded:
        """The checkpoint and its network, which are let go."""
        found = None
        if path == self._path:
            found, self._path = self._loaded.result(), None
        return found or self._load(path, self.sha256(path))

    def _hash(self, path: str) -> str:
        return read(path, self.loading.weights, outline=True).sha256()

    def _load(self, path: str, sha256: str) -> Loaded:
        checkpoint, denoiser = load(path, self.loading)
        return checkpoint.hashed(sha256), denoiser
