"""Images → views and noise in a network's input space: decoded, augmented and encoded once for all noise levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from diffscope import __version__
from diffscope.cache import latents
from diffscope.cache.latents import Latents
from diffscope.cache.sizes import limit
from diffscope.cache.store import cache_folder
from diffscope.errors import DataError
from diffscope.extraction.plan import Batch, Plan
from diffscope.extraction.uploads import Uploads
from diffscope.families.base import Denoiser
from diffscope.protocol import digest
from diffscope.seeding import GENERATOR, Stream
from diffscope.sources.base import Source, Target
from diffscope.views import augmented_view, view_noise

Skipped = list[dict[str, str]]
"""{file, why} of images that could not be read."""


class Inputs:
    """Decodes, augments and encodes images; unreadable ones are left out, and named to who asks.

    Finished batches are kept in memory, up to `keep` bytes, for further checkpoints of the same protocol, which need
    the same images, views and noise. Latents from a VAE are kept on disk as well, for further runs
    (`cache/latents.py`). Views of pixels are not, as reading them back would save little: the image is decoded in any
    case, to know that it is the same one, and augmenting takes 0.1 to 9 ms an image (32² to 256²), at 25 kB to 1.6 MB.

    Args:
        source: Of images or latents.
        plan: Says how views are made.
        strict: Whether an unreadable image ends the run instead of being skipped.
        keep: Bytes of finished batches that may stay in memory.
        say: Called once with a sentence where latents cannot be kept on disk.

    Raises:
        UsageError: $DIFFSCOPE_CACHE_SIZE is no size.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        strict: bool = False,
        keep: int = 0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.source, self.plan, self.strict = source, plan, strict
        self.device = torch.device(plan.device)
        self._upload = Uploads(self.device)
        self._room = keep
        self._kept: dict[tuple[int, ...], tuple[list[Batch], Skipped]] = {}
        self.say, self._limit = say, limit()
        self._on_disk: tuple[dict[str, Any], Latents] | None = None

    _fingerprints: ClassVar[WeakKeyDictionary[Any, str]] = WeakKeyDictionary()
    """Hashes of encoders, each made once: a published one takes a quarter of a second."""

    def batches(self, denoiser: Denoiser, indices: Sequence[int], skipped: Skipped | None = None) -> Iterator[Batch]:
        """Reads images as a network takes them.

        Args:
            denoiser: Whose input space they are brought to.
            indices: Of the images in their source.
            skipped: Takes {file, why} of each image that cannot be read.

        Yields:
            Batches of readable images, in order.

        Raises:
            DataError: An image cannot be read, and `strict` is set.
        """
        key = tuple(indices)
        if key in self._kept:
            batches, before = self._kept[key]
            if skipped is not None:
                skipped += before
            yield from batches
            return
        made, unreadable = list[Batch](), Skipped()
        for batch, images in self._decoded(key, target_of(denoiser), unreadable):
            self._upload.pace()
            with torch.inference_mode():
                signal, noise = self._signal_and_noise(denoiser, batch, images)
            made.append(Batch(batch, signal, noise))
            self._room -= signal.nbytes + (0 if noise is None else noise.nbytes)
            if self._room < 0:
                made.clear()
            yield Batch(batch, signal, noise)
        if skipped is not None:
            skipped += unreadable
        if self._room >= 0:
            self._kept[key] = (made, unreadable)

    def _signal_and_noise(
        self, denoiser: Denoiser, batch: tuple[int, ...], images: np.ndarray
    ) -> tuple[Tensor, Tensor | None]:
        """Data in the network's input space and its noise, both (B·V, C, S, S), the views of an image side by side."""
        signal = self._signal(denoiser, batch, images)
        return signal, self._drawn(denoiser, batch, Stream.NOISE) if self.plan.input == "noisy" else None

    def _signal(self, denoiser: Denoiser, batch: tuple[int, ...], images: np.ndarray) -> Tensor:
        """Data in the network's input space; latents that are not on disk yet are encoded together, and kept."""
        views = self.plan.views
        if self.source.kind == "latents":
            pixels = self._upload(torch.from_numpy(images))
            mean, std = (part.repeat_interleave(views, 0) for part in pixels.unbind(1))
            return denoiser.scale_latents(mean, std, self._latent_noise(denoiser, batch))
        if denoiser.encoder is None or not self._limit:
            return self._encoded(denoiser, batch, images)
        kept = self._latents(denoiser)
        digests = [latents.digest(image) for image in images]
        keys = [(image, index, view) for image, index in zip(digests, batch, strict=True) for view in range(views)]
        rows = kept.read(keys, (denoiser.space.channels, denoiser.space.side, denoiser.space.side))
        if missing := [number for number, row in enumerate(rows) if row is None]:
            made = self._encoded(denoiser, batch, images, missing).cpu().numpy()
            kept.write([keys[number] for number in missing], made)
            for number, row in zip(missing, made, strict=True):
                rows[number] = row
        return self._upload(torch.from_numpy(np.stack([row for row in rows if row is not None])))

    def _encoded(
        self, denoiser: Denoiser, batch: tuple[int, ...], images: np.ndarray, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Makes augmented views in the network's input space: all B·V, or those at `rows`."""
        plan, pixels = self.plan, self._upload(torch.from_numpy(images))
        keyed = plan.augmentation, plan.seed, self.source.are_pictures
        views = [augmented_view(pixels, batch, v, *keyed) for v in range(plan.views)]
        x, noise = torch.stack(views, 1).flatten(0, 1), self._latent_noise(denoiser, batch)
        if rows is not None and len(rows) < len(x):
            x, noise = x[list(rows)], None if noise is None else noise[list(rows)]
        # A convolution's last bits go with the order in memory, which a VAE's output has of its own.
        return denoiser.encode(x, noise).contiguous()

    def _latent_noise(self, denoiser: Denoiser, batch: tuple[int, ...]) -> Tensor | None:
        """Noise that draws from the VAE's posterior; None takes its mean."""
        wanted = self.plan.input == "noisy" and denoiser.space.kind == "latents"
        return self._drawn(denoiser, batch, Stream.LATENT) if wanted else None

    def _drawn(self, denoiser: Denoiser, batch: tuple[int, ...], stream: Stream) -> Tensor:
        """Noise (B·V, C, S, S) of one stream."""
        shape = (denoiser.space.channels, denoiser.space.side, denoiser.space.side)
        views = [view_noise(batch, view, shape, self.plan.seed, stream) for view in range(self.plan.views)]
        return self._upload(torch.stack(views, 1).flatten(0, 1))

    def _latents(self, denoiser: Denoiser) -> Latents:
        """The latents on disk that this denoiser's encoder makes of such views."""
        about = self._provenance(denoiser)
        if self._on_disk is None or self._on_disk[0] != about:
            assert denoiser.encoder is not None
            folder, note = cache_folder() / "latents", {"path": denoiser.encoder.path}
            self._on_disk = about, Latents(folder, about, self._limit, self.say, note)
        return self._on_disk[1]

    def _provenance(self, denoiser: Denoiser) -> dict[str, Any]:
        """All that a latent depends on besides the image, its index and the view.

        Versions and the device are in it: they change rounding alone, but figures are to be the same bits whether
        latents were kept or not.
        """
        encoder, plan, space = denoiser.encoder, self.plan, denoiser.space
        assert encoder is not None
        if encoder not in self._fingerprints:
            config = {key: value for key, value in encoder.model.config.items() if not key.startswith("_")}
            self._fingerprints[encoder] = digest({"weights": encoder.fingerprint(), "config": config})
        cuda = self.device.type == "cuda"
        return {
            "vae": self._fingerprints[encoder],
            # Families may feed the VAE, and scale what it gives, in ways of their own.
            "encode": f"{type(denoiser).encode.__module__}.{type(denoiser).encode.__qualname__}",
            "scale": f"{type(denoiser).scale_latents.__module__}.{type(denoiser).scale_latents.__qualname__}",
            "latent_scale": None if denoiser.latent_scale is None else denoiser.latent_scale.to_json(),
            "shape": [space.channels, space.side, space.side],
            "dtype": "float32",
            "augment": plan.augmentation.name,
            "augment_strength": plan.augmentation.strength,
            "sampled": plan.input == "noisy",
            "seed": plan.seed,
            "generator": GENERATOR,
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "versions": {"diffscope": __version__, "torch": torch.__version__, "diffusers": version("diffusers")},
        }

    def _decoded(
        self, indices: Sequence[int], target: Target, skipped: Skipped
    ) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Readable images in batches; with workers, the next batch is decoded while this one is used."""
        size = self.plan.batch_size
        chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
        if not self.plan.workers:
            decoded: Iterator[list[np.ndarray | DataError]] = (
                [self._read(int(i), target) for i in chunk] for chunk in chunks
            )
            yield from self._readable(chunks, decoded, skipped)
            return
        with ThreadPoolExecutor(self.plan.workers) as pool:
            yield from self._readable(chunks, self._ahead(pool, chunks, target), skipped)

    def _ahead(
        self, pool: ThreadPoolExecutor, chunks: Sequence[Sequence[int]], target: Target
    ) -> Iterator[list[np.ndarray | DataError]]:
        """Decodes the next chunk while the one before is used."""

        def submit(chunk: Sequence[int]) -> list[Future[np.ndarray | DataError]]:
            return [pool.submit(self._read, int(i), target) for i in chunk]

        pending = submit(chunks[0]) if chunks else []
        for following in [*chunks[1:], None]:
            now, pending = pending, [] if following is None else submit(following)
            yield [future.result() for future in now]

    def _readable(
        self, chunks: Sequence[Sequence[int]], decoded: Iterator[list[np.ndarray | DataError]], skipped: Skipped
    ) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """(indices, images) of each chunk without unreadable images, which are collected in `skipped`."""
        for chunk, images in zip(chunks, decoded, strict=False):
            kept: list[tuple[int, np.ndarray]] = []
            for index, image in zip(chunk, images, strict=True):
                if isinstance(image, DataError):
                    if self.strict:
                        raise image
                    skipped.append({"file": self.source.name(int(index)), "why": str(image)})
                else:
                    kept.append((int(index), image))
            if kept:
                yield tuple(index for index, _ in kept), np.stack([image for _, image in kept])

    def _read(self, index: int, target: Target) -> np.ndarray | DataError:
        """An image, or why it cannot be read."""
        try:
            return self.source.read(index, target)
        except DataError as error:
            return error


def target_of(denoiser: Denoiser) -> Target:
    """Returns what a source must bring its images to for this model."""
    space = denoiser.space
    return Target(space.image_side, space.image_channels, space.resize)
