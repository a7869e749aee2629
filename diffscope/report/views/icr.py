"""ICR at one noise level."""

from __future__ import annotations

from diffscope.report.levels import LevelsView

VIEW = LevelsView()
