"""Linear-probe accuracy at each noise level, from the output of `diffscope features` on labelled images.

    diffscope features CKPT --data IMAGES --augment none --views 1 -o features.safetensors
    python scripts/probe_features.py features.safetensors

Logistic regression (scikit-learn, features standardised) on three quarters of the images, accuracy on the rest, over
seeded splits. The error is that of the mean over splits and test images, from the binomial of one split.
"""

from __future__ import annotations

import argparse

import numpy as np
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features")
    parser.add_argument("--splits", type=int, default=4)
    arguments = parser.parse_args()
    tensors = load_file(arguments.features)
    labels = tensors["label"]
    print("layer,sigma,accuracy,error")
    for layer in (name for name in tensors if name not in ("sigma", "index", "label")):
        for sigma, z in zip(tensors["sigma"], tensors[layer][:, 0], strict=True):
            scores = [accuracy(z, labels, seed) for seed in range(arguments.splits)]
            mean = float(np.mean(scores))
            print(f"{layer},{sigma:.4g},{mean:.4f},{(mean * (1 - mean) / (len(labels) // 4)) ** 0.5:.4f}", flush=True)


def accuracy(z: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Of a probe on features z [images, d]; the split depends on the seed alone, so that levels can be compared."""
    order = np.random.default_rng(seed).permutation(len(z))
    train, test = order[len(z) // 4 :], order[: len(z) // 4]
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(probe.fit(z[train], labels[train]).score(z[test], labels[test]))


if __name__ == "__main__":
    main()
