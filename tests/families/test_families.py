"""Laws that hold for every family that the registry finds, and how a file finds its family."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from family_examples import DATA, EXAMPLES, Example, bare, built, weights
from torch import Tensor

from diffscope import families, registry
from diffscope.checkpoints import Checkpoint, read
from diffscope.errors import (
    CheckpointError,
    DiffscopeError,
    NoiseLevelError,
    UnknownFamily,
    UnknownLayer,
    UsageError,
    WeightsMismatch,
)
from diffscope.families._building import build_on_meta, load_weights
from diffscope.families._transformers import infer_shape
from diffscope.families.base import Denoiser, Match
from diffscope.families.networks.hooked import HookedNetwork
from diffscope.families.networks.stored import StoredNetwork
from diffscope.families.networks.transformer import DiffusionTransformer
from diffscope.families.networks.walk import WalkedNetwork
from diffscope.families.toy import ToyDenoiser

MEMBERS = registry.members("diffscope.families")
CPU = torch.device("cpu")


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Example:
    return EXAMPLES[request.param]


@pytest.fixture
def denoiser(example: Example) -> Denoiser:
    return built(next(name for name, e in EXAMPLES.items() if e is example))


def level(denoiser: Denoiser) -> float:
    return denoiser.noise.check(0.5)


def inputs(denoiser: Denoiser, count: int) -> tuple[Tensor, Tensor | None]:
    space = denoiser.space
    x = torch.randn(count, space.channels, space.side, space.side, generator=torch.Generator().manual_seed(0))
    return x, denoiser.label(None, CPU) if denoiser.classes.null else denoiser.label(torch.zeros(1).long(), CPU)


def test_every_family_has_an_example() -> None:
    assert {example.family for example in EXAMPLES.values()} == set(MEMBERS), "add a file of the new family above"


FOREIGN: dict[str, Callable[[], Checkpoint]] = {
    **{name: example.make for name, example in EXAMPLES.items()},
    "nothing": lambda: bare("x.pt", {}),
    "another network": lambda: bare("x.pt", {"conv1.weight": torch.ones(2, 2), "fc.bias": torch.ones(())}),
    "diffusers": lambda: bare("x.pt", {"transformer_blocks.0.attn1.to_q.weight": torch.ones(4, 4)}),
    "another family's metadata": lambda: bare("x.safetensors", {"a": torch.ones(1)}, metadata={"family": "other"}),
    "odd training arguments": lambda: bare("x.pt", {"a": torch.ones(1)}, training_args={"path_type": None}),
    "repa": lambda: read(str(DATA / "sit" / "repa_dump.pt")),
    "a toy of EDM's project": lambda: bare("x.pkl", {"layers.0.weight": torch.ones(2, 2)}, class_name="ToyModel"),
    "a fragment": lambda: bare("x.pt", {"enc.8x8_conv.weight": torch.ones(1), "map_layer0.weight": torch.ones(1)}),
}


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("foreign", FOREIGN)
def test_recognise_answers_for_every_file(name: str, foreign: str) -> None:
    match = registry.load("diffscope.families")[name].recognise(FOREIGN[foreign]())
    assert match is None or (isinstance(match, Match) and match.why)
    if foreign in EXAMPLES:
        assert (match is not None) == (name == EXAMPLES[foreign].family)


@pytest.mark.parametrize("foreign", [name for name in FOREIGN if name not in EXAMPLES])
def test_a_foreign_file_is_refused_in_one_line(foreign: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        families.load(FOREIGN[foreign]())
    assert "\n" not in str(caught.value)


def test_layers(denoiser: Denoiser) -> None:
    names = [layer.name for layer in denoiser.layers]
    assert names
    assert len(names) == len(set(names))
    assert denoiser.default_layer in names
    for layer in denoiser.layers:
        assert layer.width * layer.positions == np.prod(layer.shape)


def test_the_walk_yields_the_layers_in_order(denoiser: Denoiser) -> None:
    x, label = inputs(denoiser, 2)
    with torch.inference_mode():
        walked = [(name, tuple(a.shape[1:])) for name, a in denoiser.walk(x, level(denoiser), label)]
    assert walked == [(layer.name, layer.shape) for layer in denoiser.layers]


def test_what_follows_a_stop_is_never_computed(denoiser: Denoiser) -> None:
    if isinstance(denoiser.network, HookedNetwork):
        pytest.skip("a library's network must know in advance where to stop: tests/families/test_diffusers.py")
    x, label = inputs(denoiser, 1)
    executed: list[str] = []
    leaves = [(name, module) for name, module in denoiser.network.named_modules() if not list(module.children())]
    handles = [m.register_forward_hook(lambda *_, name=name: executed.append(name)) for name, m in leaves]
    try:
        with torch.inference_mode():
            until = {name: list(executed) for name, _a in denoiser.walk(x, level(denoiser), label)}
            whole = len(executed)
            for name in (denoiser.layers[0].name, denoiser.default_layer):
                executed.clear()
                for walked, _a in denoiser.walk(x, level(denoiser), label):
                    if walked == name:
                        break
                assert executed == until[name]
                if denoiser.family not in ("toy", "mixture"):  # which have no modules
                    assert 0 < len(executed) < whole
    finally:
        for handle in handles:
            handle.remove()


def test_a_walk_until_some_layers_has_these(denoiser: Denoiser) -> None:
    x, label = inputs(denoiser, 2)
    wanted = {denoiser.layers[0].name, denoiser.default_layer}
    with torch.inference_mode():
        whole = dict(denoiser.walk(x, level(denoiser), label))
        part = dict(denoiser.walk(x, level(denoiser), label, wanted))
    assert wanted <= set(part)
    assert all(torch.equal(value, whole[name]) for name, value in part.items())


def test_batches_of_one_seven_and_all_agree(denoiser: Denoiser) -> None:
    """4e-6 of each layer's largest value: other batch sizes sum in another order, which shows at 1.3e-6 in U-Nets."""
    x, label = inputs(denoiser, 14)
    with torch.inference_mode():
        whole = dict(denoiser.walk(x, level(denoiser), label))
        for size in (1, 7):
            pieces = [dict(denoiser.walk(part, level(denoiser), label)) for part in torch.split(x, size)]
            for name, value in whole.items():
                joined = torch.cat([piece[name] for piece in pieces])
                assert float((joined - value).abs().max()) <= 4e-6 * float(value.abs().max()), name


