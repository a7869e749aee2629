"""A library's network whose weights stay in the type, and in the file, that they are stored in.

A published network may be larger than memory in float32, where it is stored in 16 bit: FLUX.1 has 12 · 10^9 weights.
They are mapped from their file and cast to the type that is computed in part by part, each for as long as it runs. The
cast to a wider type is exact: the numbers are those of a network that was cast as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from diffscope.errors import UsageError
from diffscope.families.networks.hooked import HookedNetwork, ImageOutput

Conditions = Mapping[str, Tensor]
"""What a network is told besides noise and class, the same for all images: name → (1, …)."""

ConditionedCall = Callable[[nn.Module, Tensor, Tensor, Conditions], Tensor]
"""Runs the module on (x, time (B,), conditions (B, …)), all on one device and of one type."""

_WIDE = (torch.float32, torch.float64)


class StoredNetwork(HookedNetwork):
    """A network told of constants, with weights of any type.

    Args:
        module: The network.
        names: Paths of the submodules that are layers.
        call: Runs the module.
        image_output: Takes the activation from what a submodule returned.
        conditions: Name → (1, …); on the meta device until they are known.
    """

    def __init__(
        self,
        module: nn.Module,
        names: tuple[str, ...],
        call: ConditionedCall,
        image_output: ImageOutput,
        conditions: Conditions,
    ) -> None:
        super().__init__(module, names, lambda module, x, time, label: x, image_output)
        self.conditioned = call
        self.dtype = torch.float32
        """Computed in."""
        self._rounded = False
        self._told: tuple[str, ...] = ()
        self.tell(conditions)

    def tell(self, conditions: Conditions) -> None:
        """Sets the constants.

        Args:
            conditions: Name → (1, …), in place of those before.
        """
        for name in self._told:
            delattr(self, f"told_{name}")
        for name, value in conditions.items():
            self.register_buffer(f"told_{name}", value, persistent=False)  # follows the network to its device
        self._told = tuple(conditions)

    @property
    def conditions(self) -> dict[str, Tensor]:
        """The constants, by name."""
        return {name: self.get_buffer(f"told_{name}") for name in self._told}

    def extra_repr(self) -> str:
        """Shapes of the constants, on which the network's cost depends."""
        return ", ".join(f"{name} {list(value.shape)}" for name, value in self.conditions.items())

    def set_precision(self, dtype: torch.dtype) -> None:
        """Chooses what is computed in; weights of more bits are rounded to it, those of 16 bit are cast as they run.

        Args:
            dtype: Of activations.

        Raises:
            UsageError: If the weights were rounded to another type before.
        """
        if self._rounded and dtype != self.dtype:
            raise UsageError(
                f"the network's weights are rounded to {self.dtype}; load the checkpoint again for {dtype}"
            )
        if dtype not in _WIDE and any(parameter.dtype in _WIDE for parameter in self.module.parameters()):
            nn.Module.to(self.module, dtype)
            self._rounded = True
        self.dtype = dtype

    def run(self, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        """Calls the module, with every part cast while it runs.

        Args:
            x: (B, C, H, W).
            time: (B,) or (1,).
            label: Not used.

        Returns:
            Its output.
        """
        conditions = {
            name: value.expand(len(x), *value.shape[1:]).to(self.dtype) for name, value in self.conditions.items()
        }
        with cast_while_running(self.module, self.dtype):
            return self.conditioned(self.module, x.to(self.dtype), time.expand(len(x)), conditions)


@contextlib.contextmanager
def cast_while_running(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Casts each part of a network to one type for as long as it runs, and leaves all weights as they were.

    Args:
        module: The network.
        dtype: What its parts are to compute in.

    Yields:
        Nothing; it lasts as long as the `with`.
    """
    in_use: dict[nn.Module, list[tuple[dict[str, Tensor | None], str, Tensor]]] = {}

    def cast(part: nn.Module, owners: tuple[nn.Module, ...]) -> None:
        stored = in_use.setdefault(part, [])
        for owner in owners:
            for table in (owner._parameters, owner._buffers):
                for name, tensor in table.items():
                    if tensor is not None and tensor.is_floating_point() and tensor.dtype != dtype:
                        stored.append((table, name, tensor))  # type: ignore[arg-type]
                        table[name] = tensor.to(dtype)  # type: ignore[assignment]

    def restore(part: nn.Module) -> None:
        for table, name, tensor in in_use.pop(part, []):
            table[name] = tensor

    handles = []
    try:
        for part, owners in _parts(module):
            if any(_differs(owner, dtype) for owner in owners):
                handles.append(part.register_forward_pre_hook(lambda part, _, owners=owners: cast(part, owners)))
                handles.append(part.register_forward_hook(lambda part, *_: restore(part)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part in list(in_use):
            restore(part)


def _differs(part: nn.Module, dtype: torch.dtype) -> bool:
    tensors = [*part._parameters.values(), *part._buffers.values()]
    return any(t is not None and t.is_floating_point() and t.dtype != dtype for t in tensors)


def _parts(module: nn.Module) -> Iterator[tuple[nn.Module, tuple[nn.Module, ...]]]:
    """Small parts that run as one, with the modules in them whose weights they use.

    What holds a list of modules is gone through, down to what holds none: a block that asks for the type of its
    children's weights before it runs them then finds them cast.
    """
    inner = tuple(module.modules())
    if not any(isinstance(part, (nn.ModuleList, nn.ModuleDict)) for part in inner):
        yield module, inner
        return
    if module._parameters or module._buffers:
        yield module, (module,)
    for child in module.children():
        yield from _parts(child)
