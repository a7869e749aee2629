"""CKA and CKNNA against dense formulas, closed forms, theorems and a published implementation's definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from diffscope.errors import EstimationError, TooFewImages
from diffscope.numerics import jackknife_se
from diffscope.studies.kinship import alignment as module
from diffscope.studies.kinship.alignment import Alignment, Centred, alignment, cka, neighbours

Matrix = NDArray[np.float64]


def dense_hsic(k: Matrix, l: Matrix) -> float:  # noqa: E741
    """Song et al. 2012, equation 5, from matrices [n, n]; L transposed, as it is for kernels that are symmetric."""
    n = len(k)
    k, l = (m - np.diag(np.diag(m)) for m in (k, l))  # noqa: E741
    one = np.ones(n)
    found = (
        np.sum(k * l.T) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2)) - 2 * (one @ k @ l @ one) / (n - 2)
    )
    return float(found / (n * (n - 3)))


def dense_cka(x: Matrix, y: Matrix) -> float:
    k, m = x @ x.T, y @ y.T
    return dense_hsic(k, m) / np.sqrt(dense_hsic(k, k) * dense_hsic(m, m))


def dense_cknna(x: Matrix, y: Matrix, count: int) -> tuple[float, float]:
    """As platonic-rep's `cknna` defines it, on features of length 1, and its `mutual_knn`."""
    k, m = ((z / np.linalg.norm(z, axis=1, keepdims=True)) for z in (x, y))
    k, m = k @ k.T, m @ m.T

    def mask(kernel: Matrix) -> Matrix:
        ranked = kernel.copy()
        np.fill_diagonal(ranked, -np.inf)
        found = np.zeros_like(kernel)
        np.put_along_axis(found, np.argsort(-ranked, axis=1)[:, :count], 1.0, 1)
        return found

    a, b = mask(k), mask(m)
    own = dense_hsic(a * k, a * k) * dense_hsic(b * m, b * m)
    return dense_hsic(a * b * k, a * b * m) / np.sqrt(own), float((a * b).sum() / (len(x) * count))


def related(n: int, seed: int = 0, noise: float = 1.0) -> tuple[Matrix, Matrix]:
    """Features with a large mean, of which the second know four of seven directions of the first."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 7)) * np.arange(1, 8)
    y = x[:, :4] @ rng.standard_normal((4, 5)) + noise * rng.standard_normal((n, 5))
    return x + 30, y - 5


def aligned(x: Matrix, y: Matrix, k: int = 10) -> Alignment:
    return alignment(neighbours(x, k), neighbours(y, k), k)


@pytest.mark.parametrize("way", ["features", "rows"])
def test_cka_is_the_dense_formula_s(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the error of leaving out each image; the mean of 30 costs the dense one some digits, not ours."""
    x, y = related(40)
    if way == "rows":  # wide features: products of rows, in parts
        turn = np.linalg.qr(np.random.default_rng(1).standard_normal((200, 200)))[0]
        x, y = x @ turn[:7], y @ turn[:5]
        monkeypatch.setattr(module, "CHUNK", 100)
    found = cka(Centred(x), Centred(y))
    assert found.value == pytest.approx(dense_cka(x - x.mean(0), y - y.mean(0)), rel=1e-10)
    left = [dense_cka(*(np.delete(z - z.mean(0), i, 0) for z in (x, y))) for i in range(40)]
    assert found.se == pytest.approx(float(jackknife_se(left)), rel=1e-8)


def test_hsic_by_hand() -> None:
    """x = y = (0, 0, 0, 1, 1)ᵀ: of 20 ordered pairs 2 have K = 1; 2/10 + 2·2/(12·10) − 2·2/(3·10) = 1/10."""
    z = np.array([0.0, 0, 0, 1, 1])[:, None]
    assert dense_hsic(z @ z.T, z @ z.T) == pytest.approx(0.1)
    centred = Centred(z)
    assert centred.own.whole * ((z - z.mean()) ** 2).mean() ** 2 == pytest.approx(0.1)


def test_laws_of_cka() -> None:
    x, y = related(200)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((7, 7)))[0]
    whole = cka(Centred(x), Centred(y))
    same = cka(Centred(x), Centred(3 * x @ turn + 7))
    assert same.value == pytest.approx(1, abs=1e-12)
    assert same.se < 1e-10
    assert cka(Centred(y), Centred(-x @ turn)).value == pytest.approx(whole.value, rel=1e-12)
    stretched = cka(Centred(x), Centred(x * np.array([100, 1, 1, 1, 1, 1, 1])))
    assert stretched.value < 0.5  # no invariance to every linear map