def test_walking_leaves_no_trace(denoiser: Denoiser) -> None:
    x, label = inputs(denoiser, 2)
    image, before = x.clone(), {k: v.clone() for k, v in denoiser.network.state_dict().items()}
    with torch.inference_mode():
        first = dict(denoiser.walk(x, level(denoiser), label))
        kept = {name: value.clone() for name, value in first.items()}
        second = dict(denoiser.walk(x, level(denoiser), label))
    assert torch.equal(x, image)
    after = denoiser.network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    for module in denoiser.network.modules():
        assert not module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p.requires_grad for p in denoiser.network.parameters())
    for name, value in kept.items():
        assert torch.equal(first[name], value), f"{name} was changed after it was yielded"
        assert torch.equal(second[name], value), f"{name} differs the second time"


def test_the_output_is_the_last_step_of_the_walk(denoiser: Denoiser) -> None:
    x, label = inputs(denoiser, 2)
    time = torch.full((1,), denoiser.noise.to_native(level(denoiser)))
    with torch.inference_mode():
        steps = list(denoiser.network.walk(x, time, label))
        assert torch.equal(denoiser.network(x, time, label), steps[-1][1])
    assert steps[-1][0] == "output"


def test_the_posterior_mean_has_the_shape_of_the_input(denoiser: Denoiser) -> None:
    x, label = inputs(denoiser, 3)
    with torch.inference_mode():
        mean = denoiser.denoise(x, torch.tensor([level(denoiser)]), label)
        rows = denoiser.denoise(x, torch.full((3,), level(denoiser)), label)
    assert mean.shape == x.shape
    torch.testing.assert_close(mean, rows, rtol=0, atol=4e-6 * float(mean.abs().max()))


