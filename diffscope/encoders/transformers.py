"""A vision model of the transformers library: a folder with config.json and safetensors, or hf://OWNER/NAME[@REVISION].

ViT-MAE: He et al., "Masked autoencoders are scalable vision learners", 2021, https://arxiv.org/abs/2111.06377 (its
masking is off: the whole image is seen). DINOv2: Oquab et al., 2023, https://arxiv.org/abs/2304.07193, with registers
https://arxiv.org/abs/2309.16588. CLIP's vision tower: Radford et al., 2021, https://arxiv.org/abs/2103.00020. I-JEPA:
Assran et al., 2023, https://arxiv.org/abs/2301.08243. ViT: Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929.

Weights are read by our own reader and all have to fit; what the file holds beside the tower (a decoder, a text tower, a
classifier) is left out by name. Images are prepared as the folder's preprocessor_config.json says. No code of the
folder is fetched or run. An image's features are those of the class token after the last norm, where there is one, else
the mean over the patches.
"""

from __future__ import annotations

import glob
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffscope import hub
from diffscope.checkpoints.diffusers_weights import ENCODER_STEMS, choose_weights, is_shard, read_json, read_weights
from diffscope.encoders.base import Encoder, Preparation, Setting, finite, hash_of_file
from diffscope.errors import CheckpointError, DataError
from diffscope.families import Facts, build_on_meta, load_weights
from diffscope.families.networks.library import transformers_class

PREPROCESSOR = "preprocessor_config.json"
CLASS_TOKEN, PATCHES = "class token", "mean of patch tokens"
MAX_LAYERS, MAX_SIDE = 256, 4096


@dataclass(frozen=True)
class Tower:
    """One kind of vision model."""

    model: str
    """Classes of the library."""
    config: str
    pooled: str = CLASS_TOKEN
    prefixes: tuple[str, ...] = ()
    """Before the tower's names in files of a larger model."""
    beside: tuple[str, ...] = ("classifier.", "pooler.")
    """How names begin of what stands beside the tower."""
    said: Mapping[str, Any] | None = None
    """Of the config, whatever the file says."""


TOWERS = {
    "vit": Tower("ViTModel", "ViTConfig", prefixes=("vit.",)),
    "vit_mae": Tower(
        "ViTMAEModel", "ViTMAEConfig", prefixes=("vit.",), beside=("decoder.",), said={"mask_ratio": 0.0}
    ),
    "dinov2": Tower("Dinov2Model", "Dinov2Config", prefixes=("dinov2.",)),
    "dinov2_with_registers": Tower(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", prefixes=("dinov2_with_registers.",)
    ),
    "clip_vision_model": Tower(
        "CLIPVisionModel", "CLIPVisionConfig", prefixes=("vision_model.",),
        beside=("text_model.", "visual_projection.", "text_projection.", "logit_scale", "embeddings.position_ids",
                "vision_model.embeddings.position_ids"),
    ),
    "ijepa": Tower("IJepaModel", "IJepaConfig", PATCHES, prefixes=("ijepa.",)),
}  # fmt: skip
"""By `model_type` of config.json; CLIP as a whole has its tower's config inside."""

