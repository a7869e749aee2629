"""Laws that hold for every file of the open folder, found as the program finds them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from vectors import case_moments, moments_of

from diffscope import registry
from diffscope.errors import EstimationError, RankDeficient
from diffscope.metrics import base
from diffscope.metrics.base import (
    Context,
    Measurement,
    jackknifed,
    measure_all,
    merged,
    row_keys,
    scalar_keys,
    standard_error,
    with_errors,
)
from diffscope.numerics import jackknife_se

MEMBERS = registry.members("diffscope.metrics")


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("case", ["A", "B", "C", "D"])
def test_a_member_gives_its_keys_and_finite_numbers(name: str, case: str) -> None:
    module = registry.load("diffscope.metrics")[name]
    found = module.measure(case_moments(case), Context())
    assert list(found.values) == list(module.KEYS)
    for key, value in found.values.items():
        if value is None:
            assert any(key.removesuffix("_se").split("_")[0] in note for note in found.notes), key
        else:
            assert np.all(np.isfinite(value)), key


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_says_what_and_whence(name: str) -> None:
    module = registry.load("diffscope.metrics")[name]
    assert "https://" in (module.__doc__ or "")
    for line in module.KEYS.values():
        assert line.endswith("]"), "each line ends with its unit"
        assert "\n" not in line


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_does_not_change_the_moments(name: str) -> None:
    moments = case_moments("C")
    before = {key: value.copy() for key, value in moments.__dict__.items()}
    registry.load("diffscope.metrics")[name].measure(moments, Context())
    for key, value in before.items():
        np.testing.assert_array_equal(getattr(moments, key), value)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_names_its_lists(name: str) -> None:
    module = registry.load("diffscope.metrics")[name]
    values = module.measure(case_moments("B"), Context()).values
    assert [key for key, value in values.items() if isinstance(value, list)] == list(getattr(module, "LISTS", ()))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_gives_its_keys_where_numbers_cannot_be_had(name: str) -> None:
    """Four images, each a block: no cross-fit, no pairs, no fit of a power law."""
    z = np.random.default_rng(0).standard_normal((4, 2, 2))
    module = registry.load("diffscope.metrics")[name]
    assert list(module.measure(moments_of(z, 4), Context()).values) == list(module.KEYS)


@pytest.mark.parametrize("case", ["A", "B", "C", "D"])
def test_a_row_has_the_keys_that_the_folder_declares(case: str) -> None:
    values = measure_all(case_moments(case), Context()).values
    assert list(values) == list(row_keys())
    assert [key for key, value in values.items() if not isinstance(value, list)] == scalar_keys()


def test_errors_follow_their_keys_with_the_same_unit() -> None:
    found = with_errors({"a": "first [m]", "b": "second, of [0, 1] [share]"})
    assert list(found) == ["a", "a_se", "b", "b_se"]
    assert found["a"] == "first [m]"
    assert found["a_se"] == "standard error of a [m]"
    assert found["b_se"] == "standard error of b [share]"


def test_keys_are_unique() -> None:
    keys = [key for module in registry.load("diffscope.metrics").values() for key in module.KEYS]
    assert len(keys) == len(set(keys))


def test_a_row_is_json_and_the_same_every_time() -> None:
    rows = [json.dumps(dict(measure_all(case_moments("B"), Context()).values), allow_nan=False) for _ in range(2)]
    assert rows[0] == rows[1]


def test_the_checks_come_before_the_numbers() -> None:
    z = np.random.default_rng(0).standard_normal((64, 2, 4))
    z[:, :, 3] = 1.0
    found = measure_all(moments_of(z, 8), Context())
    assert found.values["d"] == 3
    assert found.notes[0].startswith("dead_channels")


def test_a_key_given_twice_fails_loudly() -> None:
    with pytest.raises(AssertionError, match="icr"):
        merged([Measurement({"icr": 1.0}), Measurement({"icr": 1.0})])


def test_what_is_not_finite_becomes_null_with_a_note() -> None:
    found = merged([Measurement({"a": float("nan"), "b": [1.0, float("inf")], "c": 1.0, "d": None})])
    assert found.values == {"a": None, "b": None, "c": 1.0, "d": None}
    assert [note.split(" ")[1] for note in found.notes] == ["a", "b"]


def test_notes_stand_once() -> None:
    assert merged([Measurement({}, ("x: y",)), Measurement({}, ("x: y",))]).notes == ("x: y",)


def test_standard_errors() -> None:
    # On the logarithm where all is positive: a scale multiplies the error, exactly.
    assert standard_error(3.0, [3.0, 3.3]) == pytest.approx(3 * np.log(1.1) / 2)
    assert standard_error(-3.0, [-3.0, -3.3]) == pytest.approx(0.15)


def test_a_refusal_becomes_null_with_its_reason() -> None:
    def refuse(_: object) -> float:
        raise EstimationError("0 found, expected 1; do more")

    found = jackknifed("x", case_moments("A"), refuse)
    assert found.values == {"x": None, "x_se": None}
    assert found.notes == ("undefined: x: 0 found, expected 1; do more",)


def test_errors_are_on_the_logarithm_where_all_is_positive() -> None:
    plain, replicates = [0.4, 0.5, 0.7], np.array([0.4, 0.5, 0.7])
    on_log = float(jackknife_se(np.log(replicates)))
    assert standard_error(0.5, plain) == pytest.approx(0.5 * on_log, rel=1e-12)
    for value, found in ((0.0, plain), (-0.1, plain), (0.5, [0.0, *plain]), (0.5, [-0.1, *plain])):
        assert standard_error(value, found) == pytest.approx(float(jackknife_se(np.array(found))), rel=1e-12)


@pytest.mark.parametrize(("limit", "there"), [(3, False), (4, True)])
def test_eigenvalues_are_repeated_up_to_the_limit(monkeypatch: pytest.MonkeyPatch, limit: int, there: bool) -> None:
    monkeypatch.setattr(base, "SPECTRAL_SE_LIMIT", limit)
    values = measure_all(case_moments("A"), Context()).values
    assert values["d"] == 4
    assert (values["effective_rank_se"] is not None) is there
    assert values["trace_s_se"] is not None


def test_what_is_not_said_is_float32_and_refusal() -> None:
    assert Context().feature_eps == np.finfo(np.float32).eps
    z = np.random.default_rng(0).standard_normal((64, 2, 3))
    dependent = moments_of(np.concatenate([z, z[:, :, :1] + z[:, :, 1:2]], axis=2), 8)
    with pytest.raises(RankDeficient):
        measure_all(dependent, Context())
    assert measure_all(dependent, Context(reduce=True)).values["d"] == 3