def test_noise_levels_return(denoiser: Denoiser) -> None:
    noise = denoiser.noise
    asked = np.geomspace(max(noise.sigma_min, 1e-3), min(noise.sigma_max, 1e3), 40)
    for sigma in map(noise.check, asked[1:-1]):
        t = noise.to_native(sigma)
        # VP's t is 1 - u with u near 1e-6 at the lowest levels, which leaves ten digits.
        assert noise.to_sigma(t) == pytest.approx(sigma, rel=1e-9)
        assert noise.input_scale(sigma) > 0
        assert noise.nearest(sigma) == sigma
    assert noise.native


def test_noise_rises_one_way(denoiser: Denoiser) -> None:
    noise = denoiser.noise
    asked = np.geomspace(max(noise.sigma_min, 1e-3), min(noise.sigma_max, 1e3), 12)[1:-1]
    levels = list(dict.fromkeys(noise.check(s) for s in asked))  # where steps are few, two may have the same nearest
    steps = np.diff([noise.to_native(s) for s in levels])
    assert np.all(steps > 0) or np.all(steps < 0)


def test_levels_outside_the_range_are_refused(denoiser: Denoiser) -> None:
    noise = denoiser.noise
    outside = [0.0, -1.0, float("nan"), float("inf")]
    outside += [noise.sigma_min / 1.01] if noise.sigma_min else []
    outside += [noise.sigma_max * 1.01] if noise.sigma_max < float("inf") else []
    for sigma in outside:
        with pytest.raises(NoiseLevelError, match="outside this model's range"):
            noise.check(sigma)


def test_discrete_levels_are_the_nearest() -> None:
    noise = built("adm iddpm").noise
    assert noise.discrete
    used = noise.check(1.0)
    assert used != 1.0
    assert abs(used - 1.0) == min(abs(u - 1.0) for u in noise.u)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="expected 0 to 999"):
        noise.to_sigma(1000)


def test_a_wrong_key_of_config(example: Example) -> None:
    with pytest.raises(UsageError, match="no_such_key"):
        families.load(example.make(), config={**example.config, "no_such_key": "1"})


@pytest.mark.parametrize(
    ("name", "key"),
    [("toy", "d"), ("ddpm++ edm", "sigma_data"), ("ddpm++ edm", "channel_mult"), ("sit dump", "num_heads")],
)
def test_a_wrong_type_in_config(name: str, key: str) -> None:
    config = {**EXAMPLES[name].config, key: "many"}
    with pytest.raises(UsageError, match=f"`config={key}=many`: expected a "):
        families.load(EXAMPLES[name].make(), config=config)


@pytest.mark.parametrize(("name", "key"), [("ddpm++ edm", "precond"), ("sit dump", "path_type")])
def test_a_wrong_choice_in_config(name: str, key: str) -> None:
    with pytest.raises(UsageError, match=r"many(`?: expected| is not) one of"):
        families.load(EXAMPLES[name].make(), config={**EXAMPLES[name].config, key: "many"})


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_constructor_is_enough_to_build_it_again(name: str) -> None:
    """As the metadata of a safetensors file, which is how the demo's checkpoint is kept."""
    found, first = EXAMPLES[name].make(), built(name)
    if first.family in ("toy", "mixture"):
        pytest.skip("an analytic model is its spelling; it is in no file")
    if isinstance(first.network, StoredNetwork):
        pytest.skip("a pipeline is a folder, which is not converted: its text encoders are in other files")
    again = families.load(
        bare("again.safetensors", found.tensors,
             metadata={"family": first.family, "arguments": json.dumps(first.constructor)})
    )  # fmt: skip
    assert again.constructor == first.constructor
    assert again.network_class == first.network_class
    assert again.layers == first.layers
    assert again.noise.check(1.0) == first.noise.check(1.0)
    x, label = inputs(first, 1)
    with torch.inference_mode():
        pairs = zip(first.walk(x, level(first), label), again.walk(x, level(first), label), strict=True)
        assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)


