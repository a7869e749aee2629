"""A protocol is a value: every field is in its hash, and a difference is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from diffscope.errors import ProtocolMismatch
from diffscope.protocol import CHECKPOINT_FIELDS, ESTIMATOR, Protocol, require_equal
from diffscope.seeding import GENERATOR

PROTOCOL = Protocol(
    checkpoint="aa", weights="ema", family="edm", constructor={"label_dim": 0, "channel_mult": [1, 2]}, encoder=None,
    data="bb", images=64, resize="lanczos", side=32, channels=3, augment="crop+flip+jitter", augment_strength=1.0,
    views=2, input="noisy", pool="mean", normalize=False, reduce=False, class_label="null", layers=("enc.8x8_block3",),
    sigmas=(0.1, 0.3), seed=0, precision="fp32", blocks=8, generator=GENERATOR,
)  # fmt: skip
FIELDS = [field.name for field in dataclasses.fields(Protocol) if field.name != "more"]


def another(value: Any) -> Any:
    """A value of the same type that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, Mapping):
        return {**value, "label_dim": 10}
    if isinstance(value, tuple):
        return value[:1] + value[:1]
    return f"{value}x"


def changed(field: str) -> Protocol:
    return dataclasses.replace(PROTOCOL, **{field: another(getattr(PROTOCOL, field))})


def test_the_hash_is_of_the_value() -> None:
    assert PROTOCOL.hash() == dataclasses.replace(PROTOCOL).hash()
    assert len(PROTOCOL.hash()) == 64


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_the_hash(field: str) -> None:
    assert changed(field).hash() != PROTOCOL.hash()


def test_the_order_of_a_constructor_does_not() -> None:
    turned = dict(reversed(list(PROTOCOL.constructor.items())))
    assert dataclasses.replace(PROTOCOL, constructor=turned).hash() == PROTOCOL.hash()


def test_the_order_of_layers_does() -> None:
    layers = dataclasses.replace(PROTOCOL, layers=("a", "b")), dataclasses.replace(PROTOCOL, layers=("b", "a"))
    assert layers[0].hash() != layers[1].hash()


def test_versions_are_part_of_it() -> None:
    assert (PROTOCOL.generator, PROTOCOL.estimator) == (GENERATOR, ESTIMATOR)


def test_json_holds_every_field_and_the_hash() -> None:
    record = PROTOCOL.to_json()
    assert list(record) == [*FIELDS, "hash"]
    assert record["hash"] == PROTOCOL.hash()
    assert json.loads(json.dumps(record)) == record
    assert record["sigmas"] == [0.1, 0.3]


def test_an_option_of_a_command_stands_among_the_fields() -> None:
    more = dataclasses.replace(PROTOCOL, more={"radius": 2})
    assert more.to_json() == {**PROTOCOL.to_json(), "radius": 2, "hash": more.hash()}
    assert more.hash() != PROTOCOL.hash()
    with pytest.raises(ProtocolMismatch, match="radius: null and 2"):
        require_equal(PROTOCOL.to_json(), more.to_json(), (), "both")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_our_mistake(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dataclasses.replace(PROTOCOL, augment_strength=value).hash()


def test_equal_protocols_pass() -> None:
    require_equal(PROTOCOL.to_json(), dataclasses.replace(PROTOCOL).to_json(), (), "the runs")


@pytest.mark.parametrize("field", FIELDS)
def test_a_difference_is_named_with_both_values(field: str) -> None:
    a, b = PROTOCOL.to_json(), changed(field).to_json()
    with pytest.raises(ProtocolMismatch) as caught:
        require_equal(a, b, (), "the runs")
    text = str(caught.value)
    assert text.startswith(f"the runs differ in {field}: ")
    assert text.endswith("; measure both with the same settings")
    values = text.removeprefix(f"the runs differ in {field}: ").split(";")[0].split(" and ")
    assert len(values) == 2
    for value, record in zip(values, (a, b), strict=True):
        assert json.dumps(record[field]).startswith(value.removesuffix("…"))
    assert "\n" not in text


def test_each_difference_is_named() -> None:
    b = dataclasses.replace(PROTOCOL, seed=7, pool="flatten")
    with pytest.raises(ProtocolMismatch, match='pool: "mean" and "flatten"; seed: 0 and 7'):
        require_equal(PROTOCOL.to_json(), b.to_json(), (), "the runs")


def test_the_compared_axis_is_ignored_and_nothing_else() -> None:
    b = dataclasses.replace(PROTOCOL, checkpoint="cc", weights="model", seed=1)
    require_equal(PROTOCOL.to_json(), b.to_json(), {*CHECKPOINT_FIELDS, "seed"}, "the checkpoints")
    with pytest.raises(ProtocolMismatch) as caught:
        require_equal(PROTOCOL.to_json(), b.to_json(), CHECKPOINT_FIELDS, "the checkpoints")
    assert "checkpoint:" not in str(caught.value)
    assert set(FIELDS) >= CHECKPOINT_FIELDS


def test_a_field_of_one_version_only_differs() -> None:
    older = {key: value for key, value in PROTOCOL.to_json().items() if key != "estimator"}
    with pytest.raises(ProtocolMismatch, match=f'estimator: "{ESTIMATOR}" and null'):
        require_equal(PROTOCOL.to_json(), older, (), "the runs")


def test_long_values_are_cut() -> None:
    b = dataclasses.replace(PROTOCOL, layers=tuple(f"layer{i}" for i in range(100)))
    with pytest.raises(ProtocolMismatch) as caught:
        require_equal(PROTOCOL.to_json(), b.to_json(), (), "the runs")
    assert len(str(caught.value)) < 200
