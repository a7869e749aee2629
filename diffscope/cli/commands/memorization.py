"""diffscope memorization: samples that copy training images."""

from __future__ import annotations

from typing import Annotated

import typer

from diffscope.cli import options
from diffscope.errors import UsageError

Checkpoints = Annotated[
    list[str],
    typer.Argument(metavar="CKPT", help="A checkpoint, or snapshots of one run, or their folder.", show_default=False),
]
Data = Annotated[
    str,
    typer.Option(
        "--data", metavar="DATA", show_default=False,
        help="The training images, all of them: folder, .zip, .npy, .npz, .parquet, hf://datasets/OWNER/NAME.",
    ),
]  # fmt: skip
Samples = Annotated[int, typer.Option("--samples", metavar="N", help="Samples of each checkpoint.")]
Steps = Annotated[int, typer.Option("--steps", metavar="K", help="Noise levels of the sampler (Heun's method).")]
Space = Annotated[
    str, typer.Option("--space", help="pixels, or features: the model's own at --layer and --sigma, by their cosine.")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="X",
        help="A copy has d1/d2 below it (pixels), or a cosine above it.",
        show_default="1/3 for pixels; 0.5 for encoders, as published for SSCD",
    ),
]
Mirror = Annotated[
    bool, typer.Option("--mirror/--no-mirror", help="A training image and its mirror image count as the same.")
]
LayerName = Annotated[
    str | None,
    typer.Option("--layer", metavar="NAME", help="Of --space features: layer by its name, or mid.", show_default="mid"),
]
Sigma = Annotated[
    float | None,
    typer.Option(
        "--sigma", metavar="S", help="Of --space features: the noise level that the network is told.",
        show_default=False,
    ),
]  # fmt: skip
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="FILE",
        help="Compare by a TorchScript program such as SSCD's; needs --allow-torchscript.",
        show_default=False,
    ),
]
AllowTorchScript = Annotated[
    bool, typer.Option("--allow-torchscript", help="Run the program in --encoder FILE: trust where it comes from.")
]
EncoderSide = Annotated[
    int | None,
    typer.Option(
        "--encoder-side", metavar="S", help="Side to which images are resized for --encoder.", show_default="288"
    ),
]
EncoderFeatures = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--encoder-features",
        metavar="SAMPLES TRAIN",
        help="Compare by descriptors made elsewhere: two .safetensors with one tensor [images, d] each.",
        show_default=False,
    ),
]
ClassLabel = Annotated[
    str, typer.Option("--class", help="Class of the samples: null, label (as the training images have them), an index.")
]
SaveSamples = Annotated[
    bool, typer.Option("--save-samples", help="Also write all samples to --out, as samples.npz or samples-STEP.npz.")
]
Vae = Annotated[
    str | None,
    typer.Option(
        "--vae", metavar="DIR", help="Image encoder and decoder of a latent model: a diffusers folder or hf://.",
        show_default=False,
    ),
]  # fmt: skip
Seed = Annotated[int, typer.Option("--seed", help="Seed of the samples' noise and classes.")]
Device = Annotated[
    str | None,
    typer.Option("--device", envvar="DIFFSCOPE_DEVICE", help="cpu, cuda, cuda:1, mps.", show_default="cuda if present"),
]
Precision = Annotated[
    str, typer.Option("--precision", help="auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.")
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="B", help="Samples drawn at a time.", show_default="32 on CPU, else 256"),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="W", help="Threads that decode images.", show_default="2 at most"),
]
Strict = Annotated[bool, typer.Option("--strict", help="An unreadable image or checkpoint is an error, not left out.")]


def run(
    checkpoints: Checkpoints,
    data: Data,
    samples: Samples = 256,
    steps: Steps = 18,
    class_label: ClassLabel = "null",
    space: Space = "pixels",
    threshold: Threshold = None,
    mirror: Mirror = True,
    layer: LayerName = None,
    sigma: Sigma = None,
    encoder: Encoder = None,
    allow_torchscript: AllowTorchScript = False,
    encoder_side: EncoderSide = None,
    encoder_features: EncoderFeatures = None,
    save_samples: SaveSamples = False,
    step_from: options.StepFrom = None,
    family: options.Family = None,
    config: options.Config = None,
    weights: options.Weights = "ema",
    vae: Vae = None,
    seed: Seed = 0,
    device: Device = None,
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    max_pixels: options.MaxPixels = None,
    strict: Strict = False,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    fail_if: options.FailIf = None,
) -> None:
    """Which share of a model's samples copies training images?

    A sample is a copy where its distance to the nearest training image is below a third of that to the second
    nearest. Of several checkpoints all start from the same noise.

    Example: diffscope memorization ckpt.pkl --data images/ --fail-if "share>0.01"
    """
    if save_samples and out is None:
        raise UsageError("--save-samples keeps them in --out DIR, which is not given")
    from diffscope.cli.memorization import Run, examine
    from diffscope.options.settings import Loading
    from diffscope.studies.memorization.choices import Choices

    choices = Choices(
        samples=samples,
        steps=steps,
        space=space,
        threshold=threshold,
        mirror=mirror,
        layer=layer,
        sigma=sigma,
        encoder=encoder,
        encoder_side=encoder_side,
        allow_torchscript=allow_torchscript,
        encoder_features=encoder_features,
        class_label=class_label,
        seed=seed,
        precision=precision,
        device=device,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        max_pixels=max_pixels,
    )
    loading = Loading(family, options.key_values(config), weights, vae)
    examine(
        Run(choices, loading, data, step_from, save_samples, out, overwrite, json, quiet, fail_if or []), checkpoints
    )
