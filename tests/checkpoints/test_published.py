"""Short names of published checkpoints: a reference that can be fetched, or one line that says where the file is."""

from __future__ import annotations

import re

import pytest

from diffscope import hub
from diffscope.checkpoints import read
from diffscope.checkpoints.published import PUBLISHED, resolve
from diffscope.errors import CheckpointError


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_name_is_answered(name: str) -> None:
    found = PUBLISHED[name]
    if found.reference is None:
        with pytest.raises(CheckpointError, match=re.escape(found.file)) as caught:
            read(name)
        assert "\n" not in str(caught.value)
    else:
        assert resolve(name) == found.reference
        assert hub.is_reference(found.reference)


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(CheckpointError, match="edm:cifar10-uncond-vp"):
        read("edm:cifar-uncond-vp")


def test_what_is_no_short_name_is_left_alone() -> None:
    assert resolve("weights.pt") is None
    assert resolve("toy:d=2,side=2") is None
    with pytest.raises(CheckpointError, match="no such file"):
        read("C:weights.pt")
