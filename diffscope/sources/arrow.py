"""Images in Arrow's own files: an `.arrow`, or a folder that `save_to_disk` of `datasets` wrote.

Both forms of such files, for streams and for random access, are read where they lie: they are mapped, and a picture is
taken from its place. https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from diffscope.errors import DataError
from diffscope.sources import _files, _listing, _tables
from diffscope.sources._tables import TableSource
from diffscope.sources.base import Source

FORM = "Arrow"
MAGIC = b"ARROW1"
"""Around a file for random access, which holds the same messages as one for streams."""
END = b"\xff\xff\xff\xff\0\0\0\0"
"""Of a stream."""
STATE, DICT = "state.json", "dataset_dict.json"
"""Beside the files of a data set, and of several splits."""
MOST_STATE = 16 << 20


def accepts(path: str) -> bool:
    """Says whether `path` is a file that ends in .arrow, or a folder that `datasets` saved."""
    return (path.lower().endswith(".arrow") and os.path.isfile(path)) or _listing.is_saved(path)


def open(path: str) -> Source:
    """Opens an Arrow file, or those of a folder.

    Raises:
        DataError: pyarrow is not installed, a file is damaged or compressed, there is no column of pictures, or the
            folder holds several splits.
    """
    return ArrowSource(path, _data_files(path) if os.path.isdir(path) else [path])


class ArrowSource(TableSource):
    """The rows of several files, one file after the other; they are mapped, and no picture is read when opened.

    Args:
        path: What messages call the source.
        files: Their paths; of one schema.

    Raises:
        DataError: pyarrow is not installed, a file is damaged or compressed, or it has no column of pictures.
    """

    form = FORM

    def __init__(self, path: str, files: Sequence[str]) -> None:
        _tables.require(path, FORM)
        self._batches = [batch for file in files for batch in _batches(file)]
        if not self._batches:
            raise DataError(f"No images in {path}: its Arrow has no rows. Check the path.")
        rows = [batch.num_rows for batch in self._batches]
        super().__init__(path, self._batches[0].schema, rows, sum(os.path.getsize(file) for file in files))
        for number in range(len(rows)):
            self._validated(number, self._column)

    def _pictures(self, number: int) -> Any:
        return self._batches[number].column(self._column)

    def _whole(self, column: str) -> Iterator[Any]:
        return (self._validated(number, column) for number in range(len(self._batches)))

    def _validated(self, number: int, column: str) -> Any:
        """A column of one batch, of which no place lies outside of the file, as pyarrow itself does not look."""
        try:
            found = self._batches[number].column(column)
            found.validate(full=True)
            return found
        except MemoryError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error


def _data_files(folder: str) -> list[str]:
    """The files of a saved data set, in order; DataError where there are splits, or its list is damaged."""
    if os.path.isfile(os.path.join(folder, DICT)):
        splits = sorted(name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name, STATE)))
        raise _listing.several_splits(folder, splits)
    where = os.path.join(folder, STATE)
    try:
        listed = json.loads(_files.read(where, where, MOST_STATE))["_data_files"]
        names = [str(one["filename"]) for one in listed]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{where} lists no files of data. Expected what save_to_disk writes; save it anew.") from None
    if not names or any(os.path.basename(name) != name for name in names):
        raise DataError(f"{where} lists {', '.join(names[:3]) or 'no files'}. Expected files beside it; save it anew.")
    return [os.path.join(folder, name) for name in names]


def _batches(file: str) -> list[Any]:
    """The record batches of a file, mapped; DataError where it is damaged, compressed or cut short."""
    import pyarrow

    try:
        mapped = pyarrow.memory_map(file)
        start = 8 if mapped.read(len(MAGIC)) == MAGIC else 0
        _check_end(mapped, start)
        mapped.seek(start)
        for message in pyarrow.ipc.MessageReader.open_stream(mapped):
            if message.type in ("record batch", "dictionary") and _is_compressed(message.metadata.to_pybytes()):
                raise DataError(
                    f"{file} is compressed. Expected Arrow without compression; write it so, or as Parquet."
                )
        mapped.seek(start)
        return list(pyarrow.ipc.open_stream(mapped))
    except (MemoryError, DataError):
        raise
    except Exception as error:  # besides pyarrow's own: OSError, struct.error
        raise _tables.unreadable(file, FORM, error) from error


def _check_end(mapped: Any, start: int) -> None:
    """ValueError where a file does not end as one does that was written to its end."""
    end = MAGIC if start else END
    mapped.seek(max(0, mapped.size() - len(end)))
    if mapped.read(len(end)) != end:
        raise ValueError("it ends before its mark of the end")


def _is_compressed(metadata: bytes) -> bool:
    """Whether the body of a message is compressed, of which a few bytes could make gigabytes as it is read.

    `metadata` is a FlatBuffer (Message.fbs): `header`, its third field, is a RecordBatch, whose fourth field is
    `compression`, or a DictionaryBatch, whose second field is one.
    """
    message = _pointed(metadata, 0)
    kind, header = _field(metadata, message, 1), _field(metadata, message, 2)
    if kind is None or header is None:
        raise ValueError("a message has no header")
    batch = _pointed(metadata, header)
    if metadata[kind] == 2:  # DictionaryBatch
        data = _field(metadata, batch, 1)
        if data is None:
            raise ValueError("a dictionary has no data")
        batch = _pointed(metadata, data)
    return _field(metadata, batch, 3) is not None


def _pointed(data: bytes, place: int) -> int:
    """Where the offset at a place leads to."""
    return place + int(struct.unpack_from("<I", data, place)[0])


def _field(data: bytes, table: int, number: int) -> int | None:
    """Where a field of a FlatBuffer's table lies; None where the table has not got it."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, fields)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", data, fields + 4 + 2 * number)
    return table + offset if offset else None
