"""ICR over noise levels and layers."""

from __future__ import annotations

from diffscope.report.levels import LevelsView

VIEW = LevelsView()
