"""Small vision models of the transformers library with random weights, as folders that the library itself wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
MARKS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
KINDS = {
    "vit": "ViTForImageClassification",
    "vit_mae": "ViTMAEForPreTraining",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "clip": "CLIPModel",
    "clip_vision_model": "CLIPVisionModel",
    "ijepa": "IJepaModel",
}
"""`model_type` → the class that is saved: some hold more than the tower."""


def write_folder(folder: Path, kind: str, **more: Any) -> Path:
    """config.json, preprocessor_config.json and model.safetensors."""
    import torch
    import transformers

    model: Any = getattr(transformers, KINDS[kind])
    said: dict[str, Any] = {**SMALL, **more}
    if kind == "clip":
        said = {"vision_config": said, "text_config": TEXT | MARKS}
    if kind == "vit_mae":
        said |= {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model(model.config_class(**said)).eval()
        for parameter in made.parameters():  # zeros at the start would hide a weight in the wrong place
            parameter.data = torch.randn_like(parameter) * 0.3
    made.save_pretrained(folder)
    clip = kind.startswith("clip")
    name = "CLIPImageProcessor" if clip else "BitImageProcessor" if "dino" in kind else "ViTImageProcessor"
    size: dict[str, Any] = {"height": 16, "width": 16}
    own: dict[str, Any] = {"size": size, "resample": 2}
    if name != "ViTImageProcessor":
        own = {"size": {"shortest_edge": 18}, "crop_size": size, "resample": 3, "do_center_crop": True}
    getattr(transformers, name)(**own).save_pretrained(folder)
    return folder


def change(folder: Path, file: str, **said: Any) -> None:
    """Other facts in one of its JSON files; None takes one out."""
    path = folder / file
    found = json.loads(path.read_text()) | said
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
