"""Figures 4, 5, 12, 14 and 15 of arXiv 2502.05743, on its mixture of low-rank Gaussians: tables and pictures.

    python scripts/train_mixture.py subspaces
    python scripts/train_mixture.py lines
    python scripts/mixture_figures.py --runs runs/mixture --to scripts/results/mixture

"Understanding Representation Dynamics of Diffusion Models via Low-Dimensional Modeling", 2025,
https://arxiv.org/abs/2502.05743. Of the exact posterior mean and of the MLP that was trained on the same images: CSNR
with the true subspaces, and the accuracy of a linear probe of the absolute values, trained on the network's own 3,000
images and tested on five other sets (figure 5); of the MLP's second layer, whose subspaces are those of its features
(figure 12); the closed form of CSNR beside its definition (figure 14); where the posterior mean lies (figure 15).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from train_mixture import CHANNELS, IMAGES, MIXTURES, NOISE, SIDE, Mixture, MixtureMlp, schedule

from diffscope.api import load, wrap
from diffscope.families.base import Denoiser
from diffscope.families.mixture import MixtureDenoiser
from diffscope.numerics import FloatArray
from diffscope.options.drawing import Drawing
from diffscope.report.figures import canvas
from diffscope.sources.base import Target, open_source
from diffscope.studies.probe import class_metrics, classifiers
from diffscope.studies.probe.class_metrics import ClassSubspaces, Labels

PAPERS_STEPS = (1, 5, 10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 240, 260, 280)
"""Of figures 5 and 12, appendix A.3."""
SHOWN_STEPS = (1, 20, 80, 200, 260)
"""Of figure 15."""
TEST_SEEDS = (1, 2, 3, 4, 5)
HIDDEN = "second.1"
SIGMA = "noise level σ (noise-to-signal ratio)"
Features = Callable[[Tensor, float], FloatArray]
"""(images [N, 2, 5, 5], sigma) → features [N, d]."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/mixture"), help="where train_mixture.py wrote")
    parser.add_argument("--to", type=Path, default=Path("scripts/results/mixture"))
    parser.add_argument("--images", type=int, default=IMAGES, help="of each set")
    parser.add_argument("--steps", type=int, nargs="+", default=PAPERS_STEPS, help="noise levels of figures 5 and 12")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.to.mkdir(parents=True, exist_ok=True)
    noise = schedule()
    levels = [noise.to_sigma(step) for step in arguments.steps]
    trained = {name: network(arguments.runs / f"{name}.safetensors") for name in MIXTURES}
    with canvas.look(Drawing(format=("png",))):
        rates(arguments.to)
        accuracies(trained["subspaces"], levels, arguments.images, arguments.to)
        approximation(arguments.to)
        projection(trained["lines"], [noise.to_sigma(step) for step in SHOWN_STEPS], arguments.to)


def network(file: Path) -> Denoiser:
    """The trained MLP, as `--network` reads it."""
    module = MixtureMlp()
    module.load_state_dict(load_file(file))
    return wrap(module.eval(), side=SIDE, channels=CHANNELS, noise=NOISE, predicts="x0", layers=[HIDDEN])


def exact(spelling: str) -> MixtureDenoiser:
    denoiser = load(spelling)[1]
    assert isinstance(denoiser, MixtureDenoiser)
    return denoiser


def posterior(denoiser: Denoiser) -> Features:
    """The posterior mean, flat."""

    def features(images: Tensor, sigma: float) -> FloatArray:
        return denoiser.denoise(images, torch.tensor([sigma], dtype=torch.float32), None).flatten(1).numpy()

    return features


def hidden(denoiser: Denoiser) -> Features:
    """The second layer's activations."""

    def features(images: Tensor, sigma: float) -> FloatArray:
        return next(iter(denoiser.walk(images, sigma, None, until={HIDDEN})))[1].numpy()

    return features


# --- figure 4


