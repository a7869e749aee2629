"""Options that several commands share, declared once, and what they come to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from diffscope.cache.sizes import bytes_of
from diffscope.errors import UsageError

if TYPE_CHECKING:
    from diffscope.measure.job import Job
    from diffscope.options.settings import Settings

REPEATABLE = "(repeatable, or a list by commas)"


def listed(values: list[Any] | None) -> list[Any] | None:
    """An option given several times, each time one value or several with commas between, as one list."""
    if values is None:
        return None
    found = [part for value in values for part in (value.split(",") if isinstance(value, str) else value)]
    return [part.strip() if isinstance(part, str) else part for part in found if part != ""]


def _numbers(option: str) -> Callable[[str], list[float]]:
    """Reads `0.1,0.3`; UsageError naming the option."""

    def read(text: str) -> list[float]:
        try:
            return [float(part) for part in text.split(",")]
        except ValueError:
            raise UsageError(f"{option} {text}: expected a number, or several such as 0.1,0.3") from None

    return read


def _levels(option: str, metavar: str, what: str) -> Any:
    """An option for noise levels; `what`: how they are spoken."""
    return typer.Option(
        option,
        metavar=metavar,
        parser=_numbers(option),
        callback=listed,
        help=f"Noise level {what} {REPEATABLE}.",
        show_default=False,
    )


Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CKPT",
        help="Checkpoint file, diffusers folder, hf://OWNER/NAME[@REVISION][/PATH], or toy:d=32,side=8.",
        show_default=False,
    ),
]
Family = Annotated[
    str | None,
    typer.Option(
        "--family",
        help="Say what a file cannot say of itself: edm, edm2, sit, dit, repa, diffusers.",
        show_default=False,
    ),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="KEY=VALUE",
        help=f"Constructor fact that the file lacks, such as num_heads=6 {REPEATABLE}.",
        show_default=False,
    ),
]
StepFrom = Annotated[
    str | None,
    typer.Option(
        "--step-from",
        metavar="REGEX",
        help=r"Where a path tells the training step, as one group, such as 'ckpt-(\d+)'.",
        show_default="the file, or its name",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        metavar="N",
        help="A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and 1 GB.",
        show_default="178956970, as Pillow",
    ),
]
Weights = Annotated[str, typer.Option("--weights", help="Which set of a training dump: ema or model.")]
Json = Annotated[bool, typer.Option("--json", help="Print result.json on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the numbers alone.")]


def gate(tests: str, example: str) -> Any:
    """--fail-if of a command; `tests`: which rows it looks at."""
    return typer.Option(
        "--fail-if",
        metavar="EXPR",
        callback=listed,
        help=f"Exit with 3 where this holds of {tests}, such as '{example}' {REPEATABLE}.",
        show_default=False,
    )


FailIf = Annotated[list[str] | None, gate("any row", "icr>0.5")]
FailIfWindow = Annotated[
    list[str] | None, gate("any layer's window (icr: at its lowest level), or window==none of all", "icr>0.5")
]
FailIfLast = Annotated[list[str] | None, gate("any row of the last checkpoint, or onset of any layer", "icr>0.5")]
FailIfBest = Annotated[list[str] | None, gate("the level of best accuracy of any layer", "accuracy<0.5")]
FailIfCompared = Annotated[
    list[str] | None, gate("any row; change>2%: and significantly so for all rows together", "change>2%")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write result.json, result.csv and figures there.", show_default=False),
]
AUGMENTATIONS = "none, crop, crop+flip, crop+flip+jitter, crop+flip+jitter+rotate or crop+flip+jitter+rotate+center"
AugmentOrAll = Annotated[
    str, typer.Option("--augment", help=f"{AUGMENTATIONS}; all: each of them but none, as one result.")
]
Counts = Annotated[
    str | None,
    typer.Option(
        "--num-images",
        metavar="N[,N...]",
        help="Images, a seeded subset; several, as 500,1000,2000: nested subsets, each measured anew, as one result.",
        show_default="all, at most max(5000, 4 x features)",
    ),
]
"""What `sweep` and `icr` have in place of the options of the same names in `Measuring`."""
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Measure the I-th of N shares of the images into --out, for diffscope merge.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a result of another protocol in --out.")]


def _count(text: str) -> int:
    """Of a command that takes one number of images; whether it is above 0 is for the settings to say."""
    try:
        return int(text)
    except ValueError:
        several = "; several at once: sweep and icr" if "," in text else ""
        raise UsageError(f"--num-images {text}: expected a number of images{several}") from None


@dataclass(frozen=True)
class Measuring:
    """What all measuring commands take; expanded into their signatures by `with_measuring`."""

    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="DATA", show_default=False,
            help="Images: folder, .zip, .npy, .npz (latents: .npz with mean), .parquet, hf://datasets/OWNER/NAME, "
            "synthetic:count=N,seed=S.",
        ),
    ]  # fmt: skip
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            callback=listed,
            help=f"Layer by its name, mid, or all {REPEATABLE}.",
            show_default="mid",
        ),
    ] = None
    sigma: Annotated[
        list[float] | None,
        _levels("--sigma", "S", "as noise-to-signal ratio"),
    ] = None
    t: Annotated[
        list[float] | None,
        _levels("--t", "T", "in the model's own variable"),
    ] = None
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num-images",
            metavar="N",
            parser=_count,
            help="Images, a seeded subset.",
            show_default="all, at most max(5000, 4 x features)",
        ),
    ] = None
    augment: Annotated[str, typer.Option("--augment", help=f"{AUGMENTATIONS}.")] = "crop+flip+jitter"
    augment_strength: Annotated[
        float, typer.Option("--augment-strength", metavar="F", help="Multiplies all ranges of the augmentation.")
    ] = 1.0
    input: Annotated[
        str, typer.Option("--input", help="noisy, or clean: no noise, but the conditioning of the noise level.")
    ] = "noisy"
    views: Annotated[int, typer.Option("--views", metavar="V", help="Views of each image.")] = 2
    pool: Annotated[str, typer.Option("--pool", help="mean over positions, or flatten.")] = "mean"
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale each feature vector to length 1.")] = False
    reduce: Annotated[
        bool,
        typer.Option("--reduce", help="Project channels that depend linearly on others away; else they are refused."),
    ] = False
    class_label: Annotated[
        str, typer.Option("--class", help="Class given to the model: null, label (the image's own) or an index.")
    ] = "null"
    family: Family = None
    config: Config = None
    weights: Weights = "ema"
    vae: Annotated[
        str | None,
        typer.Option(
            "--vae",
            metavar="DIR",
            help="Image encoder of a latent model: a diffusers folder or hf://OWNER/NAME[/PATH].",
            show_default=False,
        ),
    ] = None
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of subset, views and noise; synthetic: images have their own, seed=S.")
    ] = 0
    device: Annotated[
        str | None,
        typer.Option(
            "--device", envvar="DIFFSCOPE_DEVICE", help="cpu, cuda, cuda:1, mps.", show_default="cuda if present"
        ),
    ] = None
    precision: Annotated[
        str, typer.Option("--precision", help="auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.")
    ] = "auto"
    compile: Annotated[
        bool, typer.Option("--compile", help="On CUDA, compile the network's blocks first; pays on long runs.")
    ] = False
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="B",
            help="Images per batch; in float32 figures keep six digits, for a network may round by it. Halved where "
            "the device runs out of memory.",
            show_default="32 views on CPU, 256 on CUDA",
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="W", help="Threads that decode images ahead.", show_default="2 at most"),
    ] = None
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            help="For the moments, such as 8GB; more are measured in portions.",
            show_default="half of RAM",
        ),
    ] = None
    max_pixels: MaxPixels = None
    strict: Annotated[bool, typer.Option("--strict", help="An unreadable image is an error, not a counted skip.")] = (
        False
    )

    def settings(self, **more: Any) -> Settings:
        if self.sigma and self.t:
            raise UsageError("--sigma and --t both give noise levels; expected one of the two, repeated as needed")
        from diffscope.options.settings import Settings

        return Settings(
            layer=tuple(self.layer or ("mid",)),
            sigma=tuple(self.sigma or ()),
            t=tuple(self.t or ()),
            num_images=self.num_images,
            augment=self.augment,
            augment_strength=self.augment_strength,
            views=self.views,
            input=self.input,
            pool=self.pool,
            normalize=self.normalize,
            reduce=self.reduce,
            class_label=self.class_label,
            seed=self.seed,
            precision=self.precision,
            device=self.device,
            compile=self.compile,
            batch_size=self.batch_size,
            workers=self.workers,
            max_memory=None if self.max_memory is None else bytes_of(self.max_memory, "--max-memory"),
            strict=self.strict,
            max_pixels=self.max_pixels,
            **more,
        )

    def job(self, checkpoint: str, options: tuple[Any, ...] = (), **more: Any) -> Job:
        """Everything opened and checked against each other."""
        settings = self.settings(**more)
        from diffscope.api import prepare_job

        config = key_values(self.config)
        return prepare_job(checkpoint, self.data, settings, self.family, config, self.weights, self.vae, options)


def with_measuring(command: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the command's parameter `measuring` by the fields of `Measuring`, so that typer shows them as options.

    An option that the command declares itself, under the name of such a field, stands in its place.
    """
    hints = get_type_hints(Measuring, include_extras=True)
    own = get_type_hints(command, include_extras=True)
    # Keyword-only, for options with and without defaults then stand in any order.
    parameters = inspect.signature(command).parameters
    taken = [f for f in fields(Measuring) if f.name not in parameters]
    expanded = [
        parameters[f.name].replace(annotation=own[f.name], kind=inspect.Parameter.KEYWORD_ONLY)
        if f.name in parameters
        else inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if f.default is MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in fields(Measuring)
    ]
    others = [
        p.replace(annotation=own[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, p in parameters.items()
        if name not in ("measuring", *(f.name for f in fields(Measuring)))
    ]
    arguments = [p for p in others if p.default is inspect.Parameter.empty]
    options = [p for p in others if p.default is not inspect.Parameter.empty]
    signature = inspect.Signature([*arguments, *expanded, *options])

    def run(**values: Any) -> Any:
        measuring = Measuring(**{f.name: values.pop(f.name) for f in taken})
        return command(measuring=measuring, **values)

    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def require_safetensors(output: Path) -> None:
    """UsageError where a file's name says that it is something else."""
    if output.suffix.lower() != ".safetensors":
        raise UsageError(f"{output}: expected a name that ends in .safetensors, the one format that is written")


def key_values(pairs: list[str] | None) -> dict[str, str]:
    """`KEY=VALUE` options as a dictionary."""
    found = {}
    # A comma may also stand in a value: the next pair begins with a name and a sign of equality.
    for pair in [part for text in pairs or [] for part in re.split(r",(?=\s*\w+=)", text)]:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--config {pair}: expected KEY=VALUE, such as num_heads=6")
        found[key.strip()] = value.strip()
    return found
