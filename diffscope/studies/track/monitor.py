"""ICR inside somebody's own training loop: a network in memory in, one row out, with the verdict on the run so far.

What is measured is what `diffscope icr` measures of the same weights in a file. Training goes on as if it had not been:
weights, gradients, train/eval flags, hooks and torch's random numbers are left as they were found.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffscope.errors import DataError, DiffscopeError, UsageError
from diffscope.families import LiveNetwork, PosteriorMean, SigmaToInput, wrap
from diffscope.families.base import Denoiser
from diffscope.families.networks.hooked import watched
from diffscope.families.networks.walk import WalkedNetwork
from diffscope.loggers import Log
from diffscope.measure.memory import half_of_memory
from diffscope.measure.opening import open_images, open_job
from diffscope.measure.rows import null_row
from diffscope.measure.series import Taken
from diffscope.measure.snapshots import Snapshot
from diffscope.options.settings import Loading, Logging, Settings
from diffscope.results import OnsetRow, Result, Row
from diffscope.sources import arrays
from diffscope.studies.track.gauge import rows_of
from diffscope.studies.track.onset import judge
from diffscope.studies.track.track import Tracker, watched_rule

Images = np.ndarray | Tensor | str | os.PathLike[str]
"""uint8 [N, H, W, C] or [N, H, W], floats or uint16 with `data_range=`, or a path as `--data` takes it."""

MAX_MEMORY = 8 << 30
"""Bytes, where half of the machine's memory is more: an eighth of it may stay on the network's device."""


class Monitor:
    """Measures a network now and then while it is trained, on the same images, views and noise each time.

        monitor = diffscope.Monitor(images)
        for step, batch in enumerate(loader):
            ...
            if monitor.due(step):
                row = monitor(ema, step)
                print(row["icr"], monitor.onset.state)

    images: uint8 [N, H, W, C] or [N, H, W], NumPy's or torch's, or a path; best the training images, or a part of them.
    sigma: noise-to-signal ratio; layer: a submodule's name or the tail of one. Where neither is given, the alarm pools
    some layers and levels, as `diffscope track` does, and the row is theirs together.
    channels, side: of the network's input, a square; by default those of the images, if they are an array.
    sigma_to_input(x, sigma) → (args, kwargs): how the network is called, if not as module(x, sigma) (`diffscope.wrap`).
    posterior_mean(x, sigma) → the data's mean as the network gives it: with it the alarm watches the denoising loss
    too, and is earlier and surer.
    rule: of one layer and level, `long` (fires at the earliest at the eleventh call) or `short` (at the seventh, for
    runs of less than 30 calls).
    every: steps between two calls, which `due(step)` keeps to. Without it, `share` of the time that training takes.
    log: where curves, figures and verdict are shown beside the training's own, as `--log` takes it, one or several; a
    run that goes on there is told, else one is begun. What keeps it from being shown is a warning: training goes on.
    vae: image encoder of a latent model, as `--vae` takes it.
    options: fields of `Settings`, such as views=5, num_images=1000, augment="crop+flip", batch_size=64. Up to an eighth
    of `max_memory` (bytes) is kept on the network's device between calls, so that no image is decoded twice.

    One monitor follows one network: another one for the weights beside their average.
    """

    def __init__(
        self,
        images: Images,
        *,
        sigma: float | None = None,
        layer: str = "mid",
        channels: int | None = None,
        side: int | None = None,
        sigma_to_input: SigmaToInput | None = None,
        posterior_mean: PosteriorMean | None = None,
        rule: str = "auto",
        share: float = 0.04,
        every: int | None = None,
        log: str | Sequence[str] = (),
        vae: str | None = None,
        **options: Any,
    ) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"`share={share:g}`: expected a share of the time, above 0 and up to 1")
        if every is not None and every < 1:
            raise UsageError(f"`every={every}`: expected steps between two calls, at least 1")
        if options.get("device") is not None:
            raise UsageError("a live network is measured where it is; leave out device=")
        memory = {"max_memory": min(MAX_MEMORY, half_of_memory())}
        settings = Settings(layer=(layer,), sigma=() if sigma is None else (sigma,), **{**memory, **options})
        rule = watched_rule(rule, settings)
        if rule != "alarm" and sigma is None:
            raise UsageError(f"`layer={layer}` alone: at which noise level? say sigma=, or leave both to the alarm")
        if isinstance(images, (str, os.PathLike)):
            source = open_images(settings, os.fspath(images))
        else:
            array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
            source = arrays.in_memory(array, settings.data_range)
            if settings.labels is not None:
                source.use_labels(settings.labels)
            channels, side = _input_of(array, channels, side)
        self._channels, self._side = channels, side
        self._call: dict[str, Any] = {"sigma_to_input": sigma_to_input, "posterior_mean": posterior_mean}
        self._tracker = Tracker(source=source, settings=settings, loading=Loading(vae=vae), rule=rule, online=True)
        self._wrapped: tuple[nn.Module, Denoiser] | None = None
        self._calls = 0
        self._share, self._due_at = share, -math.inf
        self.every, self._asked = every, -1
        self._log = Log(Logging(log=log).log, "diffscope monitor")  # type: ignore[arg-type]

    def due(self, step: int | None = None) -> bool:
        """Whether it is time for a call.

        With `every`, at each multiple of it, once; `step` has to be said. Else once enough time has passed since the
        last call for all calls to take no more than `share` of it all: the first one is due at once. Clocks differ, so
        ask one process of several then.
        """
        if self.every is None:
            return time.perf_counter() >= self._due_at
        if step is None:
            raise UsageError(f"`every={self.every}` counts steps: say due(step)")
        is_new, self._asked = step != self._asked, step
        return is_new and step % self.every == 0

    def __call__(self, network: nn.Module | Denoiser, step: int | None = None) -> Row:
        """The row of the network as it is now: a module, or a denoiser from `diffscope.load` or `diffscope.wrap`.

        step: how far training is; calls are counted where it is not given. A step measured again replaces its row.
        A network that has diverged, or become another one, gives a row of nulls whose note says so: training goes on.
        Raises UsageError and UnknownLayer where the network cannot be run as said, TooFewImages where the images cannot
        determine the layer's covariance. In a run of several processes, call it in one of them.
        """
        start = time.perf_counter()
        self._calls += 1
        step = self._calls if step is None else int(step)
        network = network if isinstance(network, Denoiser) else _bare(network)
        module = network.network if isinstance(network, Denoiser) else network
        # Blocks are of no use to a later run, which never meets the same weights: they are kept for this call alone.
        with _undisturbed(module), tempfile.TemporaryDirectory(prefix="diffscope-") as folder:
            self._tracker.folder = Path(folder)
            denoiser = self._denoiser(network)
            snapshot = Snapshot(f"live:{denoiser.network_class}/{step}", step, None)
            measured = self._tracker.take(snapshot, denoiser)
            row = self._nulls(denoiser, snapshot) if measured is None else self._row(step, measured)
        if measured is not None:
            self._show()
        end = time.perf_counter()
        self._due_at = end + (end - start) * (1 / self._share - 1)
        return row.having(checkpoint=snapshot.path, step=step)

    @property
    def rows(self) -> tuple[Row, ...]:
        """One for each step that could be measured, rising; of the alarm's, `result()` has those of each cell."""
        return self.result().shown_rows if self._tracker.taken else ()

    @property
    def onset(self) -> OnsetRow:
        """What the run says so far, looking at nothing but the past; `state` is `unclear` before there is a row."""
        tracker = self._tracker
        if onset := tracker.judged().onset:
            return onset[0]
        pooled = tracker.rule == "alarm"
        layer, sigma = (None, None) if pooled else (tracker.settings.layer[0], tracker.settings.sigma[0])
        return judge(layer, sigma, (), tracker.rule, True)

    def result(self) -> Result:
        """All rows and the verdict as `diffscope track` has them; CheckpointError before there is a row."""
        return self._tracker.result()

    def _show(self) -> None:
        try:
            self._log.result(self.result())
        except DiffscopeError as error:
            warnings.warn(f"{error}; training goes on", stacklevel=3)

    def close(self) -> None:
        """Ends what `log` began; what is not written yet is written."""
        self._log.close()

    def _denoiser(self, network: nn.Module | Denoiser) -> Denoiser:
        if isinstance(network, Denoiser):
            if self._tracker.settings.precision in ("bf16", "fp16") and not isinstance(network.network, LiveNetwork):
                raise UsageError(f"precision {self._tracker.settings.precision} would round the live network's weights")
            return network
        if isinstance(network, WalkedNetwork):
            raise UsageError(
                f"{type(network).__name__} alone does not say how it is told of noise; give the denoiser that holds it"
            )
        if self._wrapped is None or self._wrapped[0] is not network:
            if self._channels is None or self._side is None:
                raise UsageError("what the network takes is not known; say Monitor(…, channels=3, side=32)")
            layers = _named(network, self._tracker.settings.layer[0])
            found = wrap(network, side=self._side, channels=self._channels, layers=layers, **self._call)
            self._wrapped = network, found
        return self._wrapped[1]

    def _row(self, step: int, measured: Taken) -> Row:
        """Of the layer and level, or of all that the alarm pools; a row of nulls where one of these has no ICR."""
        shown = (row for row in self._tracker.result().shown_rows if row.step == step)
        return next(shown, rows_of(measured)[0].having(icr=None))

    def _nulls(self, denoiser: Denoiser, snapshot: Snapshot) -> Row:
        """The row of a network that could not be measured."""
        tracker = self._tracker
        job = open_job(denoiser, tracker.source, tracker.settings, tracker.loading)
        layer = job.plan.layers[0]
        note = f"not_measured: {tracker.left_out[snapshot.path]}"
        return null_row(layer.name, job.levels[0], len(job.indices), job.plan.width(layer), note)


