"""Reading `.npy` and `.npz` without ever unpickling, for the sources that keep arrays in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.lib.npyio import NpzFile

from diffscope.errors import DataError


def keys(path: str) -> list[str]:
    """Names of the arrays in an `.npz`; empty where the file cannot be read as one."""
    try:
        with _opened(path) as archive:
            return list(archive.files)
    # NumPy answers damaged files with zipfile's, zlib's and struct's errors besides its own.
    except Exception:
        return []


def load(path: str, *alternatives: str) -> np.ndarray | None:
    """The array under the first of `alternatives` that an `.npz` has, None where it has none of them.

    The array is read whole into memory (`.npy` is the form that is not). Raises DataError where it cannot be read.
    """
    try:
        with _opened(path) as archive:
            for key in alternatives:
                if key in archive.files:
                    array: np.ndarray = archive[key]
                    return array
            return None
    except Exception as error:
        raise _unreadable(path, error) from error


def mapped(path: str) -> np.ndarray:
    """The array of an `.npy`, memory-mapped; raises DataError where it cannot be read."""
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise _unreadable(path, error) from error
    return array


def labels(array: np.ndarray | None, count: int, path: str) -> np.ndarray | None:
    """Stored labels as int64 [count]: integers [N] or [N, 1]; None where there are none or they are not classes."""
    if array is None or not np.issubdtype(array.dtype, np.integer):
        return None
    if array.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{path} has labels {list(array.shape)} for {count} images. Expected [{count}]; save them anew."
        )
    return array.reshape(count).astype(np.int64)


@contextmanager
def _opened(path: str) -> Iterator[NpzFile]:
    # NumPy leaves a file that it opened itself open where it turns out to be damaged.
    with open(path, "rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise ValueError("it is a single array, the content of an .npy")
        with archive:
            yield archive


def _unreadable(path: str, error: Exception) -> DataError:
    """What to raise where NumPy cannot read a file."""
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return DataError(f"{path} holds pickled objects, which are never loaded. Expected numbers; save it as uint8.")
    size = os.path.getsize(path)
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"Cannot read {path} ({size} bytes): {reason}. Expected what numpy.save or numpy.savez writes.")