def rates(to: Path) -> None:
    """What CSNR is made of: noise goes faster the higher σ is, while the weight of the own class falls."""
    known = exact(MIXTURES["subspaces"].model)
    delta = known.constructor["delta"]
    rows = []
    for sigma in np.geomspace(0.02, 10, 40):
        own, other = known.weights_at_means(sigma)
        csnr = known.approximate_csnr(sigma)
        rows.append({"sigma": sigma, "denoising": (sigma / delta) ** 2, "own": own, "other": other, "csnr": csnr})
    write(to / "figure-4.csv", rows)
    figure = canvas.Figure(figsize=(canvas.WIDTH, 6.2))
    panels = figure.subplots(3, 1, sharex=True)
    sigmas = [row["sigma"] for row in rows]
    panels[0].plot(sigmas, [row["denoising"] for row in rows], color=canvas.PALETTE[0])
    panels[0].set_yscale("log")
    panels[0].set_title("denoising rate, σ²/δ²", loc="left", fontsize=8.5)
    for i, (key, name) in enumerate((("own", "own class"), ("other", "another class"))):
        panels[1].plot(sigmas, [row[key] for row in rows], label=name, color=canvas.PALETTE[i], ls=canvas.DASHES[i])
    panels[1].set_title("class confidence rates", loc="left", fontsize=8.5)
    panels[1].legend()
    panels[2].plot(sigmas, [row["csnr"] for row in rows], color=canvas.PALETTE[0])
    panels[2].set_title("closed form of CSNR", loc="left", fontsize=8.5)
    log_sigma(panels[2])
    canvas.save(figure, to / "figure-4")


# --- figures 5 and 12


def accuracies(trained: Denoiser, levels: Sequence[float], count: int, to: Path) -> None:
    """CSNR and accuracy over noise levels, of both posterior means and of the hidden layer."""
    mixture = MIXTURES["subspaces"]
    data = Data(mixture, count)
    known = exact(mixture.model)
    energies = true_energies(known)
    rows: list[dict[str, Any]] = []
    for sigma in levels:
        for input in ("clean", "noisy"):
            for name, denoiser in (("exact", known), ("trained", trained)):
                found = data.features(posterior(denoiser), sigma, input)
                z, test = np.abs(found[0]), np.abs(found[1])
                values = data.csnr(found, energies) | data.accuracy(z, test)
                values |= data.accuracy(z, test, name="accuracy_unscaled", scaled=False)
                rows.append({"sigma": sigma, "features": name, "input": input, **values})
        found = data.features(hidden(trained), sigma, "clean")
        subspaces = ClassSubspaces(found[0], data.labels, mixture.rank)
        values = data.csnr(found, subspaces.energies) | data.accuracy(*found)
        rows.append({"sigma": sigma, "features": "hidden", "input": "clean", **values})
    write(to / "figures-5-12.csv", rows)
    lines = {
        "exact, clean input": of(rows, "exact", "clean"),
        "trained, clean input": of(rows, "trained", "clean"),
        "exact, noisy input": of(rows, "exact", "noisy"),
        "trained, noisy input": of(rows, "trained", "noisy"),
    }
    told = f"posterior mean, {len(TEST_SEEDS)} test sets of {count} images (bands: their deviation)"
    draw_curves(lines, told, "probe of absolute values", to / "figure-5")
    told = f"second layer of the trained MLP, clean input, {len(TEST_SEEDS)} test sets of {count} images"
    draw_curves({"hidden features": of(rows, "hidden", "clean")}, told, "linear probe", to / "figure-12")


