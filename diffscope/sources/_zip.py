"""Members of zips, each unpacked up to a stated size and no further, whatever its header claims."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

from diffscope.errors import DataError

CHUNK = 1 << 20
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Other methods unpack a few bytes to gigabytes at once."""


def opened(path: str) -> zipfile.ZipFile:
    """Opens a zip; DataError where it is none."""
    try:
        return zipfile.ZipFile(path)
    except MemoryError:
        raise
    # Besides BadZipFile: NotImplementedError (a version of the format), UnicodeDecodeError, ValueError, struct.error.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"Cannot read {path} as a zip: {reason}. Was it copied completely?") from error


def read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    """Reads all of a member; DataError where it has more than `most` bytes or cannot be read."""
    if info.file_size > most:
        raise _failed(archive, info, f"it has {info.file_size} bytes, expected at most {most}")
    return b"".join(chunks(archive, info))


def chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Reads a member in steps, at most as many bytes as it declares; DataError where they are not what it declares."""
    try:
        if info.compress_type not in PLAIN:
            raise ValueError(f"it is compressed by method {info.compress_type}, expected stored or deflated")
        left = info.file_size
        with archive.open(info) as member:
            while chunk := member.read(CHUNK):
                left -= len(chunk)
                yield chunk
        if left:
            raise ValueError(f"{left} bytes are missing")
    except MemoryError:
        raise
    # Besides BadZipFile: RuntimeError (encrypted), NotImplementedError, zlib.error, EOFError.
    except Exception as error:
        raise _failed(archive, info, " ".join(str(error).split()) or type(error).__name__) from error


def _failed(archive: zipfile.ZipFile, info: zipfile.ZipInfo, reason: str) -> DataError:
    """An error on a member that cannot be read."""
    return DataError(f"Cannot read {info.filename} in {archive.filename}: {reason}. Copy or write it anew.")