_NOT_THE_NETWORK_S = {
    "self", "transformers_version", "architectures", "output_hidden_states", "output_attentions", "return_dict",
    "dtype", "torch_dtype", "id2label", "label2id", "problem_type", "kwargs", "chunk_size_feed_forward",
}  # fmt: skip
_OLDER: tuple[tuple[str, str], ...] = (
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"^layers\.(\d+)\.", r"encoder.layer.\1."),
)
_OLDER_MLP = ((r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."))
"""How files spell what the library's version 5 calls otherwise in memory."""


def accepts(spec: str) -> bool:
    """Tells whether it is a Hub reference, or a folder with a config.json."""
    return hub.is_reference(spec) or os.path.isdir(os.path.expanduser(spec))


def open(spec: str, setting: Setting) -> Encoder:
    """Reads config, preparation and weights, and runs the network once."""
    try:
        folder = _downloaded(spec) if hub.is_reference(spec) else os.path.expanduser(spec)
        return VisionModel(spec, folder, setting)
    except OSError as error:
        raise CheckpointError(f"`{setting.option}={spec}`: cannot be read: {error.strerror or error}") from None


def _downloaded(spec: str) -> str:
    repository = hub.open(spec, "model")
    prefix = repository.reference.path + "/" if repository.reference.path else ""
    names = [name[len(prefix) :] for name in repository.files(complete=False)]
    first = choose_weights([name for name in names if "/" not in name and not name.endswith(".bin")], ENCODER_STEMS)
    if "config.json" not in names or first is None or ".bin" in first:
        raise repository.reference.failure("expected a vision model, config.json beside model.safetensors")
    wanted = [name for name in ("config.json", PREPROCESSOR) if name in names]
    wanted += [first, *(name for name in names if first.endswith(".json") and is_shard(name, ENCODER_STEMS))]
    return str(repository.snapshot([glob.escape(name) for name in wanted if not name.endswith(".bin")]))


class VisionModel(Encoder):
    """A tower with its weights.

    Args:
        name: As the user spelled it.
        folder: With config.json, preprocessor_config.json and the weights.
        setting: Where it is run.

    Raises:
        CheckpointError: If it is of another kind, damaged, or its weights do not fit.
        DataError: If it does not run on what its preprocessor makes.
    """

    kind = "transformers"

    def __init__(self, name: str, folder: str, setting: Setting) -> None:
        self.name, self._folder, self._setting = name, folder, setting
        self.model_type, said = self._config()
        self.tower = TOWERS[self.model_type]
        tensors, self._files, _ = read_weights(folder, access="copied", stems=ENCODER_STEMS)
        self._network = self._built(said, tensors).to(setting.device)
        self.preparation = self._preparation()
        self.dims = self.features(np.zeros((1, 3, 32, 32), np.uint8)).shape[1]

    def _config(self) -> tuple[str, dict[str, Any]]:
        file = os.path.join(self._folder, "config.json")
        if not os.path.exists(file):
            raise CheckpointError(
                f"{self.name}: no config.json in it; expected a vision model of the transformers library with its "
                "safetensors"
            )
        said = read_json(file)
        kind = said.get("model_type")
        if kind == "clip":
            inside = said.get("vision_config")
            kind, said = "clip_vision_model", inside if isinstance(inside, dict) else {}
        if kind not in TOWERS:
            raise CheckpointError(f"{self.name}: a model of type {kind!r:.40}; expected {', '.join(('clip', *TOWERS))}")
        return str(kind), said

    def _built(self, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
        needed = f"{self.name}: its network", "or give its features as a .safetensors file"
        model, config = (transformers_class(name, needed) for name in (self.tower.model, self.tower.config))
        known = set(inspect.signature(config.__init__).parameters) | set(getattr(config, "__annotations__", {}))
        arguments = {key: value for key, value in said.items() if key in known - _NOT_THE_NETWORK_S}
        arguments |= self.tower.said or {}
        Facts(self.name, arguments).integer("num_hidden_layers", 12, 1, MAX_LAYERS)

        def make() -> nn.Module:
            made = config(**arguments)
            made._attn_implementation = "sdpa"
            more = {"add_pooling_layer": False} if self.model_type == "vit" else {}
            network: nn.Module = model(made, **more)
            return network

        network = build_on_meta(make, self.name)
        own = self._renamed(list(network.state_dict()), tensors)
        load_weights(network, own, self.name, advice="; fetch or copy the folder again")
        for key, buffer in list(network.named_buffers()):
            if buffer.is_meta:  # numbers of positions, which no file has to hold
                owner, _, leaf = key.rpartition(".")
                counted = torch.arange(buffer.shape[-1]).expand(buffer.shape)
                network.get_submodule(owner).register_buffer(leaf, counted, persistent=False)
        return network

    def _renamed(self, names: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tower's tensors under the network's names, and others that are not known to stand beside it."""
        found, taken = {}, set()
        for name in names:
            spelled = next((other for other in self._spellings(name) if other in tensors), None)
            if spelled is not None:
                found[name] = tensors[spelled]
                taken.add(spelled)
        beside = (*self.tower.beside, *(p + b for p in self.tower.prefixes for b in self.tower.beside))
        return found | {n: tensors[n] for n in tensors if n not in taken and not n.startswith(beside)}

    def _spellings(self, name: str) -> list[str]:
        bare = name
        for prefix in self.tower.prefixes:
            bare = bare.removeprefix(prefix)
        older = bare
        for pattern, other in _OLDER:
            older = re.sub(pattern, other, older)
        oldest = older
        for pattern, other in _OLDER_MLP:
            oldest = re.sub(pattern, other, oldest)
        return [prefix + one for one in dict.fromkeys((bare, older, oldest)) for prefix in ("", *self.tower.prefixes)]

    def _preparation(self) -> Preparation:
        file = os.path.join(self._folder, PREPROCESSOR)
        if not os.path.exists(file):
            raise CheckpointError(
                f"{self.name}: no {PREPROCESSOR}, which says how images are prepared; copy it from the same model"
            )
        said = read_json(file)
        facts = Facts(f"{self.name}: {PREPROCESSOR}", said)
        resize = self._side(said, "size") if facts.boolean("do_resize", True) else None
        crop = self._side(said, "crop_size") if facts.boolean("do_center_crop", False) else None
        if (resize is None and crop is None) or (resize is not None and crop is not None and crop > resize):
            raise CheckpointError(f"{facts.path}: resizes to {resize} and cuts {crop}; expected one fixed side")
        normalised = facts.boolean("do_normalize", True)
        for key in ("image_mean", "image_std"):
            if normalised and not (facts.says(key) and len(facts.numbers(key, [], -1e3, 1e3)) == 3):
                raise CheckpointError(f"{facts.path}: {key} is {said.get(key)!r:.60}; expected three numbers")
        mean = facts.numbers("image_mean", [0.0], -1e3, 1e3) if normalised else [0.0] * 3
        std = facts.numbers("image_std", [1.0], 1e-6, 1e3) if normalised else [1.0] * 3
        if resize is not None and not facts.says("resample"):
            raise CheckpointError(f"{facts.path}: no `resample`, the filter by which images are resized")
        return Preparation(
            resize=resize,
            crop=crop,
            resample=facts.integer("resample", 2, 0, 5),
            scale=facts.number("rescale_factor", 1 / 255, 0, 1e3) if facts.boolean("do_rescale", True) else 1.0,
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
        )

    def _side(self, said: Mapping[str, Any], key: str) -> int:
        """Of square images the shortest edge, the height and the width are the same."""
        given = said.get(key)
        sides = given if isinstance(given, dict) else {"side": given}
        sides = {name: side for name, side in sides.items() if side is not None}
        values = {side if type(side) is int and 1 <= side <= MAX_SIDE else None for side in sides.values()}
        if len(values) != 1 or None in values or not set(sides) <= {"side", "height", "width", "shortest_edge"}:
            raise CheckpointError(f"{self.name}: {PREPROCESSOR}: {key} is {given!r:.60}; expected one side of a square")
        return next(side for side in values if side is not None)

    def fingerprint(self) -> str:
        """Returns the sha256 of the file of weights; of several, of the first and last by the sum of all."""
        return hash_of_file(self._files[0]) if len(self._files) == 1 else _hash_of_files(self._files)

    def facts(self) -> dict[str, Any]:
        """Returns the kind of model, what of its output is taken, and how images are prepared."""
        return {"model": self.model_type, "pooled": self.tower.pooled, "images": self.preparation.facts()}

    def features(self, images: np.ndarray, indices: Sequence[int] | None = None) -> Tensor:
        """Returns the class token after the last norm, or the mean of the patches."""
        size = self._setting.batch_size
        parts = [self._run(images[start : start + size]) for start in range(0, len(images), size)]
        return finite(torch.cat(parts), self.name, self._setting.option)

    def _run(self, images: np.ndarray) -> Tensor:
        x = self.preparation(images).to(self._setting.device)
        more = {}
        if self.model_type == "vit_mae":
            # The order in which patches would be masked, of which none is: that of the image.
            patch = int(self._network.config.patch_size)
            more["noise"] = torch.arange((x.shape[-1] // patch) ** 2, device=x.device).float().expand(len(x), -1)
        try:
            with torch.inference_mode():
                found = self._network(pixel_values=x, **more)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise DataError(
                f"`{self._setting.option}={self.name}`: fails on images {list(x.shape)}, as its {PREPROCESSOR} makes "
                f"them ({reason}); copy both files from the same model"
            ) from None
        if self.tower.pooled == PATCHES:
            z: Tensor = found.last_hidden_state.mean(1)
        elif self.model_type == "clip_vision_model":
            z = found.pooler_output  # the class token; what comes before it is not normalised
        else:
            z = found.last_hidden_state[:, 0]
        return z.float().cpu()


def _hash_of_files(files: Sequence[str]) -> str:
    import hashlib

    return hashlib.sha256("\n".join(hash_of_file(file) for file in files).encode()).hexdigest()
