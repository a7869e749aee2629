"""Networks told of a text, of a pipeline's folder or alone, as denoisers: the text is the same for all images.

Stable Diffusion 1.x, 2.x and XL, SD3 and 3.5, FLUX.1, PixArt-α and -Σ, Sana. The networks are those of the diffusers
library; what each is fed stands in `_text_networks`, what is made of a text in `_prompts`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffscope import hub
from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.diffusers_weights import read_json
from diffscope.checkpoints.hub import locate_text
from diffscope.errors import CheckpointError, UsageError
from diffscope.families import _prompts
from diffscope.families._building import build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._constructors import fill_buffers
from diffscope.families._facts import Facts
from diffscope.families._refusals import refuse_network, refuse_pipeline
from diffscope.families._schedules import PREDICTS, latents_of, noise_of
from diffscope.families._text_configs import (
    config_keys,
    constructor_of,
    distillation_warnings,
    latent_channels,
    made_for_file,
    network_of,
    text_rows,
    text_schedule,
)
from diffscope.families._text_networks import (
    PIXART,
    UNET,
    Shapes,
    TextNetwork,
    added_conditions,
    default_layer,
)
from diffscope.families.base import Classes, Denoiser, InputSpace, Match, input_space
from diffscope.families.networks.autoencoder import Autoencoder, factor_of
from diffscope.families.networks.block_outputs import image_output, is_known
from diffscope.families.networks.library import diffusers_class
from diffscope.families.networks.stored import StoredNetwork

_DIFT = "DIFT takes correspondences from it, of SD 2.1 at step 261: Tang et al. 2023, https://arxiv.org/abs/2306.03881"


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> PipelineDenoiser:
    """Builds the library's network from its config and gives it the weights, in the type that they are stored in.

    Args:
        checkpoint: A diffusers folder.
        config: The user's `--config`: settings of the scheduler, sample_size, max_sequence_length, guidance.
        match: The evidence that the file is of this family.

    Returns:
        The denoiser, its network on the CPU and not told of a text yet.

    Raises:
        CheckpointError: If configs or weights are damaged, or something in them is not supported.
        WeightsMismatch: If the weights do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    path, said = checkpoint.path, checkpoint.attributes
    kind = network_of(checkpoint)
    assert kind is not None
    facts = Facts(path, checkpoint.arguments, config, config_keys(kind))
    index, vae = said.get("index") or {}, said.get("vae_config")
    refuse_network(kind, checkpoint.arguments, vae, path)
    refuse_pipeline(kind, index, path)
    library, arguments, side = constructor_of(kind, facts)
    schedule, warnings = text_schedule(kind, said.get("scheduler"), config, path)
    rows = text_rows(kind, facts, index)
    shapes = kind.shapes(facts, rows)
    shapes_of(path, checkpoint.tensors)
    module = build_on_meta(lambda: made_for_file(kind, library, arguments), path, checkpoint.tensors)
    space = input_space(latent_channels(kind, facts), side, True, "lanczos", factor_of(vae) if vae else kind.factor)
    network = _network(kind, module, facts, space, shapes)
    layers = dry_walk(network, space, None, path)
    load_weights(module, checkpoint.tensors, path, as_stored=True)
    fill_buffers(module, library, arguments)
    return PipelineDenoiser(
        network_class=f"{kind.name}({schedule['prediction_type']})",
        network=network.eval(),
        space=space,
        noise=noise_of(schedule, path),
        classes=Classes(),
        layers=layers,
        default_layer=default_layer(kind, module),
        evidence=f"{match.why}; of a {index['_class_name']}" if index.get("_class_name") else match.why,
        constructor={"class": kind.name, "network": arguments, "schedule": schedule, "side": side},
        warnings=(*warnings, *distillation_warnings(kind, facts, said.get("folder"))),
        prediction=PREDICTS[schedule["prediction_type"]],
        latent_scale=latents_of(vae, path) if vae else None,
        cited={"up_blocks.1": _DIFT} if kind.name == UNET.name else {},
        kind=kind,
        facts=facts,
        rows=rows,
        beside=Beside(checkpoint.revision, said.get("pipeline"), index, said.get("vae")),
    )