def test_cka_of_gaussians_is_its_closed_form_and_the_interval_covers_it() -> None:
    """‖Σ_xy‖²/(‖Σ_xx‖ ‖Σ_yy‖). Of 300 intervals 95 % ± 4 % (3 standard errors) hold it; the estimate has no bias.

    The ratio of unbiased HSICs has a bias of second order alone: less than a third of an error at n = 100."""
    rng = np.random.default_rng(3)
    mix = rng.standard_normal((4, 3))
    sxx, syy, sxy = np.eye(4), mix.T @ mix + 4 * np.eye(3), mix
    expected = (sxy**2).sum() / (np.linalg.norm(sxx) * np.linalg.norm(syy))
    held, values, errors = 0, [], []
    for _ in range(300):
        x = rng.standard_normal((100, 4))
        found = cka(Centred(x), Centred(x @ mix + 2 * rng.standard_normal((100, 3))))
        held += abs(found.value - expected) < 1.96 * found.se
        values.append(found.value)
        errors.append(found.se)
    assert held / 300 == pytest.approx(0.95, abs=0.04)
    assert np.mean(values) == pytest.approx(expected, abs=np.mean(errors) / 3)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


def test_unrelated_features_have_a_cka_of_zero() -> None:
    """More features than images: the biased estimate would be near 1 (Nguyen et al. 2020)."""
    rng = np.random.default_rng(4)
    values = [cka(*(Centred(rng.standard_normal((50, 200))) for _ in range(2))).value for _ in range(100)]
    assert np.mean(values) == pytest.approx(0, abs=4 * np.std(values) / 10)
    x, y = (z - z.mean(0) for z in (rng.standard_normal((50, 200)) for _ in range(2)))
    biased = ((x.T @ y) ** 2).sum() / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert biased > 0.7


def test_cknna_is_the_published_definition_s() -> None:
    x, y = related(160)
    found = aligned(x, y)
    value, common = dense_cknna(x, y, 10)
    assert found.cknna is not None
    assert found.cknna.value == pytest.approx(value, rel=1e-12)
    assert found.mutual.value == common
    blocks = [np.arange(160) % 16 != block for block in range(16)]
    left = [dense_cknna(x[kept], y[kept], 10) for kept in blocks]
    assert found.cknna.se == pytest.approx(float(jackknife_se([one[0] for one in left])), rel=1e-10)
    assert found.mutual.se == pytest.approx(float(jackknife_se([one[1] for one in left])), rel=1e-10)


def test_laws_of_cknna(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = related(160)
    x -= 30
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((7, 7)))[0]
    same = aligned(x, 4 * x @ turn)
    assert same.cknna is not None
    assert same.cknna.value == pytest.approx(1, abs=1e-12)
    assert (same.mutual.value, same.mutual.se) == (1, 0)
    whole = aligned(x, y)
    monkeypatch.setattr(module, "CHUNK", 700)  # four rows at a time
    assert aligned(x, y) == whole
    monkeypatch.setattr(module, "SPARE", 1)  # too few are kept at first, and more are looked for
    assert aligned(x, y) == whole


def test_common_neighbours_of_unrelated_features_are_as_many_as_chance() -> None:
    """k/(n − 1) = 10/319; 4 standard errors."""
    rng = np.random.default_rng(6)
    found = aligned(rng.standard_normal((320, 8)), rng.standard_normal((320, 8))).mutual
    assert found.value == pytest.approx(10 / 319, abs=4 * found.se)


def test_what_has_no_kinship() -> None:
    x = related(60)[0]
    with pytest.raises(EstimationError, match="the second features hardly differ"):
        cka(Centred(x), Centred(np.ones((60, 3))))
    with pytest.raises(EstimationError, match="is zero and has no direction"):
        neighbours(np.zeros((60, 3)), 10)
    with pytest.raises(EstimationError, match="two directions alone"):
        neighbours(x[:, :1], 10)
    with pytest.raises(TooFewImages, match="12 images"):
        neighbours(x[:12], 10)
    with pytest.raises(TooFewImages, match="4 images"):
        Centred(x[:4])
