"""What a command must never do, for the test that it would be seen."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence


def main(argv: Sequence[str]) -> None:
    """Does what its one word says, and otherwise ends well."""
    (word,) = argv
    if word == "hangs":
        while True:
            pass
    if word == "waits":
        time.sleep(600)
    if word == "grows":
        bytearray(b"x" * (400 << 20))
    if word == "grows at once":
        bytearray(1 << 34)
    if word == "warns":
        warnings.warn("told on stderr", UserWarning, stacklevel=1)
    if word == "talks":
        print("note\n" * 20, file=sys.stderr)
    if word == "raises":
        raise OSError(word)
    if word == "prints colours":
        print("\x1b[31mred")
    if word == "prints rows":
        print('{"rows": [1, 2]}')
    if word == "is unexpected":
        sys.exit("error: unexpected ValueError: x; this is a bug: report it")
    if word == "refuses":
        sys.exit("error: no such file; expected one; look again")
    if word == "says nothing":
        sys.exit(1)
