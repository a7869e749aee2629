"""What makes the walk fast on a CPU changes neither numbers nor what has been yielded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffscope.families.networks.attention import attend
from diffscope.families.networks.dhariwal_unet import DhariwalUNet
from diffscope.families.networks.song_unet import SongUNet
from diffscope.families.networks.unet_blocks import group_norm
from diffscope.families.networks.walk import WalkedNetwork


def network(kind: str) -> WalkedNetwork:
    torch.manual_seed(0)
    cls: type[WalkedNetwork] = DhariwalUNet if kind == "adm" else SongUNet
    extra = {"encoder_type": "residual", "resample_filter": [1, 3, 3, 1]} if kind == "ncsn" else {}
    made = cls(
        img_resolution=16, in_channels=3, out_channels=3, model_channels=64, channel_mult=[1, 2], num_blocks=1,
        attn_resolutions=[8], **extra,
    )  # fmt: skip
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([0.3])


@pytest.mark.parametrize("kind", ["ddpm", "ncsn", "adm"])
def test_layout_and_a_row_of_noise_levels_change_rounding_alone(kind: str) -> None:
    x, time = inputs()
    with torch.inference_mode():
        plain = dict(network(kind).walk(x, time))
        fast = network(kind)
        fast.set_precision(torch.float32)
        assert next(p for p in fast.parameters() if p.dim() == 4 and p.shape[1] > 1).stride(1) == 1
        for name, activation in fast.walk(x, time.expand(3)):  # one row each: the shift is no part of the bias
            torch.testing.assert_close(activation, plain[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["ddpm", "ncsn", "adm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_yielded_stays(kind: str, dtype: torch.dtype) -> None:
    net, (x, time) = network(kind), inputs()
    net.set_precision(dtype)
    given = x.clone()
    with torch.inference_mode():
        held = [(name, activation, activation.clone()) for name, activation in net.walk(x, time)]
    assert torch.equal(x, given)
    assert [name for name, activation, then in held if not torch.equal(activation, then)] == []


@pytest.mark.parametrize("kind", ["ddpm", "adm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_flow(kind: str, dtype: torch.dtype) -> None:
    net, (x, time) = network(kind), inputs()
    net.set_precision(dtype)
    x.requires_grad_()
    net(x, time).float().square().sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert float(x.grad.abs().sum()) > 0


@pytest.mark.parametrize("side", [4, 16, 32])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])  # spacing at values of 4
def test_group_norm_with_channels_last(side: int, dtype: torch.dtype, error: float) -> None:
    norm = group_norm(64, 1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (torch.randn(3, 64, side, side) + 2).to(dtype)
    expected = F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps)
    norm.to(dtype)
    for silu in (False, True):
        found = norm(x.to(memory_format=torch.channels_last), silu=silu)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), F.silu(expected) if silu else expected, rtol=error, atol=error)


def test_attention_by_products() -> None:
    q, k, v = (torch.randn(3, 2, 64, 32).bfloat16() for _ in range(3))
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    torch.testing.assert_close(attend(q, k, v).float(), expected, rtol=0.02, atol=0.02)  # of weights in bfloat16
