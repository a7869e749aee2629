"""Names under a wrapper's prefix are a family's own; what no family knows is answered by what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffscope import families
from diffscope.checkpoints import Checkpoint
from diffscope.errors import UnknownFamily

DATA = Path(__file__).parents[1] / "data"


def weights(path: str) -> dict[str, Tensor]:
    tensors = load_file(DATA / f"{path}.safetensors")
    return {key.removeprefix("sd/"): value for key, value in tensors.items() if key.startswith("sd/")}


def bare(path: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Checkpoint:
    return Checkpoint(path, "state-dict", tensors, "model", "the file holds one set", metadata=metadata or {})


@pytest.mark.parametrize("prefix", ["net.", "model.", "network.", "unet.", "diffusion_model.", "module.", "model.net."])
@pytest.mark.parametrize(
    ("path", "name", "config"),
    [
        ("edm/ddpmpp_cond_vp", "x.pt", {}),
        ("edm/edm2_cond", "x.pt", {"channels_per_head": "8"}),
        ("sit/sit_patch4", "SiT.pt", {"num_heads": "4"}),
        ("sit/dit", "DiT.pt", {"num_heads": "3"}),
    ],
)
def test_prefixes_are_taken_off(prefix: str, path: str, name: str, config: Mapping[str, str]) -> None:
    tensors = {key.removeprefix("model.").removeprefix("unet."): value for key, value in weights(path).items()}
    first = families.load(bare(name, tensors), config=config)
    again = families.load(bare(name, {prefix + key: value for key, value in tensors.items()}), config=config)
    assert (again.family, again.constructor, again.layers) == (first.family, first.constructor, first.layers)
    theirs = again.network.state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in first.network.state_dict().items())


def test_what_lies_outside_of_the_prefix_is_said() -> None:
    tensors = {"net." + key: value for key, value in weights("sit/sit_patch4").items()}
    model = families.load(bare("SiT.pt", {**tensors, "loss.scale": torch.ones(1)}), config={"num_heads": "4"})
    assert "1 tensors outside of 'net.' left out" in model.evidence


@pytest.mark.parametrize("average", ["ema.", "net_ema."])
def test_an_average_beside_the_weights_is_not_left_out_in_silence(average: str) -> None:
    tensors = weights("sit/sit_patch4")
    both = {prefix + key: value for prefix in ("net.", average) for key, value in tensors.items()}
    with pytest.raises(UnknownFamily, match=f"weights under '{average}' beside .* save the one to be measured alone"):
        families.load(bare("SiT.pt", both), config={"num_heads": "4"})
    alone = {average + key: value for key, value in tensors.items()}
    with pytest.raises(UnknownFamily, match="no family knows"):
        families.load(bare("SiT.pt", alone), config={"num_heads": "4"})


def test_the_metadata_s_family_takes_prefixes_off_too() -> None:
    tensors = {"net." + key: value for key, value in weights("sit/sit_patch4").items()}
    model = families.load(bare("x.safetensors", tensors, {"family": "sit"}), config={"num_heads": "4"})
    assert (model.family, model.evidence.split(";")[0]) == ("sit", "the file's metadata names the family")


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["unet.down.0.lora_A.weight"], "a LoRA.* merge it into its base"),
        (["lora_unet_down_blocks_0.lora_down.weight", "lora_unet_down_blocks_0.alpha"], "a LoRA"),
        (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"], "a ControlNet"),
        (["down_blocks.0.motion_modules.0.proj_in.weight"], "a video network"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder"),
        (["encoder.conv_in.weight", "decoder.mid_block.resnets.0.conv1.weight"], "a VAE alone.*`vae=`"),
        (
            ["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
             "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
             "first_stage_model.quant_conv.weight"],
            "told of a text, in the layout of a single file.*save_pretrained",
        ),
        (["model.diffusion_model.input_blocks.1.0.in_layers.0.weight"], "a latent diffusion network as CompVis"),
        (["out.2.positional_embedding", "input_blocks.0.0.weight"], "a classifier of noisy images"),
        (["down_blocks.0.resnets.0.conv1.weight"], "give the folder with both"),
        (
            ["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", "conv_in.weight"],
            "give the folder with both",
        ),
        (["layer1.0.conv1.weight"], r"no family knows its 1 tensors.*diffscope\.wrap\(module"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_answered_by_what_to_do(names: list[str], answer: str) -> None:
    with pytest.raises(UnknownFamily, match=answer) as caught:
        families.load(bare("x.safetensors", {name: torch.ones(2, 2) for name in names}))
    assert "\n" not in str(caught.value)


def test_kernels_over_time_are_a_video_network_s() -> None:
    with pytest.raises(UnknownFamily, match="a video network"):
        families.load(bare("x.pt", {"conv.weight": torch.ones(1, 1, 3, 3, 3)}))
