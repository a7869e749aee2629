"""Published checkpoints by short name, such as `edm:cifar10-uncond-vp`: the argument to type, or where the file is.

Licences of weights are those that their publishers state: https://github.com/NVlabs/edm, NVlabs/edm2 and
facebookresearch/DiT under "License", and the card of google/ddpm-cifar10-32. Numbers of parameters are those of the
networks here at full size, which the tests of families count.

Only addresses that are sure stand here as references that can be fetched; the authors of EDM and EDM2 publish on a
server of their own, and SiT's largest model has moved, so for those the file's name and its publisher are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffscope.errors import CheckpointError


@dataclass(frozen=True)
class Published:
    """Where a published checkpoint is."""

    file: str
    """The file's name, as its authors have it."""
    where: str
    """Its publisher and folder, in words."""
    reference: str | None = None
    """What diffscope can fetch; None where no address is sure."""
    parameters: int | None = None
    licence: str | None = None
    """Of the weights; None where their publisher does not state one."""
    needs: tuple[str, ...] = ()
    """Options without which it is not measured."""

    def to_json(self) -> dict[str, Any]:
        """What `diffscope models --json` says of it."""
        return {**vars(self), "needs": list(self.needs)}


_EDM = "NVIDIA's server, folder edm/pretrained (linked from github.com/NVlabs/edm)"
_EDM2 = "NVIDIA's server, folder edm2/posthoc-reconstructions (linked from github.com/NVlabs/edm2)"
_SIT = "the Hub, nyu-visionx/SiT-collections"
_DIT = "Meta's file server (linked from github.com/facebookresearch/DiT)"
_NVIDIA = "CC BY-NC-SA 4.0"
_VAE = ("--vae hf://stabilityai/sd-vae-ft-ema",)
_XL = 675_129_632


def _edm() -> dict[str, Published]:
    sizes = {
        "cifar10-32x32-uncond-vp": 55_733_891,
        "cifar10-32x32-uncond-ve": 56_397_827,
        "cifar10-32x32-cond-vp": 55_735_299,
        "cifar10-32x32-cond-ve": 56_400_643,
        "ffhq-64x64-uncond-vp": 61_805_571,
        "ffhq-64x64-uncond-ve": 62_761_091,
        "afhqv2-64x64-uncond-vp": 61_805_571,
        "afhqv2-64x64-uncond-ve": 62_761_091,
        "imagenet-64x64-cond-adm": 295_899_267,
    }
    return {
        f"edm:{_short(name)}": Published(f"edm-{name}.pkl", _EDM, parameters=size, licence=_NVIDIA)
        for name, size in sizes.items()
    }


def _short(name: str) -> str:
    return name.replace("-32x32", "").replace("-64x64", "")


def _edm2() -> dict[str, Published]:
    files = {
        "img512-xs": "edm2-img512-xs-2147483-0.135.pkl",
        "img512-s": "edm2-img512-s-2147483-0.130.pkl",
        "img512-m": "edm2-img512-m-2147483-0.100.pkl",
        "img512-l": "edm2-img512-l-1879048-0.085.pkl",
        "img512-xl": "edm2-img512-xl-1342177-0.085.pkl",
        "img512-xxl": "edm2-img512-xxl-0939524-0.070.pkl",
        "img64-s": "edm2-img64-s-1073741-0.075.pkl",
        "img64-m": "edm2-img64-m-2147483-0.060.pkl",
        "img64-l": "edm2-img64-l-1073741-0.040.pkl",
        "img64-xl": "edm2-img64-xl-0671088-0.040.pkl",
    }
    return {
        f"edm2:{name}": Published(file, _EDM2, licence=_NVIDIA, needs=_VAE if name.startswith("img512") else ())
        for name, file in files.items()
    }


PUBLISHED: dict[str, Published] = {
    **_edm(),
    **_edm2(),
    **{
        f"sit:{size.lower()}-2-256": Published(
            f"SiT-{size}-2-256.pt", _SIT, f"hf://nyu-visionx/SiT-collections/SiT-{size}-2-256.pt", count, needs=_VAE
        )
        for size, count in (("S", 32_963_360), ("B", 130_512_416), ("L", 458_102_816))
    },
    "sit:xl-2-256": Published("SiT-XL-2-256.pt (or SiT-XL-2-256x256.pt)", _SIT, parameters=_XL, needs=_VAE),
    "dit:xl-2-256": Published("DiT-XL-2-256x256.pt", _DIT, parameters=_XL, licence="CC BY-NC", needs=_VAE),
    "dit:xl-2-512": Published("DiT-XL-2-512x512.pt", _DIT, licence="CC BY-NC", needs=_VAE),
    "repa:xl-2-256": Published("last.pt", "the authors' Dropbox (linked from github.com/sihyun-yu/REPA)", needs=_VAE),
    "diffusers:dit-xl-2-256": Published("DiT-XL-2-256", "the Hub, facebook", "hf://facebook/DiT-XL-2-256"),
    "diffusers:dit-xl-2-512": Published("DiT-XL-2-512", "the Hub, facebook", "hf://facebook/DiT-XL-2-512"),
    "diffusers:ddpm-cifar10": Published(
        "ddpm-cifar10-32", "the Hub, google", "hf://google/ddpm-cifar10-32", licence="Apache-2.0"
    ),
}


def resolve(name: str) -> str | None:
    """Looks up a published checkpoint.

    Args:
        name: A short name such as "sit:b-2-256", or anything else.

    Returns:
        The Hub reference behind it; None if `name` is no short name.

    Raises:
        CheckpointError: If no such checkpoint is known, or no address of it is sure.
    """
    import difflib

    family, colon, _ = name.partition(":")
    if not colon or family not in {short.partition(":")[0] for short in PUBLISHED}:
        return None
    if name not in PUBLISHED:
        close = difflib.get_close_matches(name, PUBLISHED, n=3, cutoff=0.3)
        raise CheckpointError(
            f"{name}: no published checkpoint of that name is known; close: {', '.join(close) or 'none'}"
        )
    found = PUBLISHED[name]
    if found.reference is None:
        raise CheckpointError(f"{name} is {found.file} on {found.where}; download it and give its path")
    return found.reference
