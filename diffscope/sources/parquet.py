"""A Parquet file of images: encoded pictures in a column `image`, classes, if any, in `label`."""

from __future__ import annotations

import os
from pathlib import Path

from diffscope.sources._parquet import ParquetSource
from diffscope.sources.base import Source


def accepts(path: str) -> bool:
    """Says whether `path` is a file that ends in .parquet."""
    return path.lower().endswith(".parquet") and os.path.isfile(path)


def open(path: str) -> Source:
    """Opens one Parquet file of images.

    Raises:
        DataError: pyarrow is not installed, the file is damaged, or it has no column of pictures.
    """
    return ParquetSource(path, [Path(path)])