class Data:
    """The images that the network was trained on, and five sets of others."""

    def __init__(self, mixture: Mixture, count: int) -> None:
        self.images, self.labels = mixture.images(count, seed=0)
        self.tests = [mixture.images(count, seed) for seed in TEST_SEEDS]

    def features(self, of: Features, sigma: float, input: str) -> tuple[FloatArray, FloatArray]:
        """Of the training images [n, d], and of all test images one set after the other [5n, d]."""
        draws = torch.Generator().manual_seed(0)

        def fed(images: Tensor) -> Tensor:
            return images if input == "clean" else images + sigma * torch.randn(images.shape, generator=draws)

        tests = [of(fed(images), sigma) for images, _ in self.tests]
        return of(fed(self.images), sigma), np.concatenate(tests)

    def csnr(
        self, found: tuple[FloatArray, FloatArray], energies: Callable[[FloatArray], FloatArray]
    ) -> dict[str, float]:
        """Mean and deviation over the test sets."""
        parts = zip(np.split(energies(found[1]), len(self.tests)), self.tests, strict=True)
        return summary("csnr", [class_metrics.csnr(part, labels) for part, (_, labels) in parts])

    def accuracy(
        self, z: FloatArray, test: FloatArray, name: str = "accuracy", scaled: bool = True
    ) -> dict[str, float]:
        """Mean and deviation over the test sets, of features divided by their deviations or of features as they are."""
        if scaled:
            found = classifiers.linear_probe(z.astype(np.float32), self.labels, test.astype(np.float32)).labels
        else:
            from sklearn.linear_model import LogisticRegression

            found = LogisticRegression(max_iter=2000).fit(z, self.labels).predict(test)
        parts = zip(np.split(found, len(self.tests)), self.tests, strict=True)
        return summary(name, [float((part == labels).mean()) for part, (_, labels) in parts])


def true_energies(denoiser: MixtureDenoiser) -> Callable[[FloatArray], FloatArray]:
    """‖U_kᵀz‖² [n, K] with the subspaces that the images were made of."""
    bases = denoiser.network.get_buffer("bases").double().numpy()
    return lambda z: np.stack([((z @ basis) ** 2).sum(1) for basis in bases], 1)


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    return {name: float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}


def of(rows: Iterable[Mapping[str, Any]], features: str, input: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["features"], row["input"]) == (features, input)]


def draw_curves(lines: Mapping[str, Sequence[Mapping[str, Any]]], told: str, probe: str, stem: Path) -> None:
    handles = [canvas.Line2D([], [], **canvas.curve_style(i), label=name) for i, name in enumerate(lines)]
    figure = canvas.Figure(figsize=(canvas.WIDTH, 5.4 + canvas.legend_height(handles)))
    above, below = figure.subplots(2, 1, sharex=True)
    for i, rows in enumerate(lines.values()):
        for axes, key in ((above, "csnr"), (below, "accuracy")):
            sigma = [row["sigma"] for row in rows]
            mean, deviation = (np.array([row[name] for row in rows]) for name in (key, f"{key}_sd"))
            axes.plot(sigma, mean, **canvas.curve_style(i))
            axes.fill_between(sigma, mean - deviation, mean + deviation, color=canvas.PALETTE[i], alpha=0.16)
    above.set_ylabel("CSNR")
    below.set_ylabel("accuracy")
    above.set_title(told, loc="left", fontsize=8.5)
    below.set_title(probe, loc="left", fontsize=8.5)
    log_sigma(below)
    if len(handles) > 1:
        canvas.legend(figure, handles)
    canvas.save(figure, stem)


def log_sigma(axes: canvas.Axes) -> None:
    axes.set_xscale("log")
    canvas.plain_numbers(axes.xaxis, 1000)
    axes.set_xlabel(SIGMA)


# --- figure 14

DEFAULTS = {"classes": 3, "rank": 5, "side": 5, "delta": 0.5}
VARIED: dict[str, tuple[str, Sequence[float]]] = {
    "classes": ("K", (2, 3, 5)),
    "rank": ("d", (2, 5, 10)),
    "side": ("n", (4, 5, 7)),
    "delta": ("δ", (0.2, 0.35, 0.5)),
}
DRAWN = 2400
"""Images, as the paper has it."""


