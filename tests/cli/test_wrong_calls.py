"""What a newcomer types wrong: each is answered by one line that says what was found, what was expected, what to do.

A session in one folder: the command line, then the exit code and words of the line in their order. 2 is for what the
command line alone shows to be wrong, 1 for all that takes a look at files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import EDM, command_line, diffscope, refused, write_pictures
from safetensors.torch import save_file

from diffscope import registry

TOY = ("toy:d=4,side=4", "--data", "synthetic:count=64", "--augment", "none")

CHECKPOINTS = r"""
$ diffscope inspect nosuch.pkl
[1] nosuch.pkl: no such file ... .safetensors
$ diffscope inspect google/ddpm-cifar10-32
[1] no such file or folder ... say hf://google/ddpm-cifar10-32
$ diffscope inspect https://huggingface.co/google/ddpm-cifar10-32
[1] a page of the Hub ... as hf://google/ddpm-cifar10-32
$ diffscope inspect https://huggingface.co/nyu-visionx/SiT-collections/blob/main/SiT-S-2-256.pt?download=true
[1] a page of the Hub ... as hf://nyu-visionx/SiT-collections/SiT-S-2-256.pt
$ diffscope inspect https://civitai.com/models/1234
[1] a web address ... expected a path ... hf://OWNER ... download it first
$ diffscope inspect sit:b-2-512
[1] no published checkpoint of that name ... close: sit:b-2-256
$ diffscope inspect edm:cifar10-uncond-vp
[1] edm-cifar10-32x32-uncond-vp.pkl ... download it and give its path
$ diffscope inspect toy:d=4,sides=4
[2] 'sides' is not one of d, side
$ diffscope inspect result/result.json
[1] a result of diffscope ... a checkpoint was expected ... diffscope compare
$ diffscope sweep result/result.json --data images
[1] a result of diffscope ... diffscope compare
$ diffscope icr photo.png --data images --sigma 0.5
[1] a picture; pictures go to --data ... a checkpoint was expected
$ diffscope inspect model/config.json
[1] a JSON file ... give the folder
$ diffscope inspect mine.safetensors
[1] no family knows its 2 tensors (encoder.0.weight, ... supported: adm, diffusers, dit, edm ... diffscope.wrap(module
$ diffscope sweep mine.pt --data images
[1] no family knows its 2 tensors (encoder.0.weight, ... supported: adm, diffusers, dit, edm ... diffscope.wrap(module
$ diffscope inspect kohya.safetensors
[1] a LoRA, which only changes another network's weights ... merge it into its base ... and give that
$ diffscope inspect peft.safetensors
[1] a LoRA, which only changes another network's weights ... merge it into its base ... and give that
$ diffscope inspect video.safetensors
[1] a video network, which no family here is ... measure networks of single images
$ diffscope inspect svd
[1] UNetSpatioTemporalConditionModel, of a video model ... single images was expected ... supported: ... diffscope.wrap
$ diffscope inspect vae.safetensors
[1] a VAE alone ... give the network that works on its latents, and the VAE's folder with --vae
$ diffscope inspect model.onnx
[1] an ONNX file ... a checkpoint was expected ... save the weights as safetensors
$ diffscope inspect model.gguf
[1] a GGUF file; save the network's weights as safetensors; a checkpoint was expected
$ diffscope inspect images
[1] a folder without a network ... a checkpoint was expected ... images go to --data
$ diffscope inspect empty
[1] empty: a folder with nothing in it ... a checkpoint was expected
$ diffscope inspect last
[1] a folder with one checkpoint in it ... give the file: last/ckpt.pkl
$ diffscope sweep runs --data images
[1] runs: a folder of 2 checkpoints ... give one of them, such as runs/ ... diffscope track runs
$ diffscope icr runs --data images --sigma 0.3
[1] runs: a folder of 2 checkpoints ... give one of them, such as runs/ ... diffscope track runs
$ diffscope probe runs --data images
[1] runs: a folder of 2 checkpoints ... give one of them, such as runs/ ... diffscope track runs
$ diffscope bench runs --data images
[1] runs: a folder of 2 checkpoints ... give one of them, such as runs/ ... diffscope track runs
$ diffscope inspect runs
[1] runs: a folder of 2 checkpoints ... give one of them, such as runs/ ... diffscope track runs
$ diffscope convert runs out.safetensors
[1] runs: a folder of 2 checkpoints ... give one of them, such as runs/ ... diffscope track runs
$ diffscope sweep ckpt.pkl other.pkl --data images
[2] takes one CKPT; found other.pkl as well ... diffscope track ... diffscope compare
$ diffscope icr ckpt.pkl other.pkl --data images --sigma 0.3
[2] takes one CKPT; found other.pkl as well ... diffscope track ... diffscope compare
$ diffscope inspect ckpt.pkl other.pkl
[2] takes one CKPT; found other.pkl as well ... diffscope track ... diffscope compare
$ diffscope bench ckpt.pkl other.pkl
[2] takes one CKPT; found other.pkl as well ... diffscope track ... diffscope compare
$ diffscope track images --data images --sigma 0.3
[1] nothing of the kind in images ... a checkpoint was expected
$ diffscope track ckpt.pkl --data images --sigma 0.3
[1] at which training step ... such as --step-from 'ckpt-
$ diffscope inspect ckpt.pkl --weights swa
[2] --weights swa: expected ema or model
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --config num_heads
[2] num_heads: expected KEY=VALUE ... num_heads=6
$ diffscope demo ckpt.pkl
[2] demo takes no argument; found ckpt.pkl ... diffscope sweep ckpt.pkl --data
"""

IMAGES = r"""
$ diffscope icr ckpt.pkl --sigma 0.5 --data nosuch
[1] Nothing at 'nosuch' ... Expected a folder of images ... the spelling
$ diffscope icr ckpt.pkl --sigma 0.5 --data other.pkl
[1] 'other.pkl' (.pkl) ... before --data ... diffscope sweep CKPT --data
$ diffscope icr ckpt.pkl --sigma 0.5 --data photo.png
[1] a single picture ... a folder of images ... Give the folder
$ diffscope icr ckpt.pkl --sigma 0.5 --data result/result.json
[1] Cannot take images ... Put the images into
$ diffscope icr ckpt.pkl --sigma 0.5 --data empty
[1] No images in empty: nothing at all ... png ... Point --data
$ diffscope icr ckpt.pkl --sigma 0.5 --data texts
[1] No images in texts: 2 files, none of them png ... Point --data
$ diffscope icr ckpt.pkl --sigma 0.5 --data uoft-cs/cifar10
[1] no such file or folder ... say hf://datasets/uoft-cs/cifar10
$ diffscope icr ckpt.pkl --sigma 0.5 --data https://huggingface.co/datasets/uoft-cs/cifar10
[1] a page of the Hub ... hf://datasets/uoft-cs/cifar10
$ diffscope icr ckpt.pkl --sigma 0.5 --data https://example.com/a.zip
[1] a web address ... a path or a data set, hf://datasets/
$ diffscope sweep ckpt.pkl --data images/cat/0000.png images/cat/0002.png
[2] found images/cat/0002.png ... --data images/cat
$ diffscope probe ckpt.pkl --data flat --sigma 0.5
[1] flat has none ... class folders, a dataset.json ... y, arr_1 or labels
$ diffscope probe ckpt.pkl --data named.npz --sigma 0.5
[1] named.npz has none ... y, arr_1 or labels
$ diffscope neighbors ckpt.pkl --data images --sigma 0.5 --query 100000
[1] images 0 to 39 ... a name such as cat/0000.png
$ diffscope memorization ckpt.pkl
[2] Missing option '--data' ... for example: diffscope memorization ckpt.pkl --data
"""

OPTIONS = r"""
$ diffscope icr ckpt.pkl --data images
[2] icr needs a noise level ... --sigma S ... diffscope sweep
$ diffscope icr ckpt.pkl --data images --sigma 0
[2] --sigma 0: expected a noise-to-signal ratio above 0
$ diffscope icr ckpt.pkl --data images --sigma -1
[2] --sigma -1: expected a noise-to-signal ratio above 0
$ diffscope icr ckpt.pkl --data images --sigma nan
[2] --sigma nan: expected a noise-to-signal ratio above 0
$ diffscope icr ckpt.pkl --data images --sigma abc
[2] --sigma abc: expected ... number
$ diffscope icr ckpt.pkl --data images --sigma 0.3 --t 0.5
[2] --sigma and --t both ... expected one of the two
$ diffscope sweep ckpt.pkl --data images --num-levels 1
[2] --num-levels 1 ... expected 2 or more ... diffscope icr
$ diffscope sweep ckpt.pkl --data images --num-levels few
[2] --num-levels few: expected a whole number ... sweep --help
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --num-images 3
[1] 3 images; expected at least 8 ... raise --num-images
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --num-images 5k
[2] --num-images 5k: expected a number of images
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --views 1
[2] --views 1: ICR compares views ... at least 2 are needed
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --layer enc.8x8_blok1
[1] close: enc.8x8_block1 ... diffscope inspect
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --augment typo
[2] --augment typo ... none, crop, crop+flip
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --precision fp8
[2] --precision fp8: expected auto, fp32
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --device gpu
[2] --device gpu: did you mean cuda? ... ere there is cpu
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --family typo
[2] 'typo' ... edm, edm2 ... sit
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --class 3
[1] --class 3 ... not class-conditional ... leave --class out
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --fail-if icr>>0.3
[2] icr>>0.3 ... expected KEY OP NUMBER
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --fail-if isr>0.3
[2] no key 'isr', close: icr; one of alignment,
$ diffscope sweep ckpt.pkl --data images --shard 5/4 --out part
[2] --shard 5/4: expected I/N such as 1/4
$ diffscope track runs --data images --sigma 0.3 --step-from snapshot
[2] one group around the step ... 'step=(\d+)'
$ diffscope track runs --data images --sigma 0.3 --overlay epochs.csv
[1] no column 'step' ... epoch, fid ... rename
$ diffscope bench --fail-if icr>0.3
[2] no key 'icr' ... share
$ diffscope cache list
[2] cache list: expected dir, ls, prune
$ diffscope cache prune
[2] say what to remove ... --older-than 30d
$ diffscope demo --family dit
[2] --family dit: expected edm or sit
$ diffscope convert ckpt.pkl out
[2] out: expected a name that ends in .safetensors
$ diffscope convert ckpt.pkl out.pt
[2] out.pt: expected a name that ends in .safetensors
$ diffscope features ckpt.pkl --data images --sigma 0.5 -o f.npz
[2] f.npz: expected a name that ends in .safetensors
$ diffscope features ckpt.pkl --data images --sigma 0.5
[2] features needs a file ... --output FILE.safetensors
$ diffscope icr ckpt.pkl --data images --sigma 0.5 --json --out notes.txt
[1] --out notes.txt: a file of that name is there ... expected a folder
$ diffscope sweep ckpt.pkl --data images --out notes.txt
[1] --out notes.txt: a file of that name is there ... expected a folder
$ diffscope track runs --data images --sigma 0.5 --out notes.txt
[1] --out notes.txt: a file of that name is there ... expected a folder
$ diffscope neighbors ckpt.pkl --data images --sigma 0.5 --out notes.txt
[1] --out notes.txt: a file of that name is there ... expected a folder
$ diffscope probe ckpt.pkl --data images --out notes.txt
[1] --out notes.txt: a file of that name is there ... expected a folder
$ diffscope memorization ckpt.pkl --data images --out notes.txt
[1] --out notes.txt: a file of that name is there ... expected a folder
$ diffscope demo --out notes.txt
[1] --out notes.txt: a file of that name is there ... expected a folder
"""

RESULTS = r"""
$ diffscope compare result
[2] Missing argument 'NEW.json' ... for example: diffscope compare old/result.json new/
$ diffscope compare result result third
[2] 3 results: differences are of two ... --figure
$ diffscope compare ckpt.pkl other.pkl
[1] ckpt.pkl: not JSON ... expected a result.json ... --out DIR
$ diffscope compare result/result.csv result
[1] result.csv: not JSON ... expected a result.json
$ diffscope compare empty result
[1] empty/result.json: No such file ... expected a result.json ... --out DIR
$ diffscope merge result
[1] a finished result.json, which needs no merging ... expected a folder that --shard I/N
$ diffscope merge nosuch
[1] nosuch: no such folder ... expected a folder that --shard I/N
$ diffscope merge empty
[1] no shard.json in it ... expected a folder that --shard I/N
$ diffscope card
[2] Missing argument 'RESULT...' ... for example: diffscope card sweep/
$ diffscope card ckpt.pkl
[1] ckpt.pkl: not JSON ... expected a result.json ... --out DIR
$ diffscope card result other
[1] results of 2 checkpoints ... a card is of one model; make one for each
"""

COMMANDS = r"""
$ diffscope swep ckpt.pkl
[2] No such command 'swep'. Did you mean 'sweep'? ... diffscope --help
$ diffscope frobnicate
[2] No such command 'frobnicate'; there are bench, cache, ... sweep, track ... diffscope --help
$ diffscope ckpt.pkl
[2] No such command 'ckpt.pkl' ... diffscope inspect ckpt.pkl
$ diffscope -v
[2] No such option: -v ... diffscope --help
$ diffscope sweep ckpt.pkl --data images --sigmas 0.5
[2] No such option: --sigmas. Did you mean '--sigma'? ... sweep --help
$ diffscope inspect ckpt.pkl --data images
[2] No such option of inspect: --data ... for example: diffscope inspect
$ diffscope inspect
[2] Missing argument 'CKPT' ... for example: diffscope inspect network-snapshot
$ diffscope sweep ckpt.pkl
[2] Missing option '--data' ... for example: diffscope sweep ckpt.pkl --data images/
$ diffscope sweep ckpt.pkl --data
[2] '--data' requires an argument ... for example: diffscope sweep ckpt.pkl --data images/
$ diffscope convert ckpt.pkl
[2] Missing argument 'OUT.safetensors' ... for example: diffscope convert
$ diffscope merge
[2] Missing argument 'PARTS...' ... for example: diffscope merge shard-*/
$ diffscope network ckpt.pkl --data images
[2] Missing argument 'CKPT' ... for example: diffscope network check
$ diffscope network check ckpt.pkl --data images
[2] of which network? ... --network FILE.py:NAME
$ diffscope network check ckpt.pkl --network nosuch.py:Net --noise edm --image-size 16 --channels 3 --data images
[1] --network nosuch.py:Net: no file nosuch.py; expected FILE.py:NAME
$ diffscope sweep ckpt.pkl --preset nosuch.toml
[1] --preset nosuch.toml: No such file or directory; expected a TOML or JSON file
$ diffscope report
[2] Missing argument 'RESULT...' ... for example: diffscope report
$ diffscope report empty -o page.html
[1] empty/result.json: No such file or directory; expected a result.json
$ diffscope serve nosuch
[1] nosuch: no such folder; expected one that holds results
$ diffscope kinship ckpt.pkl
[2] Missing option '--data' ... for example: diffscope kinship
$ diffscope kinship ckpt.pkl --data images --sigma 1 --beside dinov2
[2] --beside dinov2: no encoder is spelled like that ... timm:NAME
$ diffscope models edm:cifar10-uncond-vp
[2] models takes no argument; found edm:cifar10-uncond-vp
$ diffscope sweep ckpt.pkl --data images --log csv:runs
[2] --log csv:runs: expected tensorboard:DIR, wandb
$ diffscope help windwo
[2] no topic 'windwo' in the manual ... did you mean window? (diffscope help window)
$ diffscope help window training
[2] help takes TOPIC ... found training
"""

CALL = re.compile(r"\$ diffscope (.+)\n\[(\d)\] (.+)\n")
CALLS = CALL.findall(CHECKPOINTS + IMAGES + OPTIONS + RESULTS + COMMANDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the newcomer has."""
    home = tmp_path_factory.mktemp("newcomer")
    write_pictures(home / "images", 40)
    for made in ("empty", "texts", "model", "last", "runs", "flat"):
        (home / made).mkdir()
    for copy in ("ckpt.pkl", "other.pkl", "last/ckpt.pkl", *(f"runs/network-snapshot-00{n}000.pkl" for n in (10, 20))):
        shutil.copy(EDM, home / copy)
    for picture in (home / "images" / "cat").iterdir():
        shutil.copy(picture, home / "flat")
    shutil.copy(home / "images" / "cat" / "0000.png", home / "photo.png")
    for text in ("notes.txt", "texts/a.txt", "texts/b.md"):
        (home / text).write_text("hello\n")
    (home / "model" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    (home / "epochs.csv").write_text("epoch,fid\n1,2\n")
    write_strangers(home)
    np.savez(home / "named.npz", x=np.zeros((40, 16, 16, 3), np.uint8), targets=np.zeros(40, np.int64))
    assert diffscope("icr", *TOY, "--sigma", 1, "--quiet", "--out", home / "result").code == 0
    assert diffscope("icr", "toy:d=5,side=4", *TOY[1:], "--sigma", 1, "--quiet", "--out", home / "other").code == 0
    return home


def write_strangers(home: Path) -> None:
    """Files that are no checkpoints of a family."""
    weight, unknown = torch.zeros(4, 4), {"encoder.0.weight": torch.zeros(4, 4), "head.bias": torch.zeros(4)}
    save_file(unknown, home / "mine.safetensors")
    torch.save({"state_dict": unknown}, home / "mine.pt")
    kohya = "lora_unet_down_blocks_0_attentions_0_proj_in"
    save_file({f"{kohya}.lora_down.weight": weight, f"{kohya}.alpha": torch.ones(1)}, home / "kohya.safetensors")
    save_file({"unet.mid_block.to_q.lora_A.weight": weight}, home / "peft.safetensors")
    save_file(
        {"model.diffusion_model.patch_embedding.weight": weight[..., None, None, None]}, home / "video.safetensors"
    )
    parts = ("encoder", "decoder")
    save_file({f"{part}.mid.attn_1.q.weight": weight.clone() for part in parts}, home / "vae.safetensors")
    (home / "model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x051.13.:" + bytes(400))
    (home / "model.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(400))
    (home / "svd" / "unet").mkdir(parents=True)
    (home / "svd" / "model_index.json").write_text('{"unet": ["diffusers", "UNetSpatioTemporalConditionModel"]}')
    (home / "svd" / "unet" / "config.json").write_text('{"_class_name": "UNetSpatioTemporalConditionModel"}')


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(("line", "code", "answer"), [pytest.param(*call, id=call[0]) for call in CALLS])
def test_a_wrong_call(line: str, code: str, answer: str) -> None:
    ran = diffscope(*shlex.split(line))
    words = answer.split(" ... ")
    refused(ran, int(code), *words)
    assert re.search(".*".join(map(re.escape, words)), ran.err), ran.err


def test_the_session_is_all_read_and_calls_every_command() -> None:
    assert len(CALLS) == sum(text.count("$") for text in (CHECKPOINTS, IMAGES, OPTIONS, RESULTS, COMMANDS))
    assert set(registry.members("diffscope.commands")) <= {line.split()[0] for line, *_ in CALLS}


def test_what_looks_wrong_and_is_not() -> None:
    # The folder of a result stands for the result in it.
    ran = diffscope("compare", "result", "result/result.json", "--json")
    assert (ran.code, ran.err, ran.json["rows"][0]["change"]) == (0, "", 0)
    # Alone, it says what it can do.
    ran = diffscope()
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: diffscope ")
    assert "sweep" in ran.out


def test_json_stays_json_beside_a_progress_bar() -> None:
    terminal, side = os.openpty()
    command = command_line("icr", *TOY, "--sigma", 1, "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=side, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(side)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert len(json.loads(out)["rows"]) == 1
    shown = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while piece := os.read(terminal, 100_000):
            shown += piece
    assert b"passes/s" in shown
    os.close(terminal)


def test_the_seed_leaves_synthetic_images_as_they_are() -> None:
    def image(data: str, seed: int) -> str:
        run = diffscope("icr", TOY[0], "--data", data, "--augment", "none", "--sigma", 1, "--seed", seed, "--json")
        return str(run.json["data"]["fingerprint"])

    drawn = image("synthetic:count=64", 0)
    assert image("synthetic:count=64", 1) == drawn
    assert image("synthetic:count=64,seed=1", 0) != drawn
    assert "synthetic: images have their own" in " ".join(diffscope("icr", "--help").out.split())
