"""A network of somebody else's behind the same walk as ours: watched from outside, its forward never copied.

A forward hook on each layer takes what passes. Where the layers wanted are known, the hook on the last of them raises
a private exception, so that what follows is never computed. All hooks are off and all train/eval flags as they were
before the first layer is yielded: whatever a consumer does with the walk, nothing is left on the network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator

from torch import Tensor, nn

from diffscope.errors import UsageError
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork

Call = Callable[[nn.Module, Tensor, Tensor, "Tensor | None"], Tensor]
"""Runs the module on (x, time, label), all as `WalkedNetwork.walk` has them; its output."""

ImageOutput = Callable[[nn.Module, object, Tensor], Tensor]
"""(submodule, what it returned, the network's input) → the activation."""


def whole_output(part: nn.Module, output: object, x: Tensor) -> Tensor:
    """Gives the output of a submodule that returns one tensor.

    Args:
        part: The submodule.
        output: It returned that.
        x: The network's input.
    """
    assert isinstance(output, Tensor), f"{type(part).__name__} returns no tensor"
    return output


class HookedNetwork(WalkedNetwork):
    """A network as its library built it, watched through hooks.

    Args:
        module: The network.
        names: Paths of submodules.
        call: Runs the module on (x, time, label), all as `WalkedNetwork.walk` has them, and returns its output.
        image_output: Takes the activation from what a submodule returned.
    """

    trunk = ("module",)

    def __init__(
        self, module: nn.Module, names: Iterable[str], call: Call, image_output: ImageOutput = whole_output
    ) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)
        self.call = call
        self.image_output = image_output

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Refuses with UsageError: the library's network runs as the library has it."""
        raise UsageError("`compile=` is for the networks written here; one of a library runs as the library has it")

    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields all layers after one forward pass: they are held until they are yielded.

        Args:
            x: (B, C, H, W), already scaled as the network expects it.
            time: (B,) or (1,), as the network expects it.
            label: As the network takes it, or None.

        Yields:
            (name, activation), last the network's output.
        """
        return self.walk_until(x, time, label, None)

    def walk_until(self, x: Tensor, time: Tensor, label: Tensor | None, until: Collection[str] | None) -> Walk:
        """Yields the layers wanted, after a forward pass that ended at the last of them.

        Args:
            x: (B, C, H, W), already scaled as the network expects it.
            time: (B,) or (1,), as the network expects it.
            label: As the network takes it, or None.
            until: Names of the layers wanted; None yields all, and the output.

        Yields:
            (name, activation).
        """
        wanted = set(self.names) if until is None else set(self.names).intersection(until)
        found: dict[str, Tensor] = {}

        def take(name: str, output: object) -> None:
            if name in found:
                return
            activation = self.image_output(self.module.get_submodule(name), output, x)
            last = until is not None and len(found) + 1 == len(wanted)
            found[name] = activation if last else activation.clone()  # what follows may work in place
            if last:
                raise _Reached  # a new instance each time: a kept one would keep all activations alive

        output: Tensor | None = None
        with contextlib.suppress(_Reached), watched(self.module, wanted, take):
            output = self.run(x, time, label)
        for name in list(found):
            yield name, found.pop(name)
        if output is not None:
            yield OUTPUT, output

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """Gives the output without a hook."""
        return self.run(x, time, label)

    def run(self, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        """Calls the module.

        Args:
            x: As for `walk`.
            time: As for `walk`.
            label: As for `walk`.

        Returns:
            Its output.
        """
        return self.call(self.module, x, time, label)


@contextlib.contextmanager
def watched(module: nn.Module, names: Iterable[str], take: Callable[[str, object], None]) -> Iterator[None]:
    """Puts a network in evaluation mode and a hook on some of its submodules, and undoes both.

    Args:
        module: The network.
        names: Dotted names of submodules.
        take: Called as (name, output) when one of them returns.

    Yields:
        Nothing; hooks and mode last as long as the `with`.
    """
    flags = [(part, part.training) for part in module.modules()]
    handles = []
    try:
        for part, _ in flags:
            part.training = False
        for name in names:
            handles.append(module.get_submodule(name).register_forward_hook(_hook(name, take)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part, training in flags:
            part.training = training


def _hook(name: str, take: Callable[[str, object], None]) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        take(name, output)

    return hook


class _Reached(BaseException):
    """The last layer wanted has been taken; no Exception, so that no network's own `except` swallows it."""
