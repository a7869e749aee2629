"""The eigenvalues λ̂ of S_W⁻¹Σ̂s, signal over noise in each direction: what ICR = 1/(1 + mean λ) averages.

Li et al., "Evaluating the representation space of diffusion models via self-supervised principles", 2026,
https://arxiv.org/abs/2606.09718, equation 4. These are sample values: sampling spreads them even where all λ are
equal, the smallest may be negative, and their mean is that of `icr_raw`, not of `icr`.
"""

from __future__ import annotations

from diffscope.metrics.base import Context, Measurement
from diffscope.moments import Moments

KEYS = {"lambda": "sample eigenvalues of S_W⁻¹Σ̂s in decreasing order, spread by sampling, not debiased [d ratios]"}
LISTS = ("lambda",)


def measure(moments: Moments, context: Context) -> Measurement:
    """Measures the key above, a list without a standard error; `metrics/base.py` states the contract."""
    return Measurement({"lambda": moments.total.fisher_eigenvalues.tolist()})
