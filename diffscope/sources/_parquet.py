"""Images in Parquet, as the Hub keeps data sets: a column of encoded pictures and, if any, one of classes.

Parquet is read in row groups, so the pictures of a few groups are kept in memory while their neighbours are asked for.
pyarrow, an extra of the installation, is imported at the first use.
"""

from __future__ import annotations

import bisect
import importlib.util
import itertools
import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffscope.errors import DataError
from diffscope.sources._decode import decode, most_bytes
from diffscope.sources._files import too_large
from diffscope.sources._listing import check_range
from diffscope.sources._room import STORED
from diffscope.sources.base import Source, Target

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "class", "y")
KEPT = 256 << 20  # bytes of pictures kept in memory, whole row groups of them
GROUP = 512 << 20  # bytes of pictures that a row group may always have, and as many as the file has on disk
ROWS = 16  # read at a time: a dictionary makes a few bytes as many large pictures as it likes


def require(path: str) -> None:
    """DataError where pyarrow is not installed; cheap, to be asked before anything is downloaded."""
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            f"{path} holds Parquet, which needs pyarrow. It is not installed: pip install 'diffscope[parquet]'."
        )


class ParquetSource(Source):
    """The rows of several files, one file after the other; no picture is read when they are opened.

    Args:
        path: What messages call the source.
        files: On disk, of one schema.

    Raises:
        DataError: pyarrow is not installed, a file is damaged, or it has no column of pictures.
    """

    kind = "images"

    def __init__(self, path: str, files: Sequence[Path]) -> None:
        require(path)
        self.path = path
        self._lock = threading.Lock()
        self._files = [_opened(path, file) for file in files]
        self._sizes = [file.stat().st_size for file in files]
        features = _features(self._files[0].schema_arrow)
        self._column = _image_column(path, self._files[0].schema_arrow, features)
        counts = [
            (number, group, file.metadata.row_group(group).num_rows)
            for number, file in enumerate(self._files)
            for group in range(file.metadata.num_row_groups)
        ]
        self._groups = [(file, group) for file, group, _ in counts]
        self._starts: list[int] = [0, *itertools.accumulate(rows for _, _, rows in counts)]
        self._kept: OrderedDict[int, Any] = OrderedDict()
        if not self._starts[-1]:
            raise DataError(f"No images in {path}: its Parquet has no rows. Check the reference.")
        if self._starts[-1] > sum(self._sizes):  # a picture has at least a byte
            raise _unreadable(path, ValueError(f"{self._starts[-1]} rows in {sum(self._sizes)} bytes"))
        self.labels, self.class_names = self._read_labels(features)

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._starts[-1]

    def name(self, index: int) -> str:
        """Returns the index as eight digits."""
        return f"{index:08d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        """Decodes the picture of one row to uint8 [channels, side, side].

        Raises:
            DataError: It cannot be read; the message names it.
            Exhausted: Memory or file handles ran out.
        """
        data = self._bytes(index)
        if len(data) > (most := most_bytes(self.max_pixels)):
            raise too_large(f"row {index} of {self.path}", len(data), most)
        with STORED.of(len(data)):
            return decode(data, f"row {index} of {self.path}", target, self.max_pixels)

    def size(self, index: int) -> int:
        """Returns 0: sizes are known only once all pictures have been read; names and count already decide a subset."""
        return 0

    def checksum(self, index: int) -> int:
        """Returns the CRC-32 of the stored picture.

        Raises:
            DataError: The row cannot be read or holds no picture.
        """
        return zlib.crc32(self._bytes(index))

    def _bytes(self, index: int) -> bytes:
        """The stored picture of one row."""
        number = bisect.bisect_right(self._starts, index) - 1
        with self._lock:  # a ParquetFile is not made for threads; they decode outside
            group = self._group(number)
            if len(group) != self._starts[number + 1] - self._starts[number]:
                raise _unreadable(self.path, ValueError(f"row group {number} has {len(group)} rows, not as it says"))
            cell = group[index - self._starts[number]].as_py()
        if isinstance(cell, dict):
            cell = cell.get("bytes")
        if not isinstance(cell, bytes):
            raise DataError(f"Row {index} of {self.path} holds no picture. Replace or remove the row.")
        return cell

    def _group(self, number: int) -> Any:
        """The column of pictures of one row group."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        self._kept[number] = column = self._read_group(*self._groups[number])
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)
        return column

    def _read_group(self, file: int, group: int) -> Any:
        """Reads a row group in small steps; DataError once it is larger than the pictures of such a file can be."""
        import pyarrow

        most, size, columns = GROUP + self._sizes[file], 0, []
        try:
            for batch in self._files[file].iter_batches(ROWS, row_groups=[group], columns=[self._column]):
                columns.append(batch.column(self._column))
                size += batch.nbytes
                if size > most:
                    raise ValueError(f"a row group has more than {most} bytes; write smaller ones")
            return pyarrow.chunked_array(columns) if columns else pyarrow.chunked_array([], pyarrow.binary())
        except MemoryError:
            raise
        except Exception as error:  # most of pyarrow's own are OSError or ValueError
            raise _unreadable(self.path, error) from error

    def _read_labels(self, features: dict[str, Any]) -> tuple[np.ndarray | None, list[str] | None]:
        """(classes of all rows, their names); None without such a column or where a row has no class."""
        import pyarrow

        schema = self._files[0].schema_arrow
        named = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
        integers = [name for name in LABEL_COLUMNS if _is(pyarrow.types.is_integer, schema, name)]
        candidates = [name for name in LABEL_COLUMNS if name in named] or named[:1] or integers
        if not candidates:
            return None, None
        try:
            columns = [file.read(columns=candidates[:1]).column(candidates[0]) for file in self._files]
            labels = np.concatenate([column.to_numpy() for column in columns])  # a null makes it float
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(self.path, error) from error
        if len(labels) != len(self):
            raise _unreadable(self.path, ValueError(f"{len(labels)} classes for {len(self)} rows"))
        if not np.issubdtype(labels.dtype, np.integer) or (labels < 0).any():
            return None, None
        names = features.get(candidates[0], {}).get("names")
        check_range(0, int(labels.max()), self.path)
        return labels.astype(np.int64), [str(name) for name in names] if isinstance(names, list) else None


