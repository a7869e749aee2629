"""Two sets of features → how far apart the distributions are that they were drawn from.

`samples` of a model [n, d] are held against `references` [N, d]. All is float64, and beside the features no
more than a few times `CHUNK` bytes of distances or kernel values stand in memory. Standard errors are over other
samples against the same references: delete-a-block jackknives, or exact where a number is the mean of one a sample.
"""

from diffscope.distributions.frechet import FrechetDistance, FrechetReference, paired_distances
from diffscope.distributions.kernel import KernelReference
from diffscope.distributions.neighborhoods import DENSITY_K, PRECISION_K, NeighborhoodReference, Neighborhoods
from diffscope.distributions.samples import Estimate, TooFew

__all__ = [
    "DENSITY_K",
    "PRECISION_K",
    "Estimate",
    "FrechetDistance",
    "FrechetReference",
    "KernelReference",
    "NeighborhoodReference",
    "Neighborhoods",
    "TooFew",
    "paired_distances",
]