def _input_of(images: np.ndarray, channels: int | None, side: int | None) -> tuple[int, int]:
    """Channels and side of the network's input: what is said, else those of images [N, H, W] or [N, H, W, C]."""
    height, width = images.shape[1:3]
    if side is None and height != width:
        raise DataError(f"images of {height} × {width} are not square; say what the network takes: side=")
    drawn = images.shape[3] if images.ndim == 4 else 1
    return channels or min(drawn, 3), side or height  # transparency is laid over white


def _named(network: nn.Module, layer: str) -> list[str] | None:
    """The one submodule of this name or tail: it may be a container, and is told what is wrong with it otherwise."""
    names = [name for name, _ in network.named_modules()]
    found = [layer] if layer in names else [name for name in names if name.endswith(f".{layer}")]
    return found if len(found) == 1 and layer != "mid" else None


def _bare(network: nn.Module) -> nn.Module:
    """Without what torch.compile, data parallelism and averaging put around it: names are those of the network.

    Compiled code does not call the hooks that watch a layer, and DistributedDataParallel waits for other processes.
    """
    while True:
        if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            return network


@contextlib.contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """While inside: the module in evaluation mode, no autocast; torch's random numbers go on after it where they were.

    Nothing here draws from them, but a network may.
    """
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    with (
        watched(module, (), lambda name, output: None),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.autocast(device.type, enabled=False),
    ):
        yield
