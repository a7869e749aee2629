"""Puts the folder of `commands.py` and that of `edm_fixture.py` on the path."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "checkpoints")]
