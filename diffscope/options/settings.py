"""The options that commands share: what to measure, on which images, from which checkpoint, how fast, and where to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from diffscope.cache.sizes import bytes_of
from diffscope.errors import UsageError
from diffscope.options.network import OwnNetworkOptions
from diffscope.options.option import IMAGES, OUTPUT, SPEED, STATISTICS, Argument, Declared, Option, key_values

AUGMENTATIONS = (
    "none",
    "crop",
    "crop+flip",
    "crop+flip+jitter",
    "crop+flip+jitter+rotate",
    "crop+flip+jitter+rotate+center",
)
DEFAULT_AUGMENTATION = "crop+flip+jitter"

REPEATABLE = "(repeatable, or a list by commas)"
LEVELS_HELP = "Noise levels, log-spaced over [0.002, 20], cut to the model's range."

CHECKPOINT_HELP = (
    "Checkpoint file, folder (diffusers, accelerate, FSDP), hf://OWNER/NAME[@REVISION][/PATH], or toy:d=32,side=8."
)
DATA_HELP = (
    "Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or latents_rank*.safetensors), "
    ".parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S."
)

Checkpoint = Annotated[Any, Argument(CHECKPOINT_HELP, metavar="CKPT", python="str | Path | Denoiser")]
"""A file's path, or in Python also a network in memory, from `diffscope.wrap`."""
CheckpointFile = Annotated[str, Argument(CHECKPOINT_HELP, metavar="CKPT")]
Data = Annotated[str, Option(DATA_HELP, group=IMAGES, metavar="DATA", path=True)]


def memory(text: str) -> int:
    """Bytes of a size such as 8GB; UsageError."""
    return bytes_of(text, "max_memory")


def check_range(data_range: tuple[float, ...]) -> None:
    """UsageError where it is neither empty nor two ends, the lower first."""
    if not data_range:
        return
    if len(data_range) != 2 or not (math.isfinite(data_range[1] - data_range[0]) and data_range[0] < data_range[1]):
        spelled = ",".join(f"{end:g}" for end in data_range)
        raise UsageError(f"`data_range={spelled}`: expected two numbers, the lower first, such as 0,1 or -1,1")


def count(text: str) -> int:
    """A number of images, of a command that takes one; UsageError."""
    try:
        return int(text)
    except ValueError:
        several = "; several at once: sweep and icr" if "," in text else ""
        raise UsageError(f"`num_images={text}`: expected a number of images{several}") from None


Device = Annotated[
    str | None,
    Option("cpu, cuda, cuda:1, mps.", group=SPEED, envvar="DIFFSCOPE_DEVICE", shown="cuda if present"),
]
Precision = Annotated[
    str,
    Option(
        "auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.",
        group=SPEED,
        choices=("auto", "fp32", "tf32", "bf16", "fp16"),
    ),
]
MaxPixels = Annotated[
    int | None,
    Option(
        "A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and 1 GB.",
        group=IMAGES,
        metavar="N",
        least=1,
        shown="178956970, as Pillow",
    ),
]
DataRange = Annotated[
    tuple[float, ...],
    Option(
        "Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.",
        group=IMAGES,
        metavar="LOW,HIGH",
        shown="",
        repeated=False,
        protocol=True,
    ),
]
StepFrom = Annotated[
    str | None,
    Option(
        r"Where a path tells the training step, as one group, such as 'ckpt-(\d+)'.",
        metavar="REGEX",
        shown="the file, or its name",
    ),
]


