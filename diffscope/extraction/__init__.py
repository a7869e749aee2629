"""Denoiser + source + views → a stream of pooled features, for every layer and noise level asked for.

plan ─▶ inputs (decode, views, VAE; once) ─▶ extractor (level by level: walk, pool) ─▶ Features
"""

from __future__ import annotations

from diffscope.extraction.devices import arithmetic, cpu_capabilities, resolve_device, resolve_precision
from diffscope.extraction.extractor import Extractor, batch_label
from diffscope.extraction.inputs import Inputs, Skipped, target_of
from diffscope.extraction.plan import DTYPES, SPACING, Batch, Features, Plan, not_finite

__all__ = [
    "DTYPES",
    "SPACING",
    "Batch",
    "Extractor",
    "Features",
    "Inputs",
    "Plan",
    "Skipped",
    "arithmetic",
    "batch_label",
    "cpu_capabilities",
    "not_finite",
    "resolve_device",
    "resolve_precision",
    "target_of",
]