def approximation(to: Path) -> None:
    """CSNR of clean images by its definition, and the closed form, one parameter varied at a time."""
    levels = np.geomspace(0.02, 10, 19)
    rows: list[dict[str, Any]] = []
    for key, (name, values) in VARIED.items():
        for value in values:
            shown = CHANNELS * int(value) ** 2 if key == "side" else value
            for sigma, measured, closed in approximated({**DEFAULTS, key: value}, levels):
                rows.append({"varied": name, "value": shown, "sigma": sigma, "csnr": measured, "approximation": closed})
    write(to / "figure-14.csv", rows)
    figure = canvas.Figure(figsize=(canvas.WIDTH + 1, 6.2))
    panels = figure.subplots(2, 2, sharex=True)
    for axes, (name, _) in zip(panels.flat, VARIED.values(), strict=True):
        some = [row for row in rows if row["varied"] == name]
        for i, shown in enumerate(dict.fromkeys(row["value"] for row in some)):
            curve = [row for row in some if row["value"] == shown]
            sigmas = [row["sigma"] for row in curve]
            look = {"color": canvas.PALETTE[i]}
            axes.plot(sigmas, [row["csnr"] for row in curve], **look, label=f"{name} = {shown:g}")
            axes.plot(sigmas, [row["approximation"] for row in curve], **look, linestyle=canvas.DASHES[1])
        axes.set_yscale("log")
        highest, lowest = (of_all(float(row["csnr"]) for row in some) for of_all in (max, min))
        canvas.plain_numbers(axes.yaxis, highest / lowest)
        axes.legend(handlelength=1.5)
        log_sigma(axes)
    for axes in panels[0]:
        axes.set_xlabel("")
    for axes in panels[:, 0]:
        axes.set_ylabel("CSNR")
    default = f"K = 3, d = 5, n = {CHANNELS * 25}, δ = 0.5 where not varied"
    figure.suptitle(f"CSNR of {DRAWN} clean images (solid) and its approximation (dashed)\n{default}", fontsize=10)
    canvas.save(figure, to / "figure-14")


def approximated(facts: Mapping[str, float], levels: Iterable[float]) -> list[tuple[float, float, float]]:
    """(sigma, CSNR by its definition, its closed form)."""
    shared = f"classes={facts['classes']:g},rank={facts['rank']:g},delta={facts['delta']:g}"
    denoiser = exact(f"mixture:channels={CHANNELS},side={facts['side']:g},{shared}")
    source = open_source(f"mixture:count={DRAWN},{shared}")
    target = Target(int(facts["side"]), CHANNELS)
    images = torch.from_numpy(np.stack([source.read(index, target) for index in range(DRAWN)]))
    labels: Labels = np.asarray(source.labels)
    energies = true_energies(denoiser)
    return [
        (
            float(sigma),
            class_metrics.csnr(energies(posterior(denoiser)(images, sigma)), labels),
            denoiser.approximate_csnr(sigma),
        )
        for sigma in levels
    ]


# --- figure 15

PLANE = 19
"""Seed of the plane: one in which none of the three lines is seen end on."""


def projection(trained: Denoiser, levels: Sequence[float], to: Path) -> None:
    """Posterior means of clean images of three lines: in the space of the lines, then in a random plane of it."""
    mixture = MIXTURES["lines"]
    known = exact(mixture.model)
    images, labels = mixture.images(900, seed=1)
    energies = true_energies(known)
    lines = known.network.get_buffer("bases").double().numpy()[:, :, 0]
    plane = np.linalg.qr(np.random.default_rng(PLANE).standard_normal((3, 2)))[0]
    figure = canvas.Figure(figsize=(2 * len(levels) + 0.6, 5.1))
    panels = figure.subplots(2, len(levels))
    rows = []
    for row, (name, denoiser) in zip(panels, (("exact", known), ("trained", trained)), strict=True):
        for axes, sigma in zip(row, levels, strict=True):
            found = posterior(denoiser)(images, sigma)
            csnr = class_metrics.csnr(energies(found), labels)
            rows.append({"posterior": name, "sigma": sigma, "csnr": csnr})
            at = found @ lines.T @ plane
            for k in range(3):
                axes.scatter(*at[labels == k].T, s=3, linewidths=0, color=canvas.PALETTE[k], alpha=0.7)
            reach = 1.05 * float(np.abs(at).max())  # the means shrink with σ: every panel has a scale of its own
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
            axes.set_title(f"σ = {sigma:.2g}, CSNR {csnr:.3g}", fontsize=8.5)
            axes.tick_params(labelsize=7)
        row[0].set_ylabel(f"{name} posterior mean")
    write(to / "figure-15.csv", rows)
    told = f"three lines in R^50 (δ = {mixture.delta}), 300 clean images of each"
    figure.suptitle(f"{told}, in a random plane of the lines' space", fontsize=10)
    canvas.save(figure, to / "figure-15")


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """CSV with four digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