SIT = "sit/sit_patch4"


def test_bare_transformer_weights_are_not_guessed() -> None:
    with pytest.raises(UnknownFamily, match="does not say what it is") as caught:
        families.load(bare("weights.pt", weights(SIT)), config={"num_heads": "4"})
    assert "`family=sit`" in str(caught.value)


def test_family_as_given_decides() -> None:
    model = families.load(bare("weights.pt", weights(SIT)), "sit", {"num_heads": "4"})
    assert (model.family, model.evidence.split(";")[0]) == ("sit", "`family=sit` was given")


@pytest.mark.parametrize(
    ("path", "certain"),
    [
        ("SiT-XL-2-256x256.pt", True),
        ("/data/SiT-XL-2-256.pt", True),
        ("my_SiT.safetensors", True),
        ("/data/SiT/weights.pt", False),
        ("website.pt", False),
        ("0400000.pt", False),
    ],
)
def test_the_file_name_decides(path: str, certain: bool) -> None:
    match = registry.load("diffscope.families")["sit"].recognise(bare(path, weights(SIT)))
    assert match is not None
    assert match.certain is certain


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"path_type": "Linear"}, True),
        ({"path_type": "GVP"}, True),
        ({"model": "DiT-XL/2", "num_classes": 1000}, None),
        ({"path_type": "linear", "encoder_depth": 8}, None),
    ],
)
def test_the_training_arguments_decide(arguments: Mapping[str, Any], found: bool | None) -> None:
    # The file's name says SiT in each case: the arguments know better.
    checkpoint = bare("SiT.pt", weights(SIT), training_args=arguments)
    match = registry.load("diffscope.families")["sit"].recognise(checkpoint)
    assert (None if match is None else match.certain) is found


def test_the_metadata_decides() -> None:
    said = {"family": "sit", "arguments": json.dumps({"num_heads": 4, "num_classes": 10, "path_type": "VP"})}
    model = families.load(bare("weights.safetensors", weights(SIT), metadata=said))
    assert model.network_class == "SiT(VP, velocity)"
    assert model.constructor["num_heads"] == 4
    assert (model.classes.count, model.classes.null) == (10, False)
    assert model.warnings == ()


def test_a_family_that_the_weights_are_not() -> None:
    with pytest.raises(UnknownFamily, match="are not those of family 'edm'"):
        families.load(bare("weights.pt", weights(SIT)), "edm")


def test_a_family_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="'sitt' is not one of adm, diffusers, dit, edm"):
        families.load(bare("weights.pt", weights(SIT)), "sitt")


def test_an_assumed_path_is_said() -> None:
    model = families.load(bare("weights.pt", weights(SIT)), "sit", {"num_heads": "4"})
    assert model.warnings == ("the path is assumed to be Linear (`config=path_type=GVP or VP`)",)


@pytest.mark.parametrize(
    ("path", "precond"),
    [
        ("baseline-cifar10-32x32-uncond-vp.pkl", "VPPrecond"),
        ("/data/baseline-cifar10-32x32-uncond-ve.pkl", "VEPrecond"),
        ("edm-cifar10-32x32-uncond-vp.pkl", "EDMPrecond"),
        ("edm-cifar10-32x32-uncond-ve.pkl", "EDMPrecond"),
        ("/home/baseline-runs/edm-cifar10-32x32-uncond-vp.pkl", "EDMPrecond"),
        ("weights.pt", "EDMPrecond"),
    ],
)
def test_the_file_name_hints_at_the_preconditioner(path: str, precond: str) -> None:
    """vp and ve name the architecture alone in `edm-…`, and the preconditioner as well in `baseline-…`."""
    model = families.load(bare(path, weights("edm/ddpmpp_cond_vp")))
    assert model.network_class == f"{precond}(SongUNet)"
    assert ("assumed" in model.evidence) == (precond == "EDMPrecond")