@dataclass(frozen=True)
class Settings(Declared):
    """What all measuring commands are told."""

    layer: Annotated[
        tuple[str, ...],
        Option(f"Layer by its name, mid, or all {REPEATABLE}.", metavar="NAME", completes="layers"),
    ] = ("mid",)
    sigma: Annotated[
        tuple[float, ...],
        Option(f"Noise level as noise-to-signal ratio {REPEATABLE}.", metavar="S", shown=""),
    ] = ()
    t: Annotated[
        tuple[float, ...],
        Option(f"Noise level in the model's own variable {REPEATABLE}.", metavar="T", shown=""),
    ] = ()
    num_levels: Annotated[int | None, Option(LEVELS_HELP, metavar="K", least=1, shown="12 in a sweep")] = None
    input: Annotated[
        str,
        Option(
            "noisy, or clean: no noise, but the conditioning of the noise level.",
            choices=("noisy", "clean"),
            protocol=True,
        ),
    ] = "noisy"
    pool: Annotated[str, Option("mean over positions, or flatten.", choices=("mean", "flatten"), protocol=True)] = (
        "mean"
    )
    normalize: Annotated[bool, Option("Scale each feature vector to length 1.", protocol=True)] = False
    class_label: Annotated[
        str,
        Option("Class given to the model: null, label (the image's own) or an index.", flag="--class", protocol=True),
    ] = "null"
    num_images: Annotated[
        int | None,
        Option(
            "Images, a seeded subset.",
            group=IMAGES,
            metavar="N",
            least=1,
            read=count,
            shown="all, at most max(5000, 4 x features)",
        ),
    ] = None
    labels: Annotated[
        str | None,
        Option(
            "Classes of the images: a CSV with the columns file and class.",
            group=IMAGES,
            metavar="CSV",
            shown="those of --data itself",
            path=True,
        ),
    ] = None
    augment: Annotated[
        str, Option(f"{', '.join(AUGMENTATIONS[:-1])} or {AUGMENTATIONS[-1]}.", group=IMAGES, choices=AUGMENTATIONS,
                    protocol=True, completes="choices"),
    ] = DEFAULT_AUGMENTATION  # fmt: skip
    augment_strength: Annotated[
        float, Option("Multiplies all ranges of the augmentation.", group=IMAGES, metavar="F", protocol=True)
    ] = 1.0
    max_pixels: MaxPixels = None
    data_range: DataRange = ()
    strict: Annotated[bool, Option("An unreadable image is an error, not a counted skip.", group=IMAGES)] = False
    views: Annotated[int, Option("Views of each image.", group=STATISTICS, metavar="V", least=1, protocol=True)] = 2
    reduce: Annotated[
        bool,
        Option(
            "Project channels that depend linearly on others away; else they are refused.",
            group=STATISTICS,
            protocol=True,
        ),
    ] = False
    seed: Annotated[
        int,
        Option(
            "Seed of subset, views and noise; synthetic: images have their own, seed=S.",
            group=STATISTICS,
            least=0,
            below=2**64,  # a word of the generator's key
            protocol=True,
        ),
    ] = 0
    device: Device = None
    precision: Precision = "auto"
    batch_size: Annotated[
        int | None,
        Option(
            "Images per batch; in float32 figures keep six digits, for a network may round by it. Halved where the "
            "device runs out of memory.",
            group=SPEED,
            metavar="B",
            least=1,
            shown="32 views on CPU, 256 on CUDA",
        ),
    ] = None
    workers: Annotated[
        int | None,
        Option("Threads that decode images ahead.", group=SPEED, metavar="W", least=0, shown="2 at most"),
    ] = None
    max_memory: Annotated[
        int | None,
        Option(
            "For the moments, such as 8GB; more are measured in portions.",
            group=SPEED,
            metavar="SIZE",
            read=memory,
            shown="half of RAM",
        ),
    ] = None
    compile: Annotated[bool, Option("On CUDA, compile the network's blocks first; pays on long runs.", group=SPEED)] = (
        False
    )

    def __post_init__(self) -> None:
        """Checks what a single field cannot say of itself."""
        super().__post_init__()
        for sigma in self.sigma:
            if not (math.isfinite(sigma) and sigma > 0):
                raise UsageError(f"`sigma={sigma:g}`: expected a noise-to-signal ratio above 0")
        for t in self.t:
            if not math.isfinite(t):
                raise UsageError(f"`t={t:g}`: expected a finite number")
        check_range(self.data_range)
        if not re.fullmatch(r"null|label|\d{1,9}", self.class_label):
            raise UsageError(f"`class_label={self.class_label}`: expected null, label or a class index")


@dataclass(frozen=True)
class Loading(OwnNetworkOptions):
    """What a user says of checkpoint files."""

    family: Annotated[
        str | None,
        Option(
            "Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains, "
            "diffusers.",
            shown="",
            completes="families",
        ),
    ] = None
    config: Annotated[
        Mapping[str, str],
        Option(
            f"Constructor fact that the file lacks, such as num_heads=6 {REPEATABLE}.",
            metavar="KEY=VALUE",
            shown="",
            read=key_values,
        ),
    ] = field(default_factory=dict)
    weights: Annotated[str, Option("Which set of a training dump: ema or model.", choices=("ema", "model"))] = "ema"
    vae: Annotated[
        str | None,
        Option(
            "Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-VAE's.",
            metavar="DIR",
            shown="",
            path=True,
        ),
    ] = None
    latent_stats: Annotated[
        str | None,
        Option(
            "Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are normalised.",
            metavar="FILE",
            shown="those beside the latents",
            path=True,
        ),
    ] = None
    prompt: Annotated[
        str | None,
        Option(
            "Text for a network that is told of one, the same for all images.", metavar="TEXT", shown="the empty one"
        ),
    ] = None
    prompt_from: Annotated[
        str | None,
        Option(
            "Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of embeddings.",
            metavar="FROM",
            shown="the pipeline's own",
            path=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Checks what a single field cannot say of itself."""
        super().__post_init__()
        if self.network is not None and (self.family is not None or self.config):
            other = "config" if self.family is None else "family"
            raise UsageError(f"`{other}=` is of the families that are known here, `network=` of your own; drop one")


@dataclass(frozen=True)
class Output(Declared):
    """Where a result goes."""

    out: Annotated[
        str | None,
        Option(
            "Write result.json, result.csv, figures and report.html there.",
            group=OUTPUT,
            metavar="DIR",
            shown="",
            path=True,
        ),
    ] = None
    overwrite: Annotated[bool, Option("Replace a result of another protocol in --out.", group=OUTPUT)] = False


@dataclass(frozen=True)
class Logging(Declared):
    """Where a result is shown beside others."""

    log: Annotated[
        tuple[str, ...],
        Option(
            "Show curves over steps, figures and the verdict in tensorboard:DIR, wandb[:PROJECT], mlflow[:URI] or "
            f"trackio[:PROJECT] {REPEATABLE}.",
            group=OUTPUT,
            metavar="WHERE",
            shown="",
        ),
    ] = ()


@dataclass(frozen=True)
class Terminal(Declared):
    """What the command line alone has: how a result is printed, and when the exit code says stop."""

    dry_run: Annotated[
        bool,
        Option(
            "Say what would be measured, with memory and time, and end: nothing is written.", group=OUTPUT, python=False
        ),
    ] = False
    json: Annotated[bool, Option("Print result.json on stdout and nothing else.", group=OUTPUT, python=False)] = False
    quiet: Annotated[bool, Option("Print the numbers alone.", group=OUTPUT, short="-q", python=False)] = False
    fail_if: Annotated[
        tuple[str, ...],
        Option("Exit with 3 where this holds", group=OUTPUT, metavar="EXPR", shown="", python=False),
    ] = ()
