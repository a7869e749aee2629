"""Text-to-image folders as users have them: prompts and where they come from, what is refused, the command line."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import diffscope, refused, write_pictures
from full_size import NETWORKS, outline
from pipeline_folders import (
    PIPELINES,
    WEIGHTS,
    bare,
    built,
    change,
    copied,
    embeddings,
    golden,
    skip_what_is_newer,
    stored,
)
from safetensors.torch import load_file, save_file

from diffscope.checkpoints import read
from diffscope.errors import CheckpointError, UsageError
from diffscope.families import _prompts

QUICK = ("--augment", "none", "--views", "4", "--reduce")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("DIFFSCOPE_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 48)


def test_the_command_line_from_end_to_end(pictures: Path) -> None:
    argv = (PIPELINES / "sd", "--data", pictures, *QUICK, "--layer", "mid", "--layer", "up_blocks.1", "--json")
    ran = diffscope("sweep", *argv, "--sigma", 0.3, "--sigma", 3)
    assert ran.code == 0, ran.err
    result = ran.json
    assert result["protocol"]["conditions"]["prompt"] == ""
    assert len(result["protocol"]["conditions"]["text_sha256"]) == 64
    assert [(row["layer"], row["icr"] is not None) for row in result["rows"]] == [
        ("mid_block", True), ("mid_block", True), ("up_blocks.1", True), ("up_blocks.1", True),
    ]  # fmt: skip
    other = diffscope("icr", *argv, "--sigma", 0.3, "--prompt", "a cat")
    assert other.code == 0, other.err
    said = other.json["protocol"]["conditions"]
    assert said["prompt"] == "a cat"
    assert said["text_sha256"] != result["protocol"]["conditions"]["text_sha256"]
    assert other.json["rows"][0]["icr"] != result["rows"][0]["icr"]


def test_inspect_marks_layers_and_counts_the_cost() -> None:
    ran = diffscope("inspect", PIPELINES / "sd", "--json")
    assert ran.code == 0, ran.err
    cited = {layer["name"]: layer["cited"] for layer in ran.json["layers"] if "cited" in layer}
    assert list(cited) == ["up_blocks.1"]
    assert "https://arxiv.org/abs/2306.03881" in cited["up_blocks.1"]
    larger = diffscope("inspect", PIPELINES / "sd", "--image-size", 128, "--json")
    assert larger.json["gflops"] > 3 * ran.json["gflops"]
    assert larger.json["input"]["image_side"] == 128
    text = diffscope("inspect", PIPELINES / "sd").out
    assert "GFLOPs an image" in text
    assert "* up_blocks.1: DIFT" in text


def test_two_steps_of_a_run(tmp_path: Path, pictures: Path) -> None:
    """A fine-tune's folders, as the library's training scripts leave them, beside the base's text and image encoder."""
    for step in (100, 200):
        folder = bare("sd", tmp_path / "run" / f"checkpoint-{step}" / "unet")
        weights = load_file(folder / WEIGHTS)
        weights["conv_in.weight"] = weights["conv_in.weight"] * (step / 100)
        save_file(weights, folder / WEIGHTS)
    base = PIPELINES / "sd"
    ran = diffscope(
        "track", tmp_path / "run", "--data", pictures, *QUICK, "--sigma", 0.5, "--vae", base / "vae", "--json",
        "--prompt-from", base,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [row["step"] for row in ran.json["checkpoints"]] == [100, 200]
    assert ran.json["protocol"]["conditions"]["prompt"] == ""


def test_embeddings_from_a_file_and_from_a_pipeline_agree(tmp_path: Path) -> None:
    folder = bare("sd", tmp_path / "unet")
    model = built(folder)
    with pytest.raises(CheckpointError, match="no text encoder lies beside it: say with `prompt_from=`"):
        model.use_text(None, None)
    model.use_text(None, str(PIPELINES / "sd"))
    own = model.told["encoder_hidden_states"]
    model.use_text(None, str(embeddings("sd", tmp_path / "text.safetensors")))
    torch.testing.assert_close(model.told["encoder_hidden_states"], own, rtol=0, atol=1e-5)
    assert model.conditions["prompt"] is None
    with pytest.raises(UsageError, match="which holds embeddings: give one of them"):
        model.use_text("a cat", str(tmp_path / "text.safetensors"))
    for name, absent in (("sdxl", "text_embeds"), ("sd3", "pooled_projections")):
        with pytest.raises(CheckpointError, match=f"no {absent} in it; expected encoder_hidden_states"):
            built(PIPELINES / name).use_text(None, str(tmp_path / "text.safetensors"))
    with pytest.raises(CheckpointError, match="a CLIPTextModel; expected T5EncoderModel"):
        built(bare("pixart", tmp_path / "pixart")).use_text(None, str(PIPELINES / "sd"))
    with pytest.raises(CheckpointError, match=r"no model_index\.json in it"):
        model.use_text(None, str(tmp_path))


def test_embeddings_are_cached_and_proved(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(PIPELINES / "sd")
    model.use_text("a", None)
    told = dict(model.told)
    monkeypatch.setattr(_prompts.TextEncoder, "run", lambda *_: pytest.fail("the encoder was run again"))
    model.use_text("a", None)
    assert all(torch.equal(model.told[name], value) for name, value in told.items())
    listed = diffscope("cache", "ls", "--json").json
    assert "prompt embeddings" in {entry["kind"] for entry in listed["rows"]}
    for file in cache.glob("prompts-*/embeddings.safetensors"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(bytes(data))
    monkeypatch.undo()
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(cache))
    model.use_text("a", None)  # made again: its sha256 does not fit
    assert all(torch.equal(model.told[name], value) for name, value in told.items())


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "pixart"])
def test_a_text_is_what_the_library_s_pipeline_makes_of_it(name: str) -> None:
    """Of the library's own pipeline, in float32; PixArt's has rows of padding that no block sees."""
    import diffusers
    import transformers

    if name in ("sd3", "flux", "pixart") and int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("the goldens' T5 tokenizers were written by transformers 5")
    index = json.loads((PIPELINES / name / "model_index.json").read_text())
    library: Any = getattr(diffusers, index["_class_name"])
    pipeline = library.from_pretrained(PIPELINES / name, local_files_only=True).to(torch.float32)
    text = "cat a b"
    with torch.inference_mode():
        if name == "pixart":
            states, mask, *_ = pipeline.encode_prompt(text, do_classifier_free_guidance=False, clean_caption=False)
            expected = {"encoder_hidden_states": states, "encoder_attention_mask": mask.float()}
        elif name == "sd":
            states, _ = pipeline.encode_prompt(text, "cpu", 1, False)
            expected = {"encoder_hidden_states": states}
        elif name == "sdxl":
            states, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
            expected = {"encoder_hidden_states": states, "text_embeds": pooled}
        elif name == "sd3":
            states, _, pooled, _ = pipeline.encode_prompt(text, text, text, do_classifier_free_guidance=False)
            expected = {"encoder_hidden_states": states, "pooled_projections": pooled}
        else:
            states, pooled, _ = pipeline.encode_prompt(text, text, max_sequence_length=512)
            expected = {"encoder_hidden_states": states, "pooled_projections": pooled}
    model = built(PIPELINES / name, **({"sample_size": "8"} if name == "flux" else {}))
    model.use_text(text, None)
    assert model.told.keys() == expected.keys()
    for key, value in expected.items():
        found = model.told[key]
        if name == "pixart" and key == "encoder_hidden_states":
            rows = int(expected["encoder_attention_mask"].sum())
            found, value = found[:, :rows], value[:, :rows]
        assert float((found - value).abs().max()) <= 1e-4 * float(value.abs().max()), key