def _opened(path: str, file: Path) -> Any:
    """Opens a Parquet file; DataError where it is none."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> DataError:
    """An error on a file that pyarrow cannot read."""
    reason = " ".join(str(error).split())[:200]
    return DataError(f"Cannot read {path} as Parquet: {reason}. Fetch or copy it again.")


def _features(schema: Any) -> dict[str, Any]:
    """What the `datasets` library wrote about the columns; empty where something else wrote the file."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {str(name): feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _image_column(path: str, schema: Any, features: dict[str, Any]) -> str:
    """The column that is marked as one of images, else the one that its type and name show to be."""
    import pyarrow

    said = [name for name, feature in features.items() if feature.get("_type") == "Image" and name in schema.names]
    binary = [name for name in schema.names if _is_picture(schema.field(name).type, pyarrow.types)]
    found = said or binary
    preferred = [name for name in IMAGE_COLUMNS if name in found] or found
    if not preferred or (len(found) > 1 and preferred[0] not in IMAGE_COLUMNS):
        columns = ", ".join(schema.names[:12])
        raise DataError(
            f"{path} has {len(found) or 'no'} columns of pictures among {columns}. "
            "Expected one, such as `image` with encoded bytes; save it so, or give the images as a folder."
        )
    return preferred[0]


def _is_picture(kind: Any, types: Any) -> bool:
    """Encoded bytes, alone or as the `bytes` of a struct, which is how `datasets` stores pictures."""
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_picture(kind.field(index).type, types)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is(test: Any, schema: Any, name: str) -> bool:
    """Whether a schema has a column of this name and kind."""
    return name in schema.names and bool(test(schema.field(name).type))
