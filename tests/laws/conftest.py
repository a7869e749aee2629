"""The examples that laws are tried on are the same in every run, and few: all laws together take half a minute."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "families")]

settings.register_profile(
    "laws",
    derandomize=True,
    database=None,
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("laws")
