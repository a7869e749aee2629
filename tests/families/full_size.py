"""Outlines of published text-to-image networks in full size: their configs, and files whose weights are holes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import torch

from diffscope.formats import TENSOR_DTYPES

SD15 = {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    "_class_name": "UNet2DConditionModel", "sample_size": 128, "cross_attention_dim": 2048,
    "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
SD35_MEDIUM = {
    "_class_name": "SD3Transformer2DModel", "sample_size": 128, "num_layers": 24, "num_attention_heads": 24,
    "caption_projection_dim": 1536, "pos_embed_max_size": 384, "qk_norm": "rms_norm",
    "dual_attention_layers": list(range(13)),
}  # fmt: skip
FLUX = {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True}
NETWORKS: dict[str, tuple[dict[str, Any], str, int]] = {
    "SD 1.5": (SD15, "float32", 859_520_964),
    "SDXL": (SDXL, "float16", 2_567_463_684),
    "SD 3.5 medium": (SD35_MEDIUM, "bfloat16", 2_243_171_520),
    "FLUX.1 dev": (FLUX, "bfloat16", 11_901_408_320),
}
"""Config, type of the published weights, parameters (the table of positions of SD3 is none)."""
BETAS = {
    "_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "num_train_timesteps": 1000, "prediction_type": "epsilon",
}  # fmt: skip


def outline(folder: Path, config: dict[str, Any], dtype: str, shards: int = 1) -> Path:
    """A network's folder with files of the right size that take no room on disk."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    arguments = {key: value for key, value in config.items() if key != "_class_name"}
    with torch.device("meta"):
        network = getattr(diffusers, config["_class_name"])(**arguments)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    names = list(shapes)
    table: dict[str, str] = {}
    for number in range(shards):
        part = names[len(names) * number // shards : len(names) * (number + 1) // shards]
        file = "diffusion_pytorch_model.safetensors"
        file = file if shards == 1 else f"diffusion_pytorch_model-{number + 1:05}-of-{shards:05}.safetensors"
        _holes(folder / file, {name: shapes[name] for name in part}, dtype)
        table |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    if config["_class_name"] == "UNet2DConditionModel":
        (folder / "scheduler_config.json").write_text(json.dumps(BETAS))
    return folder


def _holes(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape) * getattr(torch, dtype).itemsize
        header[name] = {"dtype": TENSOR_DTYPES[dtype], "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
