"""How a network of somebody's own is called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffscope.errors import NetworkError, UsageError
from diffscope.families._calling import calling

X, T = torch.zeros(3, 1, 2, 2), torch.arange(3.0)


class Recorder(nn.Module):
    """Keeps what it was called with."""

    def __init__(self, returns: Any = X) -> None:
        super().__init__()
        self.returns = returns

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        return self.returns


def test_arguments_stand_where_they_are_said_to() -> None:
    module = Recorder()
    calling("x,t")(module, X, T, None)
    assert module.args == (X, T) or (module.args[0] is X and module.args[1] is T)
    assert module.kwargs == {}
    calling("t, sample=x, context=None, return_dict=False, scale=1.5, times=-2")(module, X, T, None)
    assert module.args == (T,) or module.args[0] is T
    assert module.kwargs.pop("sample") is X
    assert module.kwargs == {"context": None, "return_dict": False, "scale": 1.5, "times": -2}


def test_classes_and_what_stands_for_none() -> None:
    cpu, two = torch.device("cpu"), torch.tensor([2])
    module = Recorder()
    plain = calling("x,t,y:3")
    assert (plain.classes.count, plain.classes.null) == (3, False)
    plain(module, X, T, plain.label(two, cpu))
    assert module.args[2].tolist() == [2, 2, 2]
    with pytest.raises(UsageError, match="no null class"):
        plain.label(None, cpu)
    row = calling("x,t,label=y:3:3")
    row(module, X, T, row.label(None, cpu))
    assert module.kwargs["label"].tolist() == [3, 3, 3]
    assert module.kwargs["label"].dtype == torch.int64
    absent = calling("x,t,label=y:3:none")
    absent(module, X, T, absent.label(None, cpu))
    assert absent.classes.null
    assert module.kwargs == {"label": None}
    assert calling("x,t").label(two, cpu) is None


@pytest.mark.parametrize("returns", [X, (X, None), [X], SimpleNamespace(sample=X)])
def test_the_tensor_of_what_it_returns(returns: object) -> None:
    assert calling("x,t")(Recorder(returns), X, T, None) is X


@pytest.mark.parametrize("returns", [None, (), {"sample": X}, (None, X), "x"])
def test_no_tensor_is_refused(returns: object) -> None:
    with pytest.raises(NetworkError, match=r"Recorder returns a .*; expected a tensor"):
        calling("x,t")(Recorder(returns), X, T, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t", "where does the noisy input stand?"),
        ("x,x", "x stands there twice"),
        ("x,t,", "'' is none of x, t"),
        ("x,sigma", "'sigma' is none of x, t, y:COUNT"),
        ("x,t,y", "how many classes?"),
        ("x,t,y:0", "how many classes?"),
        ("x,t,y:3:many", "'many' for no class"),
        ("x:3,t", "'x:3' cannot be read"),
        ("noisy=x,t", "'t' follows a keyword"),
        ("noisy=x,noisy=t", "'noisy' is no keyword, or stands there twice"),
        ("x,1a=t", "'1a' is no keyword"),
        ("x,name='text'", "is none of x, t"),
        ("x,t,a=__import__('os')", "is none of x, t"),
    ],
)
def test_what_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        calling(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"`call={text}`: ")


def test_only_tensors_are_expanded() -> None:
    label: Tensor = torch.tensor([1])
    module = Recorder()
    calling("x,t,y:2")(module, X, T, label)
    assert module.args[2].shape == (3,)
