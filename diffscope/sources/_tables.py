"""Images in the rows of a table: a column of encoded pictures and, if any, one of classes. Shared by Parquet and Arrow.

pyarrow, an extra of the installation, is imported at the first use.
"""

from __future__ import annotations

import bisect
import importlib.util
import itertools
import json
import threading
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from diffscope.errors import DataError
from diffscope.sources import _listing
from diffscope.sources._decode import decode, most_bytes
from diffscope.sources._files import too_large
from diffscope.sources._listing import Classes
from diffscope.sources._room import STORED
from diffscope.sources.base import Source, Target

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "class", "y")


def require(path: str, form: str) -> None:
    """DataError where pyarrow is not installed; cheap, to be asked before anything is downloaded."""
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            f"{path} holds {form}, which needs pyarrow. It is not installed: pip install 'diffscope[parquet]'."
        )


class TableSource(Source):
    """The rows of a table that is stored in groups of rows; no picture is read when it is opened.

    Args:
        path: What messages call the source.
        schema: pyarrow's, of the columns.
        rows: Of each group.
        stored: Bytes of all files.

    Raises:
        DataError: It has no rows, or no column of pictures.
    """

    kind = "images"
    form: str
    """How messages call the format."""

    def __init__(self, path: str, schema: Any, rows: Sequence[int], stored: int) -> None:
        self.path, self._schema = path, schema
        self._lock = threading.Lock()
        self._features = _features(schema)
        try:
            self._column = _image_column(path, schema, self._features)
        except (ValueError, KeyError) as error:  # names that are no text, or that two columns have
            raise self._unreadable(error) from error
        self._starts: list[int] = [0, *itertools.accumulate(rows)]
        if not self._starts[-1]:
            raise DataError(f"No images in {path}: its {self.form} has no rows. Check the reference.")
        if self._starts[-1] > stored:  # a picture has at least a byte
            raise self._unreadable(ValueError(f"{self._starts[-1]} rows in {stored} bytes"))
        self.labels, self.class_names, self.lacking = self._classes()

    @abstractmethod
    def _pictures(self, number: int) -> Any:
        """The column of pictures of one group; called by one thread at a time."""

    @abstractmethod
    def _whole(self, column: str) -> Iterable[Any]:
        """A column in parts, pyarrow's arrays; any error of pyarrow's where it cannot be read."""

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
        with self._lock:  # pyarrow's readers are not made for threads; they decode outside
            group = self._pictures(number)
            if len(group) != self._starts[number + 1] - self._starts[number]:
                raise self._unreadable(ValueError(f"row group {number} has {len(group)} rows, not as it says"))
            cell = group[index - self._starts[number]].as_py()
        if isinstance(cell, dict):
            cell = cell.get("bytes")
        if not isinstance(cell, bytes):
            raise DataError(f"Row {index} of {self.path} holds no picture. Replace or remove the row.")
        return cell

    def _classes(self) -> Classes:
        """From the column that is declared as classes, or that is called so and holds whole numbers."""
        import pyarrow

        declared = [name for name, feature in self._features.items() if feature.get("_type") == "ClassLabel"]
        integers = [name for name in LABEL_COLUMNS if _is(pyarrow.types.is_integer, self._schema, name)]
        candidates = [name for name in LABEL_COLUMNS if name in declared] or declared[:1] or integers
        if not candidates:
            return Classes()
        try:
            labels = np.concatenate([part.to_numpy(zero_copy_only=False) for part in self._whole(candidates[0])])
            missing = np.isnan(labels) | (labels == -1)  # `datasets` writes -1 where a class is not known
        except MemoryError:
            raise
        except Exception as error:
            raise self._unreadable(error) from error
        if len(labels) != len(self):
            raise self._unreadable(ValueError(f"{len(labels)} classes for {len(self)} rows"))
        if missing.any():
            rows = [f"row {row}" for row in np.flatnonzero(missing)]
            return Classes(lacking=None if missing.all() else _listing.lacking(rows, len(self)))
        if not np.issubdtype(labels.dtype, np.integer):
            return Classes()
        _listing.check_range(int(labels.min()), int(labels.max()), self.path)
        names = self._features.get(candidates[0], {}).get("names")
        if not isinstance(names, list):
            return Classes(labels.astype(np.int64))
        _listing.check_names(len(names), int(labels.max()), self.path)
        return Classes(labels.astype(np.int64), [str(name) for name in names])

    def _unreadable(self, error: Exception) -> DataError:
        return unreadable(self.path, self.form, error)


def unreadable(path: str, form: str, error: Exception) -> DataError:
    """Makes the error for a file that pyarrow cannot read."""
    reason = " ".join(str(error).split())[:200]
    return DataError(f"Cannot read {path} as {form}: {reason}. Fetch or copy it again.")


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
