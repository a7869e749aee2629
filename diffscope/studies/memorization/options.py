"""What is drawn for a search for copies, what counts as one, and which choices exclude each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from diffscope.errors import UsageError
from diffscope.options.beside import program_of, require_permission
from diffscope.options.option import IMAGES, MEASURE, OUTPUT, SPEED, STATISTICS, Declared, Option
from diffscope.options.settings import DataRange, Device, MaxPixels, Precision, Settings, StepFrom

if TYPE_CHECKING:
    from diffscope.studies.memorization.copies import Criterion


@dataclass(frozen=True)
class Choices(Declared):
    """The samples, and the criterion of a copy."""

    samples: Annotated[int, Option("Samples of each checkpoint.", metavar="N", least=1)] = 256
    steps: Annotated[int, Option("Noise levels of the sampler (Heun's method).", metavar="K", least=2)] = 18
    class_label: Annotated[
        str,
        Option("Class of the samples: null, label (as the training images have them), an index.", flag="--class"),
    ] = "null"
    space: Annotated[
        str | None,
        Option(
            "Of copies: pixels, features (the model's own at --layer and --sigma, by their cosine) or encoder.",
            choices=("pixels", "features", "encoder"),
            shown="encoder with --encoder and without --quality, else pixels",
        ),
    ] = None
    threshold: Annotated[
        float | None,
        Option(
            "A copy has d1/d2 below it (pixels), or a cosine above it.",
            metavar="X",
            shown="1/3 for pixels; 0.5 for encoders, as published for SSCD",
        ),
    ] = None
    mirror: Annotated[bool, Option("A training image and its mirror image count as the same.")] = True
    layer: Annotated[
        str | None,
        Option(
            "Of the model's own features: layer by its name, or mid.", metavar="NAME", shown="mid", completes="layers"
        ),
    ] = None
    sigma: Annotated[
        float | None,
        Option("Of the model's own features: the noise level that the network is told.", metavar="S", shown=""),
    ] = None
    encoder: Annotated[
        str | None,
        Option(
            "Compare by another encoder, as SSCD for copies, Inception for --quality: a TorchScript file, with "
            "--allow-torchscript, or what probe --beside takes.",
            metavar="ENCODER",
            shown="",
            path=True,
        ),
    ] = None
    allow_torchscript: Annotated[
        bool, Option("Run the program in --encoder FILE: trust where it comes from.", group=MEASURE)
    ] = False
    encoder_side: Annotated[
        int | None,
        Option(
            "Side to which images are resized for --encoder.",
            metavar="S",
            least=1,
            shown="288; none where the program resizes, as Inception for FID",
        ),
    ] = None
    encoder_features: Annotated[
        tuple[str, str] | None,
        Option(
            "Compare by descriptors made elsewhere: two .safetensors with one tensor [images, d] each.",
            metavar="SAMPLES TRAIN",
            shown="",
        ),
    ] = None
    quality: Annotated[
        bool,
        Option(
            "Also hold the samples as a whole against the training images: Fréchet and kernel distance, precision, "
            "recall, density, coverage, authenticity; in the space of --encoder, else of the model's own features.",
        ),
    ] = False
    features_of: Annotated[
        str | None,
        Option(
            "Of --quality: the checkpoint whose own features are compared, the same ones for a whole run.",
            metavar="CKPT",
            shown="the last",
            path=True,
        ),
    ] = None
    num_references: Annotated[
        int,
        Option(
            "Of --quality: training and held-out images at most, a seeded subset.", metavar="N", least=1, group=IMAGES
        ),
    ] = 10_000
    holdout: Annotated[
        str | None,
        Option(
            "Images not trained on: --quality is measured against them, too.",
            group=IMAGES,
            metavar="DATA",
            shown="",
            path=True,
        ),
    ] = None
    seed: Annotated[int, Option("Seed of the samples' noise and classes.", group=STATISTICS, least=0, below=2**64)] = 0
    device: Device = None
    precision: Precision = "auto"
    batch_size: Annotated[
        int | None,
        Option("Samples drawn at a time.", group=SPEED, metavar="B", least=1, shown="32 on CPU, else 256"),
    ] = None
    workers: Annotated[
        int | None,
        Option("Threads that decode images.", group=SPEED, metavar="W", least=0, shown="2 at most"),
    ] = None
    max_pixels: MaxPixels = None
    data_range: DataRange = ()
    strict: Annotated[bool, Option("An unreadable image or checkpoint is an error, not left out.", group=IMAGES)] = (
        False
    )

    def __post_init__(self) -> None:
        """Checks which choices go together."""
        super().__post_init__()
        program = None if self.encoder is None else program_of(self.encoder)
        if self.encoder is not None and program is not None:
            require_permission(self.encoder, "encoder", self.allow_torchscript)
        self._check_space()
        self._check_quality()
        self._check_threshold()
        if self.allow_torchscript and program is None:
            raise UsageError("`allow_torchscript=` is for `encoder=FILE`, a TorchScript file, which is not given")
        if self.encoder_side is not None and (program is None or program[1] is not None):
            raise UsageError("`encoder_side=` is for `encoder=FILE`, a TorchScript file, which is not given")
        self.settings(1)

    def _check_space(self) -> None:
        others = self.encoder is not None and not self.quality
        spaces = [
            *([f"`space={self.space}`"] if self.space in ("pixels", "features") else []),
            *(["`encoder=`"] if self.space == "encoder" or others else []),
            *(["`encoder_features=`"] if self.encoder_features is not None else []),
        ]
        if len(spaces) > 1:
            raise UsageError(f"{' and '.join(spaces)}: copies are looked for in one space at a time; choose one")
        if self.space == "encoder" and self.encoder is None:
            raise UsageError("`space=encoder` is that of `encoder=FILE`, which is not given")
        own = self.space == "features" or (self.quality and self.encoder is None)
        for name, value in (("layer", self.layer), ("sigma", self.sigma)):
            if value is not None and not own:
                raise UsageError(f"`{name}=` is for `space=features` or `quality=`, which is not given")
        if own and self.sigma is None:
            which = "space=features" if self.space == "features" else "quality="
            raise UsageError(
                f"`{which}` needs a noise level: `sigma=S`, such as the one that a sweep recommends"
                + ("" if self.space == "features" else ", or `encoder=FILE`")
            )

    def _check_quality(self) -> None:
        given = {"features_of": self.features_of is not None, "holdout": self.holdout is not None}
        for name in (name for name, is_given in given.items() if is_given and not self.quality):
            raise UsageError(f"`{name}=` is for `quality=`, which is not given")
        if self.features_of is not None and self.encoder is not None:
            raise UsageError("`features_of=` and `encoder=`: quality is measured in one space at a time; choose one")

    def _check_threshold(self) -> None:
        if self.threshold is None:
            if self.copies_in == "features":
                raise UsageError(
                    "`space=features` needs `threshold=`, a cosine such as 0.95: none is published for a model's own "
                    "features; the median similarity and the pairs tell which one suits"
                )
            return
        low, high = (0, 1) if self.by_pixels else (-1, 1)
        if not low < self.threshold < high:
            raise UsageError(f"`threshold={self.threshold:g}`: expected a number between {low} and {high}")

    @property
    def criterion(self) -> Criterion:
        """What counts as a copy."""
        from diffscope.studies.memorization.copies import THIRD, Criterion
        from diffscope.studies.memorization.encoders import PUBLISHED_THRESHOLD

        if self.by_pixels:
            return Criterion("ratio", THIRD if self.threshold is None else self.threshold)
        return Criterion("cosine", PUBLISHED_THRESHOLD if self.threshold is None else self.threshold)

    @property
    def copies_in(self) -> str:
        """The space where copies are looked for: pixels, features, encoder or file."""
        if self.encoder_features is not None:
            return "file"
        named = self.encoder is not None and not self.quality
        return self.space or ("encoder" if named else "pixels")

    @property
    def by_pixels(self) -> bool:
        """Whether copies are told by distances of pixels."""
        return self.copies_in == "pixels"

    def settings(self, images: int) -> Settings:
        """The same as other studies take them: each image once, as it is."""
        return Settings(
            layer=(self.layer or "mid",),
            sigma=() if self.sigma is None else (self.sigma,),
            num_levels=1,
            num_images=images,
            augment="none",
            views=1,
            input="clean",
            class_label=self.class_label,
            seed=self.seed,
            precision=self.precision,
            device=self.device,
            batch_size=self.batch_size,
            workers=self.workers,
            strict=self.strict,
            max_pixels=self.max_pixels,
            data_range=self.data_range,
        )


@dataclass(frozen=True)
class Samples(Declared):
    """What becomes of the samples, and where the steps of a run are told."""

    step_from: StepFrom = None
    save_samples: Annotated[
        bool, Option("Also write all samples to --out, as samples.npz or samples-STEP.npz.", group=OUTPUT)
    ] = False