def test_a_long_text_is_refused_and_sana_s_has_an_instruction() -> None:
    with pytest.raises(UsageError, match="reads 77: shorten it"):
        built(PIPELINES / "sd").use_text("cat " * 90, None)
    skip_what_is_newer("sana")
    with pytest.raises(UsageError, match="a long instruction"):
        built(PIPELINES / "sana").use_text("cat", None)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is needed for text encoders alone: SDXL's zeros and embeddings from a file do without."""
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path / "empty"))
    original = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
        return original(name, *arguments)

    for name in [name for name in sys.modules if name == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    built(PIPELINES / "sdxl").use_text(None, None)
    with pytest.raises(CheckpointError, match=r"pip install 'diffscope\[text\]'"):
        built(PIPELINES / "sd").use_text(None, None)


def test_weights_stay_in_their_file() -> None:
    """Half the bytes of float32, and mapped: nothing is copied."""
    found = read(str(PIPELINES / "sdxl"))
    first, again = (found.tensors["conv_in.weight"] for _ in range(2))
    assert first.dtype == torch.float16
    assert first.data_ptr() == again.data_ptr()
    module = stored(built(PIPELINES / "sdxl")).module
    assert sum(p.nbytes for p in module.parameters()) <= (PIPELINES / "sdxl" / "unet" / WEIGHTS).stat().st_size


@pytest.mark.parametrize("name", NETWORKS)
def test_full_size_outlines(name: str, tmp_path: Path) -> None:
    skip_what_is_newer(name)
    config, dtype, parameters = NETWORKS[name]
    folder = outline(tmp_path / "network", config, dtype, shards=3 if "FLUX" in name else 1)
    ran = diffscope("inspect", folder, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["parameters"] == parameters
    halves = {"SD 1.5": "mid_block", "SDXL": "mid_block", "SD 3.5 medium": "transformer_blocks.11"}
    assert ran.json["default_layer"] == halves.get(name, "single_transformer_blocks.8")
    expected = {"SD 1.5": 803, "SDXL": 6761, "SD 3.5 medium": 11250, "FLUX.1 dev": 74385}
    assert ran.json["gflops"] == pytest.approx(expected[name], rel=1e-3)


def unet(**said: Any) -> Callable[[Path], object]:
    return lambda folder: change(folder / "unet" / "config.json", **said)


REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "inpainting": ("sd", unet(in_channels=9), "a mask and the image under it, as inpainting networks"),
    "edit": ("sd", unet(in_channels=8), "another image, as edit networks"),
    "lcm": ("sd", unet(time_cond_proj_dim=256), "a latent consistency model (LCM)"),
    "added": ("sd", unet(addition_embed_type="image"), "addition_embed_type is 'image'; expected null or 'text_time'"),
    "hidden": ("sd", unet(encoder_hid_dim_type="image_proj"), "encoder_hid_dim_type is 'image_proj'; expected null"),
    "unclip": ("sd", unet(class_embed_type="projection"), "class_embed_type is 'projection'; expected null"),
    "classes": ("sd", unet(num_class_embeds=10), "num_class_embeds is 10; expected none"),
    "quantised": ("sd", unet(quantization_config={"bits": 4}), "quantised weights"),
    "refiner": (
        "sdxl", unet(projection_class_embeddings_input_dim=80, cross_attention_dim=40), "as SDXL's refiner",
    ),
    "pipeline": (
        "flux", lambda f: change(f / "model_index.json", _class_name="FluxKontextPipeline"), "a FluxKontextPipeline,",
    ),
    "flow": (
        "sd", lambda f: change(f / "scheduler" / "scheduler_config.json", _class_name="FlowMatchHeunDiscreteScheduler"),
        "one of flow matching; expected betas",
    ),
    "betas": (
        "sana", lambda f: change(f / "scheduler" / "scheduler_config.json", use_flow_sigmas=False),
        "without flow sigmas",
    ),
    "lcm scheduler": (
        "sd", lambda f: change(f / "scheduler" / "scheduler_config.json", _class_name="LCMScheduler"),
        "the scheduler (LCMScheduler) is not supported",
    ),
    "vae": ("sd", lambda f: change(f / "vae" / "config.json", _class_name="AutoencoderTiny"), "is a AutoencoderTiny"),
    "latents": ("sd", lambda f: change(f / "vae" / "config.json", latents_mean=[0.1]), "with latents_mean is not supp"),
    "no number": ("sd", unet(in_channels=[9]), "in_channels is [9]; expected a whole number"),
    "no blocks": ("sd", lambda f: change(f / "vae" / "config.json", block_out_channels=4), "a list of 1 to 12"),
    "width": ("sd", unet(cross_attention_dim="x"), "cross_attention_dim is 'x'; expected one whole number"),
    "controlnet": ("sd", unet(_class_name="ControlNetModel"), "give the network that it controls"),
    "odd side": ("flux", lambda f: change(f / "transformer" / "config.json", sample_size=9), "a multiple of 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_told_of_more_is_refused_with_the_reason(what: str, tmp_path: Path) -> None:
    name, spoil, words = REFUSED[what]
    skip_what_is_newer(name)
    folder = copied(name, tmp_path / "model")
    spoil(folder)
    refused(diffscope("inspect", folder), 1, words)


def test_what_is_missing_is_one_line(tmp_path: Path, pictures: Path) -> None:
    folder = copied("sd", tmp_path / "model")
    shutil.rmtree(folder / "text_encoder")
    argv = ("--data", pictures, *QUICK, "--sigma", 0.5)
    refused(diffscope("icr", folder, *argv), 1, "no text encoder in text_encoder/")
    lone = bare("sd", tmp_path / "unet")
    (lone / "scheduler_config.json").unlink()
    refused(diffscope("inspect", lone), 1, "no scheduler_config.json", "beta_schedule, beta_start, beta_end")
    said = ("beta_schedule=scaled_linear", "beta_start=0.00085", "beta_end=0.012", "prediction_type=epsilon")
    ran = diffscope("inspect", lone, "--json", *(part for fact in said for part in ("--config", fact)))
    assert ran.json["noise"]["sigma_max"] == pytest.approx(14.61465, rel=1e-5)
    model = built(bare("sd", tmp_path / "alone"))
    with pytest.raises(CheckpointError, match="no image encoder says how latents are scaled"):
        model.scale_latents(torch.zeros(1), torch.zeros(1), None)
    refused(diffscope("icr", "toy:d=4,side=4", "--data", "synthetic:count=64", "--sigma", 0.5, "--prompt", "cat"), 2,
            "this model is not told of a text")  # fmt: skip
    refused(diffscope("inspect", "toy:d=4,side=4", "--image-size", 9), 2, "takes images of side 4 alone")


@pytest.mark.parametrize(
    ("file", "said", "words"),
    [
        ("text_encoder/config.json", {"num_attention_heads": 3}, "no network can be built"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected"),
        ("text_encoder/config.json", {"num_hidden_layers": 3}, "the weights do not fit CLIPTextModel"),
        ("text_encoder/config.json", {"architectures": ["BertModel"]}, "a BertModel; expected CLIPTextModel"),
        ("text_encoder/config.json", {"use_attention_mask": True}, "use_attention_mask is set"),
        ("tokenizer/vocab.json", {"<|endoftext|>": 99}, "its text encoders cannot be run"),
        ("tokenizer/vocab.json", {"<|endoftext|>": None}, "its vocabulary has no '<|endoftext|>'"),
    ],
)  # fmt: skip
def test_damaged_text_encoders_are_one_line(file: str, said: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = copied("sd", tmp_path / "model")
    change(folder / file, **said)
    with pytest.raises(CheckpointError, match=words.replace("|>", r"\|>").replace("<|", r"<\|")) as caught:
        built(folder).use_text(None, None)
    assert "\n" not in str(caught.value)


def test_loras_and_single_files_say_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    tensors = {"unet.down_blocks.0.attentions.0.to_q.lora.down.weight": torch.ones(4, 4)}
    save_file(tensors, folder / "pytorch_lora_weights.safetensors")
    refused(diffscope("inspect", folder), 1, "a LoRA", "merge it into its base")
    refused(diffscope("inspect", folder / "pytorch_lora_weights.safetensors"), 1, "a LoRA", "merge it into its base")
    single = tmp_path / "v1-5-pruned.safetensors"
    name = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({name: torch.ones(4, 4)}, single)
    refused(diffscope("inspect", single), 1, "in the layout of a single file", "save_pretrained")


def test_flux_is_told_of_another_guidance() -> None:
    model = built(PIPELINES / "flux", sample_size="8", guidance="1")
    model.use_text(None, None)
    assert model.conditions["guidance"] == [1.0]
    assert "told of 1" in model.warnings[0]
    x, level = golden("flux")["in/latents"], model.noise.check(0.7)
    with torch.inference_mode():
        other = dict(model.walk(x, level, None))[model.default_layer].mean(1)
    expected = torch.tensor(json.loads((PIPELINES / "flux.json").read_text())["features"]["0.7"][model.default_layer])
    assert float((other - expected).abs().max()) > 0.1
    with pytest.raises(UsageError, match="this family knows"):
        built(PIPELINES / "sd", guidance="2")
