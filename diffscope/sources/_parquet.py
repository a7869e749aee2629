"""Images in Parquet, as the Hub keeps data sets.

It is read in row groups, so the pictures of a few groups are kept in memory while their neighbours are asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffscope.sources import _tables
from diffscope.sources._tables import TableSource

KEPT = 256 << 20  # bytes of pictures kept in memory, whole row groups of them
GROUP = 512 << 20  # bytes of pictures that a row group may always have, and as many as the file has on disk
ROWS = 16  # read at a time: a dictionary makes a few bytes as many large pictures as it likes
FORM = "Parquet"


def require(path: str) -> None:
    """DataError where pyarrow is not installed; cheap, to be asked before anything is downloaded."""
    _tables.require(path, FORM)


class ParquetSource(TableSource):
    """The rows of several files, one file after the other; no picture is read when they are opened.

    Args:
        path: What messages call the source.
        files: On disk, of one schema.

    Raises:
        DataError: pyarrow is not installed, a file is damaged, or it has no column of pictures.
    """

    form = FORM

    def __init__(self, path: str, files: Sequence[Path]) -> None:
        require(path)
        self._files = [_opened(path, file) for file in files]
        self._sizes = [file.stat().st_size for file in files]
        self._groups = [
            (number, group) for number, file in enumerate(self._files) for group in range(file.metadata.num_row_groups)
        ]
        self._kept: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        self._size = 0
        rows = [self._files[file].metadata.row_group(group).num_rows for file, group in self._groups]
        super().__init__(path, self._files[0].schema_arrow, rows, sum(self._sizes))

    def _pictures(self, number: int) -> Any:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number][0]
        column, size = self._read_group(*self._groups[number])
        self._kept[number] = column, size
        self._size += size
        while len(self._kept) > 1 and self._size > KEPT:
            self._size -= self._kept.popitem(last=False)[1][1]
        return column

    def _read_group(self, file: int, group: int) -> tuple[Any, int]:
        """Reads a row group, with its bytes, in small steps.

        Raises:
            DataError: It is larger than the pictures of such a file can be.
        """
        import pyarrow

        most, size, columns = GROUP + self._sizes[file], 0, []
        try:
            for batch in self._files[file].iter_batches(ROWS, row_groups=[group], columns=[self._column]):
                columns.append(batch.column(self._column))
                size += batch.nbytes
                if size > most:
                    raise ValueError(f"a row group has more than {most} bytes; write smaller ones")
            return pyarrow.chunked_array(columns or [pyarrow.array([], pyarrow.binary())]), size
        except MemoryError:
            raise
        except Exception as error:  # most of pyarrow's own are OSError or ValueError
            raise self._unreadable(error) from error

    def _whole(self, column: str) -> list[Any]:
        return [chunk for file in self._files for chunk in file.read(columns=[column]).column(column).chunks]


def _opened(path: str, file: Path) -> Any:
    """Opens a Parquet file; DataError where it is none."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except MemoryError:
        raise
    except Exception as error:
        raise _tables.unreadable(path, FORM, error) from error