def test_the_file_s_own_preconditioner_comes_before_its_name() -> None:
    checkpoint = bare("baseline-x-vp.pkl", weights("edm/ncsnpp_uncond_ve"), class_name="VEPrecond")
    assert families.load(checkpoint).network_class == "VEPrecond(SongUNet)"


def test_conditional_edm_models_warn_of_the_null_label() -> None:
    assert "never trained on the null label" in built("ddpm++ vp").warnings[0]
    assert built("ncsn++ ve").warnings == ()


def test_adm_that_attends_below_64_channels_is_a_fork() -> None:
    tensors = weights("edm/adm_cond_iddpm")
    tensors["model.dec.4x4_in0.qkv.weight"] = torch.zeros(72, 24, 1, 1)
    with pytest.raises(CheckpointError, match="attends at 24 channels"):
        families.load(bare("x.pt", tensors))


SIZES = [  # reference/sit.md, section 2.1: depth, width, heads, parameters of /2 with learn_sigma
    ("S", 12, 384, 6, 32_963_360),
    ("B", 12, 768, 12, 130_512_416),
    ("L", 24, 1024, 16, 458_102_816),
    ("XL", 28, 1152, 16, 675_129_632),
]


@pytest.mark.parametrize(("size", "depth", "width", "heads", "parameters"), SIZES, ids=[s[0] for s in SIZES])
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_published_sizes_know_their_heads(
    size: str, depth: int, width: int, heads: int, parameters: int, patch: int
) -> None:
    """On the meta device, so that the largest costs nothing."""
    network = build_on_meta(lambda: DiffusionTransformer(32, patch, 4, 8, width, depth, heads, 1001), "x")
    tensors = network.state_dict()
    if patch == 2:
        assert sum(t.numel() for t in tensors.values()) == parameters
    model = families.load(bare(f"SiT-{size}-{patch}-256.pt", tensors))
    assert model.constructor["num_heads"] == heads
    assert (model.classes.count, model.classes.null) == (1000, True)
    assert model.layer("mid").name == f"blocks.{depth // 2 - 1}"
    assert model.layer("mid").shape == ((32 // patch) ** 2, width)
    assert (model.space.side, model.space.image_side) == (32, 256)
    shape = infer_shape("x", tensors)
    assert (shape["patch_size"], shape["out_channels"], shape["depth"]) == (patch, 8, depth)


def test_an_unpublished_size_asks_for_its_heads() -> None:
    with pytest.raises(CheckpointError, match="`config=num_heads=N`"):
        families.load(bare("my-SiT.pt", weights(SIT)))


@pytest.mark.parametrize("heads", ["3", "0"])
def test_heads_must_divide_the_width(heads: str) -> None:
    with pytest.raises(UsageError, match=r"the width 32 is not a multiple of it|from 1 to 32"):
        families.load(bare("my-SiT.pt", weights(SIT)), config={"num_heads": heads})


def test_qk_norm_says_the_heads() -> None:
    tensors = {k: v for k, v in weights("sit/repa_qk_norm").items() if not k.startswith("projectors.")}
    assert families.load(bare("my-SiT.pt", tensors)).constructor["num_heads"] == 3
    with pytest.raises(UsageError, match="num_heads=4` contradicts the q_norm weights, which say 3"):
        families.load(bare("my-SiT.pt", tensors), config={"num_heads": "4"})


@pytest.mark.parametrize("num_classes", ["8", "11", "1000"])
def test_a_class_table_that_does_not_fit(num_classes: str) -> None:
    with pytest.raises(CheckpointError, match="10 class rows"):
        families.load(bare("my-SiT.pt", weights(SIT)), config={"num_heads": "4", "num_classes": num_classes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.mlp.fc1.bias"), r"missing: blocks\.1\.mlp\.fc1\.bias"),
        (lambda t: t.update({"extra.weight": torch.ones(1)}), r"not expected: extra\.weight"),
        (
            lambda t: t.update({"blocks.0.attn.proj.bias": torch.ones(5)}),
            r"other shape: blocks\.0\.attn\.proj\.bias \[5\] instead of \[32\]",
        ),
    ],
    ids=["missing", "surplus", "misshapen"],
)
def test_weights_that_do_not_fit(change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    tensors = weights(SIT)
    change(tensors)
    with pytest.raises(WeightsMismatch, match=message):
        families.load(bare("my-SiT.pt", tensors), config={"num_heads": "4"})


def test_weights_are_given_all_or_none() -> None:
    tensors = weights(SIT)
    network = build_on_meta(lambda: DiffusionTransformer(**infer_shape("x", tensors), num_heads=4), "x")
    with pytest.raises(WeightsMismatch):
        load_weights(network, {k: v for k, v in tensors.items() if k != "pos_embed"}, "x.pt")
    assert all(parameter.device.type == "meta" for parameter in network.parameters())
    load_weights(network, tensors, "x.pt")
    assert all(torch.equal(network.state_dict()[k], v) for k, v in tensors.items())


def test_many_that_are_missing_are_counted() -> None:
    tensors = {k: v for k, v in weights(SIT).items() if not k.startswith("blocks.1.")}
    tensors["blocks.1.attn.qkv.bias"] = torch.ones(96)
    with pytest.raises(WeightsMismatch, match="and 4 more"):
        families.load(bare("my-SiT.pt", tensors), config={"num_heads": "4"})


def test_half_precision_weights_become_float32() -> None:
    halves = {k: v.half() for k, v in weights(SIT).items()}
    model = families.load(bare("my-SiT.pt", halves), config={"num_heads": "4"})
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("final_layer.linear.weight"),
        lambda t: t.pop("y_embedder.embedding_table.weight"),
        lambda t: t.update({"x_embedder.proj.weight": torch.ones(3)}),
        lambda t: t.update({"pos_embed": torch.ones(1, 15, 32)}),
        lambda t: t.update({"final_layer.linear.weight": torch.ones(48, 32)}),
        lambda t: t.update({"blocks.7.attn.proj.bias": torch.ones(32)}),
    ],
)
def test_a_damaged_transformer_is_refused_in_one_line(change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = weights(SIT)
    change(tensors)
    with pytest.raises(CheckpointError) as caught:
        families.load(bare("my-SiT.pt", tensors), config={"num_heads": "4"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", [r"map_layer0\.weight", r"enc\.8x8_", r"aux_conv", r"block0\.conv1", r"4x4_down"])
def test_a_damaged_unet_is_refused_in_one_line(pattern: str) -> None:
    tensors = {k: v for k, v in weights("edm/ddpmpp_cond_vp").items() if not re.search(pattern, k)}
    with pytest.raises(CheckpointError) as caught:
        families.load(bare("x.pt", tensors, class_name="EDMPrecond"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ddpm++ edm", "sit dump"])
@pytest.mark.parametrize("arguments", ["{", "[1]", '{"num_heads": 5, "label_dim": "x"}'])
def test_unreadable_metadata_is_refused(name: str, arguments: str) -> None:
    """A safetensors header is anybody's text: it gives a message, not a traceback."""
    found = EXAMPLES[name].make()
    said = {"family": EXAMPLES[name].family, "arguments": arguments}
    with pytest.raises(DiffscopeError):
        families.load(bare("x.safetensors", found.tensors, metadata=said))


def test_a_network_class_of_a_fork() -> None:
    checkpoint = bare("x.pkl", weights("edm/ddpmpp_cond_vp"), class_name="VPPrecond", network_class="MyUNet")
    with pytest.raises(CheckpointError, match="MyUNet is not one of SongUNet, DhariwalUNet"):
        families.load(checkpoint)


def test_layers_by_name() -> None:
    model = built("ddpm++ edm")
    names = [layer.name for layer in model.layers]
    assert model.layer("dec.8x8_in0").name == "dec.8x8_in0"
    assert model.layer("mid").name == model.default_layer == [n for n in names if n.startswith("enc.8x8")][-1]
    assert model.layer("8x8_in0").name == "dec.8x8_in0"
    with pytest.raises(UnknownLayer, match=r"'8x8_block0' is ambiguous; use enc\.8x8_block0 or dec\.8x8_block0"):
        model.layer("8x8_block0")
    with pytest.raises(UnknownLayer, match=r"no layer 'enc\.8x8_blok1'; close: enc\.8x8_block1,.*diffscope inspect"):
        model.layer("enc.8x8_blok1")
    with pytest.raises(UnknownLayer, match=r"no layer '€'; all layers"):
        model.layer("€")


def test_a_block_number_is_no_tail_of_two() -> None:
    """`1` is the tail of blocks.1 alone; blocks.11 does not end in `.1`."""
    network = build_on_meta(lambda: DiffusionTransformer(8, 2, 4, 8, 384, 12, 6, 11), "x")
    model = families.load(bare("SiT-S.pt", network.state_dict()))
    assert model.layer("1").name == "blocks.1"
    assert model.layer("final_layer").shape == (16, 32)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_the_toy_s_closed_form_against_direct_simulation(sigma: float) -> None:
    """Two noisy views of 40,000 images: the trace ratio scatters by less than 1 % (1/√N times √d), 3 % are allowed."""
    model = built("toy")
    assert isinstance(model, ToyDenoiser)
    generator = torch.Generator().manual_seed(0)
    count, side = 40_000, model.space.side
    deviations = torch.arange(1, side * side + 1).double().rsqrt().float().view(1, 1, side, side)
    data = deviations * torch.randn(count, 1, side, side, generator=generator)
    z = [
        next(iter(model.walk(data + sigma * torch.randn(data.shape, generator=generator), sigma, None)))[1].double()
        for _view in range(2)
    ]
    residual = torch.cov((z[0] - z[1]).T) / 2
    invariant = torch.cov(((z[0] + z[1]) / 2).T) - residual / 2
    icr = 1 / (1 + float(torch.linalg.solve(residual, invariant).trace()) / len(residual))
    assert model.closed_form_icr(sigma) == pytest.approx(icr, rel=0.03)


def test_the_toy_s_closed_form_has_the_right_ends() -> None:
    model = built("toy")
    assert isinstance(model, ToyDenoiser)
    assert model.closed_form_icr(1e-4) < 1e-6
    assert model.closed_form_icr(1e4) > 1 - 1e-6


@pytest.mark.parametrize("spelling", ["toy:d=0,side=4", "toy:d=17,side=4"])
def test_a_toy_that_cannot_be(spelling: str) -> None:
    with pytest.raises(UsageError, match=r"from 1 to side² = 16|expected a whole number from 1"):
        families.load(read(spelling))


def test_precision_casts_the_trunk_alone() -> None:
    example = EXAMPLES["ncsn++ ve"]
    network: WalkedNetwork = families.load(example.make(), config=example.config).network
    network.set_precision(torch.bfloat16)
    dtypes = {name.split(".")[0]: p.dtype for name, p in network.named_parameters()}
    assert dtypes == {
        "map_layer0": torch.float32, "map_layer1": torch.float32, "enc": torch.bfloat16, "dec": torch.bfloat16,
    }  # fmt: skip
    assert network.get_buffer("map_noise.freqs").dtype == torch.float32
