"""Puts the folder of `commands.py` on the path when this folder is tested alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