@dataclass(frozen=True)
class Beside:
    """What lies beside the network."""

    revision: str | None = None
    """Of the Hub's repository, where it is one."""
    pipeline: str | None = None
    """Folder of the pipeline."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """Its model_index.json; empty of a network alone."""
    vae: str | None = None
    """Folder of its image encoder."""


@dataclass
class PipelineDenoiser(Denoiser):
    """A network told of a text as a denoiser."""

    family: ClassVar[str] = "diffusers"
    scale_wanted: ClassVar[str] = "no image encoder says how latents are scaled: give the model's own with `vae=PATH`"
    kind: TextNetwork = UNET
    facts: Facts = field(default_factory=lambda: Facts("", {}))
    rows: int = 77
    """Of its text."""
    beside: Beside = field(default_factory=Beside)
    prompt: str | None = None
    """None of embeddings from a file."""
    told: dict[str, Tensor] = field(default_factory=dict)
    """Its embeddings, name → (1, …); empty until `use_text`."""

    def use_encoder(self, path: str | None, encoder: Autoencoder | None = None) -> None:
        """Reads a VAE, else the pipeline's own, and takes the scale of latents from its config.

        Args:
            path: A diffusers folder or Hub reference of an AutoencoderKL or AutoencoderDC; None takes the pipeline's.
            encoder: The same VAE, read before.

        Raises:
            CheckpointError: As `Denoiser.use_encoder`.
        """
        super().use_encoder(path or self.beside.vae, encoder)
        assert self.encoder is not None
        self.latent_scale = latents_of(self.encoder.model.config, self.encoder.path)
        self._tell()

    def use_text(self, prompt: str | None, source: str | None) -> None:
        """Embeds a text and tells it to the network; see `Denoiser.use_text`.

        Args:
            prompt: The text; None is the empty one.
            source: A pipeline's folder or Hub reference, or a .safetensors file of embeddings; None takes the
                pipeline's own encoders.

        Raises:
            CheckpointError: If there is no text encoder, it cannot be read, or it is another network's.
            UsageError: If the text is too long, or a file of embeddings is given beside it.
        """
        shapes = self.kind.shapes(self.facts, self.rows)
        note: str | None = None
        if source is not None and source.endswith(".safetensors"):
            if prompt is not None:
                raise UsageError(f"`prompt=` beside `prompt_from={source}`, which holds embeddings: give one of them")
            self.told, self.prompt = _prompts.from_file(source, shapes), None
        else:
            self.prompt = prompt or ""
            pipeline = self._pipeline(source)
            index = read_json(os.path.join(pipeline, "model_index.json")) if pipeline else {}
            text = _prompts.Text(self.kind, shapes, self.rows, self.prompt, pipeline, index)
            self.told, note = _prompts.embedded(text)
        self._tell()
        if note is not None and note not in self.warnings:
            self.warnings = (*self.warnings, note)

    def use_image_size(self, size: int) -> None:
        """Makes the network take images of another side than those that it was trained on.

        Args:
            size: Side of the images, in pixels.

        Raises:
            UsageError: If the latents' side would be no whole number, or not one that the network can cut in patches.
        """
        factor = self.space.image_side // self.space.side
        step = factor * self.kind.patch
        if size % step or size < step:
            raise UsageError(f"`image_size={size}`: expected a multiple of {step}, by its image encoder and patches")
        if size == self.space.image_side:
            return
        if self.kind.name == PIXART.name:
            self.warnings += (f"images of side {size}: PixArt places its positions otherwise than in training",)
        self.space = replace(self.space, side=size // factor, image_side=size)
        self._tell()
        path, library = self.facts.path, diffusers_class(self.kind.name)
        module = build_on_meta(lambda: made_for_file(self.kind, library, self.constructor["network"]), path)
        shapes = self.kind.shapes(self.facts, self.rows)
        network = _network(self.kind, module, self.facts, self.space, shapes)
        self.layers = dry_walk(network, self.space, None, path)

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Gives None, for there are no classes; tells the network the empty text where it was told none."""
        if not self.told:
            self.use_text(None, None)
        return None

    def _pipeline(self, source: str | None) -> str | None:
        """The folder of the pipeline whose text encoders are used, downloaded where it is on the Hub."""
        if source is not None:
            local = locate_text(source, None) if hub.is_reference(source) else source
            if not os.path.exists(os.path.join(local, "model_index.json")):
                raise CheckpointError(
                    f"`prompt_from={source}`: no model_index.json in it; expected a pipeline's folder or "
                    "hf://OWNER/NAME, or a .safetensors file of embeddings"
                )
            return local
        if not self.beside.index:
            return None
        revision = self.beside.revision
        return self.beside.pipeline if revision is None else locate_text(self.facts.path, revision)

    def _tell(self) -> None:
        """Tells the network the text, once there is one, and what goes with the size of the images."""
        if not self.told:
            return
        network = self.network
        assert isinstance(network, StoredNetwork)
        device = next(network.module.parameters()).device
        added = added_conditions(self.kind, network.module, self.facts, self.space.image_side)
        network.tell({name: value.to(device) for name, value in {**self.told, **added}.items()})
        described = {name: value.flatten().tolist() for name, value in added.items()}
        self.conditions = {"prompt": self.prompt, "text_sha256": _prompts.sha256_of(self.told), **described}


def _network(kind: TextNetwork, module: Any, facts: Facts, space: InputSpace, shapes: Shapes) -> StoredNetwork:
    """The network behind hooks; its text is on the meta device until it is known."""
    names = tuple(name for name, _ in module.named_modules() if kind.layers.fullmatch(name))
    if odd := [name for name in names if not is_known(module.get_submodule(name))]:
        block = type(module.get_submodule(odd[0])).__name__
        raise CheckpointError(f"{facts.path}: {odd[0]} is a {block}; what such a block returns is not known here")
    told: dict[str, Tensor] = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    added = added_conditions(kind, module, facts, space.image_side)
    told |= {name: torch.empty(value.shape, device="meta") for name, value in added.items()}
    return StoredNetwork(module, names, kind.call, image_output, told)
