"""What a user chooses for a search for copies, and which choices exclude each other."""

from __future__ import annotations

from dataclasses import dataclass

from diffscope import sampling
from diffscope.errors import UsageError
from diffscope.options.settings import Settings
from diffscope.studies.memorization.copies import THIRD, Criterion
from diffscope.studies.memorization.encoders import PUBLISHED_THRESHOLD, check_torchscript


@dataclass(frozen=True)
class Choices:
    """The options of the command; names and defaults are those of the command line."""

    samples: int = 256
    steps: int = sampling.STEPS
    space: str = "pixels"
    """pixels, or features: the model's own."""
    threshold: float | None = None
    mirror: bool = True
    layer: str | None = None
    sigma: float | None = None
    encoder: str | None = None
    """A TorchScript file."""
    encoder_side: int | None = None
    allow_torchscript: bool = False
    encoder_features: tuple[str, str] | None = None
    """safetensors files with descriptors of the samples and of the training images."""
    class_label: str = "null"
    """null, label (classes as often as the training images have them) or a class index."""
    seed: int = 0
    precision: str = "auto"
    device: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    strict: bool = False
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"--samples {self.samples}: expected at least 1")
        if self.steps < 2:
            raise UsageError(f"--steps {self.steps}: expected at least 2")
        if self.space not in ("pixels", "features"):
            raise UsageError(f"--space {self.space}: expected pixels or features")
        check_torchscript(self.encoder, self.allow_torchscript)
        self._check_space()
        self._check_threshold()
        self.settings(1)

    def _check_space(self) -> None:
        spaces = [
            *(["--space features"] if self.space == "features" else []),
            *(["--encoder"] if self.encoder is not None else []),
            *(["--encoder-features"] if self.encoder_features is not None else []),
        ]
        if len(spaces) > 1:
            raise UsageError(f"{' and '.join(spaces)}: copies are looked for in one space at a time; choose one")
        for name, value in (("--layer", self.layer), ("--sigma", self.sigma)):
            if value is not None and self.space != "features":
                raise UsageError(f"{name} is for --space features, which is not given")
        if self.space == "features" and self.sigma is None:
            raise UsageError("--space features needs a noise level: --sigma S, such as the one that a sweep recommends")
        if self.encoder_side is not None and self.encoder is None:
            raise UsageError("--encoder-side is for --encoder FILE, which is not given")
        if self.encoder_side is not None and self.encoder_side < 1:
            raise UsageError(f"--encoder-side {self.encoder_side}: expected at least 1")

    def _check_threshold(self) -> None:
        if self.threshold is None:
            if self.space == "features":
                raise UsageError(
                    "--space features needs --threshold, a cosine such as 0.95: none is published for a model's own "
                    "features; the median similarity and the pairs tell which one suits"
                )
            return
        low, high = (0, 1) if self.by_pixels else (-1, 1)
        if not low < self.threshold < high:
            raise UsageError(f"--threshold {self.threshold:g}: expected a number between {low} and {high}")

    @property
    def by_pixels(self) -> bool:
        """Whether images are compared as they are."""
        return self.space == "pixels" and self.encoder is None and self.encoder_features is None

    @property
    def criterion(self) -> Criterion:
        """What counts as a copy."""
        if self.by_pixels:
            return Criterion("ratio", THIRD if self.threshold is None else self.threshold)
        return Criterion("cosine", PUBLISHED_THRESHOLD if self.threshold is None else self.threshold)

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
        )
