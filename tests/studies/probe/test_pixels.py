"""Features of single pixels against torch's own interpolation, which pixels are drawn, and the heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffscope.errors import UsageError
from diffscope.families.base import Layer
from diffscope.studies.probe import pixel_heads
from diffscope.studies.probe.masks import VOID
from diffscope.studies.probe.pixel_heads import restored, trained
from diffscope.studies.probe.pixels import Grid, at_pixels, drawn, grid_of, shared_out


def test_pixels_are_those_of_torchs_interpolation() -> None:
    """Of larger, equal and smaller maps, to rounding."""
    side = 12
    shapes = [(3, 4, 4), (2, 12, 12), (4, 5, 3), (1, 1, 1), (2, 24, 24)]
    maps = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
    whole = torch.cat(
        [torch.nn.functional.interpolate(m[None], (side, side), mode="bilinear", align_corners=False)[0] for m in maps]
    )
    positions = torch.tensor([0, 5, 11, 12, 77, 143])
    grids = [Grid(*shape, tokens=False) for shape in shapes]
    found = at_pixels([m.flatten(1) for m in maps], grids, side, positions)
    assert found.shape == (6, 12)
    assert torch.allclose(found, whole.flatten(1)[:, positions].T, atol=1e-6)


def test_layers_lie_over_the_image() -> None:
    assert grid_of(Layer("map", (3, 4, 5)), 8) == Grid(3, 4, 5, tokens=False)
    grid = grid_of(Layer("tokens", (16, 6)), 8)
    assert grid == Grid(6, 4, 4, tokens=True)
    tokens = torch.arange(96.0).view(1, 16, 6)
    assert (grid.of(tokens.flatten(1))[0, :, 5] == tokens[0, 5]).all()
    with pytest.raises(UsageError, match=r"layer=joint.*17 tokens, which are no square of patches"):
        grid_of(Layer("joint", (17, 6)), 8)
    with pytest.raises(UsageError, match="9 tokens"):  # a square, but of no whole patches of eight pixels
        grid_of(Layer("joint", (9, 6)), 8)
    with pytest.raises(UsageError, match="one vector for the whole image"):
        grid_of(Layer("emb", (32,)), 8)


def test_pixels_are_drawn_by_seed_and_image_and_never_void() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[:3] = VOID
    found = drawn(mask, 20, seed=1, image=7)
    assert len(set(found.tolist())) == 20
    assert found.min() >= 30
    assert set(drawn(mask, 9, 1, 7)) < set(found)
    assert (drawn(mask, 20, 1, 7) == found).all()
    assert (drawn(mask, 20, 1, 8) != found).any()
    assert (drawn(mask, 20, 2, 7) != found).any()
    assert len(drawn(mask, 1000, 1, 7)) == 70
    assert not len(drawn(np.full((4, 4), VOID, np.uint8), 3, 0, 0))


@pytest.mark.parametrize(("pixels", "images"), [(20, 6), (3, 5), (6, 6)])
def test_pixels_are_shared_out_evenly(pixels: int, images: int) -> None:
    shares = shared_out(pixels, images)
    assert (sum(shares), len(shares)) == (pixels, images)
    assert max(shares) - min(shares) <= 1


def blobs(classes: int, n: int = 600, d: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.uint8)
    centres = np.random.default_rng(9).standard_normal((classes, d)) * 4
    scale = 10.0 ** np.arange(-2, d - 2)
    return ((centres[labels] + rng.standard_normal((n, d))) * scale + scale).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 4])
def test_the_linear_head_is_scikit_learns(classes: int) -> None:
    z, labels = blobs(classes)
    test, _ = blobs(classes, seed=1)
    head = trained("linear", z, labels, classes, 0, "cpu")
    theirs = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(z, labels).predict(test)
    again = restored("linear", head.arrays(), classes)
    assert (head.predict(torch.from_numpy(test)).numpy() == theirs).mean() > 0.995  # but where two are as probable
    assert (again.predict(torch.from_numpy(test)) == head.predict(torch.from_numpy(test))).all()


def test_a_class_without_training_pixels_is_never_predicted() -> None:
    z, labels = blobs(3)
    labels = np.where(labels == 0, 4, labels).astype(np.uint8)
    head = trained("linear", z, labels, 6, 0, "cpu")
    assert set(head.predict(torch.from_numpy(z)).tolist()) == {1, 2, 4}


def test_mlps_are_those_of_the_protocol_and_vote() -> None:
    z, labels = blobs(4, 400)
    test, truth = blobs(4, seed=1)
    before = torch.random.get_rng_state()
    head = trained("mlp", z, labels, 4, 3, "cpu")
    assert (torch.random.get_rng_state() == before).all()
    assert isinstance(head, pixel_heads.Vote)
    assert len(head.networks) == 10
    shapes = [tuple(layer.weight.shape) for layer in head.networks[0].modules() if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(128, 5), (32, 128), (4, 32)]
    one = torch.stack([network(torch.from_numpy(test)).argmax(1) for network in head.networks])
    votes = torch.nn.functional.one_hot(one, 4).sum(0)
    found = head.predict(torch.from_numpy(test))
    assert (found == votes.argmax(1)).all()
    assert len(torch.unique(one, dim=0)) > 1  # networks of their own
    assert (found.numpy() == truth).mean() > 0.7
    again = restored("mlp", head.arrays(), 4)
    assert (again.predict(torch.from_numpy(test)) == found).all()
    same, other = (trained("mlp", z[:80], labels[:80], 4, seed, "cpu").arrays() for seed in (3, 4))
    once_more = trained("mlp", z[:80], labels[:80], 4, 3, "cpu").arrays()
    assert all((same[name] == array).all() for name, array in once_more.items())
    assert (other["0.0.weight"] != same["0.0.weight"]).any()


def test_many_classes_have_wider_mlps() -> None:
    z, labels = blobs(30, 64)
    head = trained("mlp", z, labels, 30, 0, "cpu")
    assert head.arrays()["0.0.weight"].shape == (256, 5)
    assert head.arrays()["0.3.weight"].shape == (128, 256)
