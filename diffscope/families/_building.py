"""From a constructor and tensors to a network with its weights.

A file's arguments are anybody's text: what is built from them stays on the meta device, and within what the file's
tensors could fill, until every tensor is known to fit.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from diffscope.checkpoints.reader import one_line
from diffscope.errors import CheckpointError, WeightsMismatch
from diffscope.families._walked import remembered
from diffscope.families.base import InputSpace, Layer
from diffscope.families.networks.walk import OUTPUT, WalkedNetwork
from diffscope.names import first_few

MAX_TENSORS = 10_000
"""Most tensors of one network; published ones have up to 3,000. What follows takes time for each."""
WEIGHT_DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip
MAX_SIDE = 1 << 14
"""Largest side of the images that a network may say it takes."""
ALIGNMENT = 64
"""Alignment in bytes of what torch allocates on a CPU."""
MOST_REGISTERED = 2
"""Most parameters that a constructor may register for each tensor of the file: libraries replace some."""

Network = TypeVar("Network", bound=nn.Module)


def build_on_meta(make: Callable[[], Network], path: str, tensors: Mapping[str, Tensor] | None = None) -> Network:
    """Builds a network without memory for its weights, in evaluation mode.

    Args:
        make: The constructor call.
        path: Of the checkpoint, for messages.
        tensors: What the file holds for it; a constructor that asks for more is stopped there, whatever its arguments
            say.

    Returns:
        The network on the meta device.

    Raises:
        CheckpointError: If its constructor refuses the arguments, or they ask for more weights than the file holds.
        WeightsMismatch: If what was built is not what the file holds.
    """
    most = math.inf if tensors is None else MOST_REGISTERED * (len(tensors) + 1)
    try:
        with torch.device("meta"), _Unfilled(), _at_most(most, path):
            network = make().to("meta").eval().requires_grad_(False)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a library's constructor raises what it likes
        raise CheckpointError(
            f"{path}: no network can be built with the file's constructor arguments: {_short(error)}"
        ) from None
    if tensors is not None:
        _check_fit(network, tensors, path)
    return network


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where a constructor would fill them: the meta device holds no numbers.

    For some of torch.nn.init it would import torch's compiler, which takes longer than all else that is done here.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls every other function; those of torch.nn.init are called with keywords, as torch hands them on."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__ and isinstance(kwargs.get("tensor"), Tensor):
            return kwargs["tensor"]
        return func(*args, **kwargs)


@contextlib.contextmanager
def _at_most(parameters: float, path: str) -> Iterator[None]:
    """CheckpointError as soon as this thread's networks register more parameters than that."""
    thread, count = threading.get_ident(), itertools.count(1)

    def look(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and threading.get_ident() == thread and next(count) > parameters:
            raise CheckpointError(
                f"{path}: its constructor arguments ask for more weights than the file holds; "
                "fetch or copy it again, or say what differs with `config=KEY=VALUE`"
            )

    handle = register_module_parameter_registration_hook(look)
    try:
        yield
    finally:
        handle.remove()


def dry_walk(network: WalkedNetwork, space: InputSpace, label: Tensor | None, path: str) -> tuple[Layer, ...]:
    """Finds names and shapes of all layers, from a walk that computes nothing.

    The result is remembered by what the network is made of, also for later runs.

    Args:
        network: On the meta device.
        space: Its input.
        label: As the network takes it, on the meta device; None if it takes none.
        path: Of the checkpoint, for messages.

    Returns:
        The layers in order, with their floating-point operations.

    Raises:
        CheckpointError: If the network does not fit its own input.
    """
    return remembered(network, space, label, lambda: _dry_walk(network, space, label, path))


def _dry_walk(network: WalkedNetwork, space: InputSpace, label: Tensor | None, path: str) -> tuple[Layer, ...]:
    x = torch.empty(1, space.channels, space.side, space.side, device="meta")
    walk: Iterator[tuple[str, Tensor]] = network.walk(x, torch.empty(1, device="meta"), label)
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            return tuple(
                Layer(name, tuple(a.shape[1:]), int(counter.get_total_flops())) for name, a in walk if name != OUTPUT
            )
    except MemoryError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: the network does not fit its own input: {_short(error)}") from None


DIFFERS = "; say what differs with `config=KEY=VALUE`"
"""What to do where weights do not fit a network that was built from a checkpoint's facts."""


def load_weights(
    network: nn.Module, tensors: Mapping[str, Tensor], path: str, as_stored: bool = False, advice: str = DIFFERS
) -> None:
    """Gives a network on the meta device the file's weights, without gradients; all of them or none.

    Args:
        network: From `build_on_meta`.
        tensors: Name → weights, each of its parameter's shape.
        path: Of the checkpoint, for messages.
        as_stored: Take the tensors themselves; else they are made float32.
        advice: What to do where they do not fit.

    Raises:
        WeightsMismatch: If one is missing, surplus, of another shape or no floating-point number.
    """
    _check_fit(network, tensors, path, advice)
    given = {name: tensors[name] if as_stored else _placed(tensors[name].float()) for name in network.state_dict()}
    network.load_state_dict(given, assign=True)
    network.requires_grad_(False)


def _check_fit(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    path: str,
    advice: str = DIFFERS,
) -> None:
    """Compares a network's parameters and buffers with the tensors of a file.

    Args:
        network: As built.
        tensors: Name → tensor.
        path: Of the checkpoint, for messages.
        advice: What to do where they differ.

    Raises:
        WeightsMismatch: It names what is missing, surplus, of another shape or no floating-point number.
    """
    made = network.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in made.items()}
    missing = [n for n in expected if n not in tensors]
    surplus = [n for n in tensors if n not in expected]
    shaped = [n for n in expected if n in tensors and tuple(tensors[n].shape) != expected[n]]
    typed = [
        n for n, t in made.items() if n in tensors and t.is_floating_point() and tensors[n].dtype not in WEIGHT_DTYPES
    ]
    parts = []
    if missing:
        parts.append(f"missing: {first_few(missing)}")
    if surplus:
        parts.append(f"not expected: {first_few(surplus)}")
    if shaped:
        shapes = [f"{n} {list(tensors[n].shape)} instead of {list(expected[n])}" for n in shaped]
        parts.append(f"other shape: {first_few(shapes)}")
    if typed:
        kinds = [f"{n} {str(tensors[n].dtype).removeprefix('torch.')}" for n in typed]
        parts.append(f"not floating-point numbers: {first_few(kinds)}")
    if parts:
        advice = advice if missing or surplus or shaped else ""
        raise WeightsMismatch(
            f"{path}: the weights do not fit {type(network).__name__} as built; {'; '.join(parts)}{advice}"
        )


def _placed(tensor: Tensor) -> Tensor:
    """Contiguous, and where torch itself would put it.

    The last bits of a product go with its operands' place and order in memory, which are the container's (within a
    safetensors file, weights lie at any multiple of 8 bytes).
    """
    tensor = tensor.contiguous()
    return tensor if tensor.is_meta or tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def _short(error: Exception) -> str:
    """Its first words, fit for a terminal: they may quote the file."""
    return one_line(" ".join(str(error).split())[:120] or type(error).__name__)


def shapes_of(path: str, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Gives the shapes from which a constructor's arguments are read.

    Args:
        path: Of the checkpoint, for messages.
        tensors: Name → tensor.

    Returns:
        Name → shape.

    Raises:
        CheckpointError: If there are more than MAX_TENSORS, or one is empty: no network could have them.
    """
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(
            f"{path}: {len(tensors)} tensors; expected the weights of one network, up to {MAX_TENSORS}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if empty := [name for name, shape in shapes.items() if 0 in shape]:
        raise CheckpointError(
            f"{path}: tensor {empty[0]} of shape {list(shapes[empty[0]])} is empty; expected sizes of 1 and more"
        )
    return shapes
