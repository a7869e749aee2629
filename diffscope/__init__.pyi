"""The public functions, as scripts/stubs.py writes them from the commands' declarations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffscope.api import load as load
from diffscope.api import read_result as read_result
from diffscope.families import wrap as wrap
from diffscope.families.base import Denoiser
from diffscope.results import Record, Result
from diffscope.studies.track.monitor import Monitor as Monitor

__version__: str

def bench(
    checkpoint: str | Path | Denoiser | None = None,
    *,
    layer: str | Sequence[str] = 'mid',
    sigma: float | Sequence[float] = (),
    t: float | Sequence[float] = (),
    num_levels: int | None = None,
    input: str = 'noisy',
    pool: str = 'mean',
    normalize: bool = False,
    class_label: str = 'null',
    num_images: int | str | None = None,
    labels: str | Path | None = None,
    augment: str = 'crop+flip+jitter',
    augment_strength: float = 1.0,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    views: int = 2,
    reduce: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_memory: int | str | None = None,
    compile: bool = False,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    preset: str | Path | None = None,
) -> Record:
    """How fast is a sweep on this machine, what holds it up, and what share of the machine's limit does it reach?

    Takes the options of sweep, with the same meanings; measures each stage in 10 to 60 seconds together, and estimates
    the time of the whole. --fail-if knows share (of the machine's limit), share_outside (of a sweep's time, outside the
    network), gain (of the best batch size), passes_per_second, flops_per_second and seconds.

    Args:
        checkpoint: Checkpoint, as for sweep.
        layer: Layer by its name, mid, or all, or a list of them.
        sigma: Noise level as noise-to-signal ratio, or a list of them.
        t: Noise level in the model's own variable, or a list of them.
        num_levels: Noise levels, log-spaced over [0.002, 20], cut to the model's range.
        input: noisy, or clean: no noise, but the conditioning of the noise level.
        pool: mean over positions, or flatten.
        normalize: Scale each feature vector to length 1.
        class_label: Class given to the model: null, label (the image's own) or an index.
        num_images: Images, a seeded subset.
        labels: Classes of the images: a CSV with the columns file and class.
        augment: none, crop, crop+flip, crop+flip+jitter, crop+flip+jitter+rotate or crop+flip+jitter+rotate+center.
        augment_strength: Multiplies all ranges of the augmentation.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image is an error, not a counted skip.
        views: Views of each image.
        reduce: Project channels that depend linearly on others away; else they are refused.
        seed: Seed of subset, views and noise; synthetic: images have their own, seed=S.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Images per batch; in float32 figures keep six digits, for a network may round by it. Halved
            where the device runs out of memory.
        workers: Threads that decode images ahead.
        max_memory: For the moments, such as 8GB; more are measured in portions.
        compile: On CUDA, compile the network's blocks first; pays on long runs.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        data: Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or
            latents_rank*.safetensors), .parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S.
        out: Write result.json, result.csv, figures and report.html there.
        preset: A TOML file of options, of this command and of others; those that are given come before it.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def card(
    results: str | Path | Result | Sequence[str | Path | Result],
    *,
    name: str | None = None,
    preset: str | Path | None = None,
) -> Record:
    """Results as a section of a model's card: Markdown, with metadata that the Hugging Face Hub reads.

    It goes to stdout; nothing is uploaded.

    Args:
        results: Results of one model: result.json, or the folders that `out` wrote.
        name: Of the model, in the metadata.
        preset: A TOML file of options, of this command and of others; those that are given come before it.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def compare(
    old: str | Path | Result,
    new: str | Path | Result,
    more: Sequence[str | Path | Result] = (),
    *,
    figure: bool = False,
    out: str | Path | None = None,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    step_scale: str = 'linear',
    preset: str | Path | None = None,
) -> Record:
    """The paired difference of two results, row by row, with its interval; refused where their protocols disagree.

    Of many rows some differ by chance: a row is called lower or higher, and --fail-if "change>2%" holds, where its p
    is below .05 corrected for the number of rows (Holm). Beside it stands p of the row alone.

    With --figure any number of results are drawn together instead.

    Args:
        old: An earlier result.json.
        new: A later one of the same protocol.
        more: Further ones, with `figure`.
        figure: No test: the ICR of all of them in one figure (in `out`), sweeps over noise or tracked runs over
            their steps; they may differ in their protocols, which is then said.
        out: Write result.json, result.csv, figures and report.html there.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        step_scale: Of the axis of training steps.
        preset: A TOML file of options, of this command and of others; those that are given come before it.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def convert(
    checkpoint: str | Path,
    out: str | Path,
    *,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    dtype: str | None = None,
    overwrite: bool = False,
    preset: str | Path | None = None,
) -> Record:
    """Any checkpoint as safetensors, with family, constructor and provenance in its metadata.

    Args:
        checkpoint: Checkpoint file, folder (diffusers, accelerate, FSDP), hf://OWNER/NAME[@REVISION][/PATH], or
            toy:d=32,side=8.
        out: The file to write.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        dtype: Store as float32, float16 or bfloat16.
        overwrite: Replace a file that was not made from the same weights.
        preset: A TOML file of options, of this command and of others; those that are given come before it.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def features(
    checkpoint: str | Path | Denoiser,
    data: str | Path,
    *,
    layer: str | Sequence[str] = 'mid',
    sigma: float | Sequence[float] = (),
    t: float | Sequence[float] = (),
    num_levels: int | None = None,
    input: str = 'noisy',
    pool: str = 'mean',
    normalize: bool = False,
    class_label: str = 'null',
    num_images: int | str | None = None,
    labels: str | Path | None = None,
    augment: str = 'crop+flip+jitter',
    augment_strength: float = 1.0,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    views: int = 2,
    reduce: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_memory: int | str | None = None,
    compile: bool = False,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Write pooled features for other tools: a tensor a layer, [levels, views, images, features].

    Args:
        checkpoint: Checkpoint file, folder (diffusers, accelerate, FSDP), hf://OWNER/NAME[@REVISION][/PATH], or
            toy:d=32,side=8.
        data: Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or
            latents_rank*.safetensors), .parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S.
        layer: Layer by its name, mid, or all, or a list of them.
        sigma: Noise level as noise-to-signal ratio, or a list of them.
        t: Noise level in the model's own variable, or a list of them.
        num_levels: Noise levels, log-spaced over [0.002, 20], cut to the model's range.
        input: noisy, or clean: no noise, but the conditioning of the noise level.
        pool: mean over positions, or flatten.
        normalize: Scale each feature vector to length 1.
        class_label: Class given to the model: null, label (the image's own) or an index.
        num_images: Images, a seeded subset.
        labels: Classes of the images: a CSV with the columns file and class.
        augment: none, crop, crop+flip, crop+flip+jitter, crop+flip+jitter+rotate or crop+flip+jitter+rotate+center.
        augment_strength: Multiplies all ranges of the augmentation.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image is an error, not a counted skip.
        views: Views of each image.
        reduce: Project channels that depend linearly on others away; else they are refused.
        seed: Seed of subset, views and noise; synthetic: images have their own, seed=S.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Images per batch; in float32 figures keep six digits, for a network may round by it. Halved
            where the device runs out of memory.
        workers: Threads that decode images ahead.
        max_memory: For the moments, such as 8GB; more are measured in portions.
        compile: On CUDA, compile the network's blocks first; pays on long runs.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        out: The .safetensors file to write.
        overwrite: Replace features of another protocol, or another file, in FILE.
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def icr(
    checkpoint: str | Path | Denoiser,
    data: str | Path,
    *,
    layer: str | Sequence[str] = 'mid',
    sigma: float | Sequence[float] = (),
    t: float | Sequence[float] = (),
    input: str = 'noisy',
    pool: str = 'mean',
    normalize: bool = False,
    class_label: str = 'null',
    num_images: int | Sequence[int] = (),
    labels: str | Path | None = None,
    augment: str = 'crop+flip+jitter',
    augment_strength: float = 1.0,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    views: int = 2,
    reduce: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_memory: int | str | None = None,
    compile: bool = False,
    self_check: bool = False,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """ICR at one noise level, with its 95 % interval and the metrics that come with it.

    Args:
        checkpoint: Checkpoint file, folder (diffusers, accelerate, FSDP), hf://OWNER/NAME[@REVISION][/PATH], or
            toy:d=32,side=8.
        data: Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or
            latents_rank*.safetensors), .parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S.
        layer: Layer by its name, mid, or all, or a list of them.
        sigma: Noise level as noise-to-signal ratio, or a list of them.
        t: Noise level in the model's own variable, or a list of them.
        input: noisy, or clean: no noise, but the conditioning of the noise level.
        pool: mean over positions, or flatten.
        normalize: Scale each feature vector to length 1.
        class_label: Class given to the model: null, label (the image's own) or an index.
        num_images: Images, a seeded subset; several, as 500,1000,2000: nested subsets, each measured anew, as one
            result.
        labels: Classes of the images: a CSV with the columns file and class.
        augment: none, crop, crop+flip, crop+flip+jitter, crop+flip+jitter+rotate or crop+flip+jitter+rotate+center;
            all: each of them but none, as one result.
        augment_strength: Multiplies all ranges of the augmentation.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image is an error, not a counted skip.
        views: Views of each image.
        reduce: Project channels that depend linearly on others away; else they are refused.
        seed: Seed of subset, views and noise; synthetic: images have their own, seed=S.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Images per batch; in float32 figures keep six digits, for a network may round by it. Halved
            where the device runs out of memory.
        workers: Threads that decode images ahead.
        max_memory: For the moments, such as 8GB; more are measured in portions.
        compile: On CUDA, compile the network's blocks first; pays on long runs.
        self_check: Also from half of the images; the two must agree.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        out: Write result.json, result.csv, figures and report.html there.
        overwrite: Replace a result of another protocol in `out`.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def inspect(
    checkpoint: str | Path,
    *,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    sha256: bool = False,
    verify: bool = False,
    out: str | Path | None = None,
    preset: str | Path | None = None,
) -> Record:
    """What is this checkpoint? Family, class, noise convention, input, and all layers with their shapes.

    Args:
        checkpoint: Checkpoint file, folder (diffusers, accelerate, FSDP), hf://OWNER/NAME[@REVISION][/PATH], or
            toy:d=32,side=8.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        sha256: Hash the file too: seconds for gigabytes.
        verify: Compare every checksum in the file with its bytes: seconds for gigabytes.
        out: Write result.json, result.csv, figures and report.html there.
        preset: A TOML file of options, of this command and of others; those that are given come before it.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def kinship(
    checkpoints: str | Path | Denoiser | Sequence[str | Path | Denoiser],
    data: str | Path,
    *,
    layer: str | Sequence[str] = 'mid',
    sigma: float | Sequence[float] = (),
    t: float | Sequence[float] = (),
    num_levels: int | None = None,
    input: str = 'noisy',
    pool: str = 'mean',
    normalize: bool = False,
    class_label: str = 'null',
    num_images: int | str | None = None,
    labels: str | Path | None = None,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_memory: int | str | None = None,
    compile: bool = False,
    k: int = 10,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    beside: str | Path | Sequence[str | Path] = (),
    allow_torchscript: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Do two layers, noise levels, checkpoints or encoders see the same images alike? Linear CKA and CKNNA of each two.

    CKA (unbiased) compares all distances: 1 for the same up to rotation and scale, 0 for unrelated. CKNNA compares the
    nearest neighbours alone; it depends on --num-images and --k. Images are plain, with the noise of their level.

    Args:
        checkpoints: One checkpoint, or several to be compared with each other.
        data: Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or
            latents_rank*.safetensors), .parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S.
        layer: Layer by its name, mid, or all, or a list of them.
        sigma: Noise level as noise-to-signal ratio, or a list of them.
        t: Noise level in the model's own variable, or a list of them.
        num_levels: Noise levels, log-spaced over [0.002, 20], cut to the model's range.
        input: noisy, or clean: no noise, but the conditioning of the noise level.
        pool: mean over positions, or flatten.
        normalize: Scale each feature vector to length 1.
        class_label: Class given to the model: null, label (the image's own) or an index.
        num_images: Images, a seeded subset.
        labels: Classes of the images: a CSV with the columns file and class.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image is an error, not a counted skip.
        seed: Seed of subset, views and noise; synthetic: images have their own, seed=S.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Images per batch; in float32 figures keep six digits, for a network may round by it. Halved
            where the device runs out of memory.
        workers: Threads that decode images ahead.
        max_memory: For two representations, such as 8GB.
        compile: On CUDA, compile the network's blocks first; pays on long runs.
        k: Nearest neighbours of CKNNA.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        beside: Another encoder of the same images: pixels; random, the same network untrained (random:LAYER); a
            .safetensors file of features (FILE:TENSOR); a TorchScript file (FILE.pt:side=S); a folder or hf:// of a
            ViT, ViT-MAE, DINOv2, CLIP or I-JEPA; timm:NAME, or a list of them.
        allow_torchscript: Run the program in `beside` FILE.pt: trust where it comes from.
        out: Write result.json, result.csv, figures and report.html there.
        overwrite: Replace a result of another protocol in `out`.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def memorization(
    checkpoints: str | Path | Denoiser | Sequence[str | Path],
    data: str | Path,
    *,
    samples: int = 256,
    steps: int = 18,
    class_label: str = 'null',
    space: str | None = None,
    threshold: float | None = None,
    mirror: bool = True,
    layer: str | None = None,
    sigma: float | None = None,
    encoder: str | Path | None = None,
    allow_torchscript: bool = False,
    encoder_side: int | None = None,
    encoder_features: tuple[str | Path, str | Path] | None = None,
    quality: bool = False,
    features_of: str | Path | None = None,
    num_references: int = 10000,
    holdout: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    step_from: str | None = None,
    save_samples: bool = False,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    step_scale: str = 'linear',
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Which share of a model's samples copies training images?

    A sample is a copy where its distance to the nearest training image is below a third of that to the second
    nearest. Of several checkpoints all start from the same noise.

    Args:
        checkpoints: A checkpoint, or snapshots of one run, or their folder.
        data: The training images, all of them: folder, .zip, .tar, .npy, .npz, .parquet, .arrow,
            hf://datasets/OWNER/NAME.
        samples: Samples of each checkpoint.
        steps: Noise levels of the sampler (Heun's method).
        class_label: Class of the samples: null, label (as the training images have them), an index.
        space: Of copies: pixels, features (the model's own at `layer` and `sigma`, by their cosine) or encoder.
        threshold: A copy has d1/d2 below it (pixels), or a cosine above it.
        mirror: A training image and its mirror image count as the same.
        layer: Of the model's own features: layer by its name, or mid.
        sigma: Of the model's own features: the noise level that the network is told.
        encoder: Compare by another encoder, as SSCD for copies, Inception for `quality`: a TorchScript file, with
            `allow_torchscript`, or what probe `beside` takes.
        allow_torchscript: Run the program in `encoder` FILE: trust where it comes from.
        encoder_side: Side to which images are resized for `encoder`.
        encoder_features: Compare by descriptors made elsewhere: two .safetensors with one tensor [images, d] each.
        quality: Also hold the samples as a whole against the training images: Fréchet and kernel distance,
            precision, recall, density, coverage, authenticity; in the space of `encoder`, else of the model's own
            features.
        features_of: Of `quality`: the checkpoint whose own features are compared, the same ones for a whole run.
        num_references: Of `quality`: training and held-out images at most, a seeded subset.
        holdout: Images not trained on: `quality` is measured against them, too.
        seed: Seed of the samples' noise and classes.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Samples drawn at a time.
        workers: Threads that decode images.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image or checkpoint is an error, not left out.
        step_from: Where a path tells the training step, as one group, such as 'ckpt-(\d+)'.
        save_samples: Also write all samples to `out`, as samples.npz or samples-STEP.npz.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        out: Write result.json, result.csv, figures and report.html there.
        overwrite: Replace a result of another protocol in `out`.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        step_scale: Of the axis of training steps.
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def merge(
    parts: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Put the shards of one measurement together: the same result as one run would give.

    Neither the checkpoint nor the images are needed. Shards of different protocols are refused, by field.

    Args:
        parts: Folders that `shard` I/N `out` FOLDER wrote.
        out: Write result.json, result.csv, figures and report.html there.
        overwrite: Replace a result of another protocol in `out`.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def models(
    *,
    preset: str | Path | None = None,
) -> Record:
    """Which published checkpoints have a short name, where is each to be had, and what does it need?

    Args:
        preset: A TOML file of options, of this command and of others; those that are given come before it.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def neighbors(
    checkpoints: str | Path | Denoiser | Sequence[str | Path],
    data: str | Path,
    *,
    layer: str | Sequence[str] = 'mid',
    sigma: float | Sequence[float] = (),
    t: float | Sequence[float] = (),
    input: str = 'noisy',
    pool: str = 'flatten',
    normalize: bool = False,
    class_label: str = 'null',
    num_images: int | str | None = None,
    labels: str | Path | None = None,
    augment: str = 'crop+flip+jitter',
    augment_strength: float = 1.0,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    views: int = 15,
    reduce: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_memory: int | str | None = None,
    compile: bool = False,
    query: str | Sequence[str] = (),
    rows: int = 4,
    k: int = 5,
    num_queries: int = 2000,
    clusters: bool = False,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    beside: str | Path | Sequence[str | Path] = (),
    allow_torchscript: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """What lies near an image by the invariant part s of its features, and near a view by the residual ξ?

    A grid of pictures, for several checkpoints one below the other, and the share of neighbours of the query's class.
    ICR beside it is that of diffscope icr, of two views pooled by mean, whatever --views and --pool are. --beside adds
    the neighbours by another encoder, which sees each image as it is.

    Args:
        checkpoints: A checkpoint, or several of one run, or their folder.
        data: Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or
            latents_rank*.safetensors), .parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S.
        layer: Layer by its name, mid, or all, or a list of them.
        sigma: Noise level as noise-to-signal ratio, or a list of them.
        t: Noise level in the model's own variable, or a list of them.
        input: noisy, or clean: no noise, but the conditioning of the noise level.
        pool: flatten, or mean over positions.
        normalize: Scale each feature vector to length 1.
        class_label: Class given to the model: null, label (the image's own) or an index.
        num_images: Images, a seeded subset.
        labels: Classes of the images: a CSV with the columns file and class.
        augment: none, crop, crop+flip, crop+flip+jitter, crop+flip+jitter+rotate or crop+flip+jitter+rotate+center.
        augment_strength: Multiplies all ranges of the augmentation.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image is an error, not a counted skip.
        views: Views of each image, the first as it is.
        reduce: Project channels that depend linearly on others away; else they are refused.
        seed: Seed of subset, views and noise; synthetic: images have their own, seed=S.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Images per batch; in float32 figures keep six digits, for a network may round by it. Halved
            where the device runs out of memory.
        workers: Threads that decode images ahead.
        max_memory: For the features, such as 8GB.
        compile: On CUDA, compile the network's blocks first; pays on long runs.
        query: Image to show: its index, or its name inside `data`, or a list of them; where that has commas, its
            index.
        rows: Queries to choose where none is given.
        k: Neighbours of each query.
        num_queries: Images whose neighbours' classes are counted.
        clusters: Also the views of the queries in the plane of their largest variance.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        beside: Another encoder of the same images: pixels; random, the same network untrained (random:LAYER); a
            .safetensors file of features (FILE:TENSOR); a TorchScript file (FILE.pt:side=S); a folder or hf:// of a
            ViT, ViT-MAE, DINOv2, CLIP or I-JEPA; timm:NAME, or a list of them.
        allow_torchscript: Run the program in `beside` FILE.pt: trust where it comes from.
        out: Write result.json, result.csv, figures and report.html there.
        overwrite: Replace a result of another protocol in `out`.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def probe(
    checkpoint: str | Path | Denoiser,
    data: str | Path,
    *,
    layer: str | Sequence[str] = 'mid',
    sigma: float | Sequence[float] = (),
    t: float | Sequence[float] = (),
    num_levels: int | None = None,
    input: str = 'noisy',
    pool: str = 'mean',
    normalize: bool = False,
    class_label: str = 'null',
    num_images: int | str | None = None,
    labels: str | Path | None = None,
    augment: str = 'crop+flip+jitter',
    augment_strength: float = 1.0,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    views: int = 2,
    reduce: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_memory: int | str | None = None,
    compile: bool = False,
    test_share: float = 0.25,
    head: str = 'logistic',
    solver: str = 'sklearn',
    knn: int = 20,
    label_noise: float | Sequence[float] = (),
    ensemble: int = 1,
    posterior: bool = False,
    absolute: bool = False,
    distance_to_best: bool = False,
    rank: int = 5,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    beside: str | Path | Sequence[str | Path] = (),
    allow_torchscript: bool = False,
    masks: str | Path | None = None,
    pixel_head: str = 'linear',
    train_pixels: int = 20000,
    test: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """Is the level of lowest ICR the one where classes are told apart best? Accuracy of a linear probe and k-NN.

    Labels are class folders or dataset.json. Probes see the plain image; --augment and --views are ICR's.
    --input both adds probes of clean input; --beside those of another encoder, of the plain image at the network's
    size. --fail-if looks at each layer's best level.

    --distance-to-best adds how far the training images' features are from those of the level of best accuracy, in the
    unit of the features (swd_best) and over the spread of the latter (swd_best_relative).

    nc1 grows and separation falls with the number of training images (train_images): compare them at equal numbers.

    --masks DIR probes pixels instead, without labels and ICR: mIoU of a classifier of single pixels, whose features are
    those of every --layer at the image's size.

    Args:
        checkpoint: Checkpoint file, folder (diffusers, accelerate, FSDP), hf://OWNER/NAME[@REVISION][/PATH], or
            toy:d=32,side=8.
        data: Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or
            latents_rank*.safetensors), .parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S.
        layer: Layer by its name, mid, or all, or a list of them.
        sigma: Noise level as noise-to-signal ratio, or a list of them.
        t: Noise level in the model's own variable, or a list of them.
        num_levels: Noise levels, log-spaced over [0.002, 20], cut to the model's range.
        input: noisy, clean: no noise, but the conditioning of the noise level; or both.
        pool: mean over positions, or flatten.
        normalize: Scale each feature vector to length 1.
        class_label: Class given to the model: null, label (the image's own) or an index.
        num_images: Images, a seeded subset.
        labels: Classes of the images: a CSV with the columns file and class.
        augment: none, crop, crop+flip, crop+flip+jitter, crop+flip+jitter+rotate or crop+flip+jitter+rotate+center.
        augment_strength: Multiplies all ranges of the augmentation.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image is an error, not a counted skip.
        views: Views of each image.
        reduce: Project channels that depend linearly on others away; else they are refused.
        seed: Seed of subset, views and noise; synthetic: images have their own, seed=S.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Images per batch; in float32 figures keep six digits, for a network may round by it. Halved
            where the device runs out of memory.
        workers: Threads that decode images ahead.
        max_memory: For the moments, such as 8GB; more are measured in portions.
        compile: On CUDA, compile the network's blocks first; pays on long runs.
        test_share: Of `data`, kept for the test; seeded.
        head: logistic, or batchnorm-linear: batch normalisation, then a linear layer, by AdamW; seeded.
        solver: sklearn, or torch: the same minimum, for large sets.
        knn: Neighbours that vote.
        label_noise: Also train with these shares of labels replaced, such as 0.2,0.4.
        ensemble: Also the soft vote of N neighbouring levels, N odd.
        posterior: Also probe the denoised images.
        absolute: With `posterior`: also their absolute values, for data as likely as their negative.
        distance_to_best: Also the sliced Wasserstein distance of features to those of the best level.
        rank: Directions of a class's subspace, for CSNR.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        beside: Another encoder of the same images: pixels; random, the same network untrained (random:LAYER); a
            .safetensors file of features (FILE:TENSOR); a TorchScript file (FILE.pt:side=S); a folder or hf:// of a
            ViT, ViT-MAE, DINOv2, CLIP or I-JEPA; timm:NAME, or a list of them.
        allow_torchscript: Run the program in `beside` FILE.pt: trust where it comes from.
        masks: Probe pixels: folder of class-index PNGs, named as the images; 255 is void, classes.txt names the
            others.
        pixel_head: Classifier of a pixel: linear, or mlp (ten small ones that vote).
        train_pixels: Pixels to train on, seeded, spread over the training images; memory grows with them.
        test: Labelled images to test on.
        out: Write result.json, result.csv, figures and report.html there.
        overwrite: Replace a result of another protocol in `out`.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def sweep(
    checkpoint: str | Path | Denoiser,
    data: str | Path,
    *,
    layer: str | Sequence[str] = 'mid',
    sigma: float | Sequence[float] = (),
    t: float | Sequence[float] = (),
    num_levels: int | None = None,
    input: str = 'noisy',
    pool: str = 'mean',
    normalize: bool = False,
    class_label: str = 'null',
    num_images: int | Sequence[int] = (),
    labels: str | Path | None = None,
    augment: str = 'crop+flip+jitter',
    augment_strength: float = 1.0,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    views: int = 2,
    reduce: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_memory: int | str | None = None,
    compile: bool = False,
    self_check: bool = False,
    accuracy: float | str | None = None,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    log: str | Sequence[str] = (),
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """ICR over noise levels and layers: at which level are features most semantic, and how sure is that?

    Args:
        checkpoint: Checkpoint file, folder (diffusers, accelerate, FSDP), hf://OWNER/NAME[@REVISION][/PATH], or
            toy:d=32,side=8.
        data: Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or
            latents_rank*.safetensors), .parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S.
        layer: Layer by its name, mid, or all, or a list of them.
        sigma: Noise level as noise-to-signal ratio, or a list of them.
        t: Noise level in the model's own variable, or a list of them.
        num_levels: Noise levels, log-spaced over [0.002, 20], cut to the model's range.
        input: noisy, or clean: no noise, but the conditioning of the noise level.
        pool: mean over positions, or flatten.
        normalize: Scale each feature vector to length 1.
        class_label: Class given to the model: null, label (the image's own) or an index.
        num_images: Images, a seeded subset; several, as 500,1000,2000: nested subsets, each measured anew, as one
            result.
        labels: Classes of the images: a CSV with the columns file and class.
        augment: none, crop, crop+flip, crop+flip+jitter, crop+flip+jitter+rotate or crop+flip+jitter+rotate+center;
            all: each of them but none, as one result.
        augment_strength: Multiplies all ranges of the augmentation.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image is an error, not a counted skip.
        views: Views of each image.
        reduce: Project channels that depend linearly on others away; else they are refused.
        seed: Seed of subset, views and noise; synthetic: images have their own, seed=S.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Images per batch; in float32 figures keep six digits, for a network may round by it. Halved
            where the device runs out of memory.
        workers: Threads that decode images ahead.
        max_memory: For the moments, such as 8GB; more are measured in portions.
        compile: On CUDA, compile the network's blocks first; pays on long runs.
        self_check: Also from half of the images; the two must agree.
        accuracy: Such as 2%: give more images only to noise levels that still decide where ICR is lowest, until it
            and the level are known so well.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        out: Write result.json, result.csv, figures and report.html there.
        overwrite: Replace a result of another protocol in `out`.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        log: Show curves over steps, figures and the verdict in tensorboard:DIR, wandb[:PROJECT], mlflow[:URI] or
            trackio[:PROJECT], or a list of them.
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """

def track(
    checkpoints: str | Path | Sequence[str | Path],
    data: str | Path,
    *,
    layer: str | Sequence[str] = 'mid',
    sigma: float | Sequence[float] = (),
    t: float | Sequence[float] = (),
    num_levels: int | None = None,
    input: str = 'noisy',
    pool: str = 'mean',
    normalize: bool = False,
    class_label: str = 'null',
    num_images: int | str | None = None,
    labels: str | Path | None = None,
    augment: str = 'crop+flip+jitter',
    augment_strength: float = 1.0,
    max_pixels: int | None = None,
    data_range: float | Sequence[float] = (),
    strict: bool = False,
    views: int = 2,
    reduce: bool = False,
    seed: int = 0,
    device: str | None = None,
    precision: str = 'auto',
    batch_size: int | None = None,
    workers: int | None = None,
    max_memory: int | str | None = None,
    compile: bool = False,
    step_from: str | None = None,
    holdout: str | Path | None = None,
    num_holdout: int | None = None,
    overlay: str | Path | None = None,
    column: str | Sequence[str] = (),
    rule: str = 'auto',
    accuracy: float | str | None = None,
    network: str | None = None,
    arguments: Mapping[str, object] | str | Path = ...,
    predicts: str | None = None,
    noise: str | None = None,
    call: str = 'x,t',
    image_size: int | None = None,
    channels: int | None = None,
    latent_scale: float | None = None,
    latent_factor: int = 8,
    family: str | None = None,
    config: Mapping[str, str] = ...,
    weights: str = 'ema',
    vae: str | Path | None = None,
    latent_stats: str | Path | None = None,
    prompt: str | None = None,
    prompt_from: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | Sequence[str] = ('png', 'svg'),
    size: float | str | None = None,
    style: str | Path | None = None,
    step_scale: str = 'linear',
    log: str | Sequence[str] = (),
    preset: str | Path | None = None,
    progress: bool = True,
) -> Result:
    """ICR over a training run: where was it lowest, does the model memorize by now, which checkpoint is to keep?

    With --watch DIR --fail-if onset it stays beside the training and ends with 3 when it should stop.

    Args:
        checkpoints: Snapshots of one run, or their folder.
        data: Images: folder, .zip, .tar or {000..099}.tar, .npy, .npz (latents: .npz with mean, or
            latents_rank*.safetensors), .parquet, .arrow, hf://datasets/OWNER/NAME, synthetic:count=N,seed=S.
        layer: Layer by its name, mid, or all, or a list of them.
        sigma: Noise level as noise-to-signal ratio, or a list of them.
        t: Noise level in the model's own variable, or a list of them.
        num_levels: Noise levels, log-spaced over [0.002, 20], cut to the model's range.
        input: noisy, or clean: no noise, but the conditioning of the noise level.
        pool: mean over positions, or flatten.
        normalize: Scale each feature vector to length 1.
        class_label: Class given to the model: null, label (the image's own) or an index.
        num_images: Images, a seeded subset.
        labels: Classes of the images: a CSV with the columns file and class.
        augment: none, crop, crop+flip, crop+flip+jitter, crop+flip+jitter+rotate or crop+flip+jitter+rotate+center.
        augment_strength: Multiplies all ranges of the augmentation.
        max_pixels: A stored image of more is unreadable and left out; reading takes at most 16 bytes for each, and
            1 GB.
        data_range: Of an array of floats or uint16: what is black and what is white in it, such as 0,1 or -1,1.
        strict: An unreadable image is an error, not a counted skip.
        views: Views of each image.
        reduce: Project channels that depend linearly on others away; else they are refused.
        seed: Seed of subset, views and noise; synthetic: images have their own, seed=S.
        device: cpu, cuda, cuda:1, mps.
        precision: auto (fp32 on CPU, tf32 on CUDA), fp32, tf32, bf16 or fp16.
        batch_size: Images per batch; in float32 figures keep six digits, for a network may round by it. Halved
            where the device runs out of memory.
        workers: Threads that decode images ahead.
        max_memory: For the moments, such as 8GB; more are measured in portions.
        compile: On CUDA, compile the network's blocks first; pays on long runs.
        step_from: Where a path tells the training step, as one group, such as 'ckpt-(\d+)'.
        holdout: Images not trained on: the alarm watches their loss; single layers and levels show their ICR, too.
        num_holdout: Of `holdout`, a seeded subset.
        overlay: Numbers you have of the run: a column step, any others beside it.
        column: Of `overlay`, this column, or a list of them.
        rule: Of the onset: alarm (pools layers and levels, watches the loss), or of each layer and level alone long
            (from 30 snapshots on) or short; auto: alarm where no layer and level is chosen.
        accuracy: Such as 5%: only as many images, the same for all snapshots, as make ICR of the first one known so
            well.
        network: Code of your own that defines the network: a class, or a function that returns a torch.nn.Module.
            It is run, as python FILE.py would; a checkpoint, a Hub reference or a URL can never name it. Or
            package.module:NAME.
        arguments: Arguments of its constructor: a TOML or JSON file, or a JSON object.
        predicts: What it predicts: eps, x0, v, velocity, denoised or score; needed only for denoised images.
        noise: What it is told of noise: edm, ve, vp, ddpm:linear, ddpm:cosine, ddpm:scaled_linear, ddpm:sigmoid,
            flow:data=0 or flow:data=1 (where the data are); more facts by commas, as steps=1000,beta_end=0.02.
        call: How it is called, in the order of its arguments: x the noisy input, t what it is told of noise,
            y:COUNT classes (y:COUNT:NULL with what stands for none); name=x by keyword.
        image_size: Side of the images in pixels: those of your own network, or of a text-to-image network, where
            smaller is cheaper.
        channels: Channels of its input.
        latent_scale: It takes VAE latents, multiplied by this; with `vae`.
        latent_factor: Side of the images over side of the latents.
        family: Say what a file cannot say of itself: adm, edm, edm2, sit, dit, repa, lightningdit, jit, lucidrains,
            diffusers.
        config: Constructor fact that the file lacks, such as num_heads=6, or a list of them.
        weights: Which set of a training dump: ema or model.
        vae: Image encoder of a latent model: a diffusers folder, hf://OWNER/NAME[/PATH], or a file such as VA-
            VAE's.
        latent_stats: Mean and deviation of each latent channel, such as latents_stats.pt; or none: latents are
            normalised.
        prompt: Text for a network that is told of one, the same for all images.
        prompt_from: Whose text encoders: a pipeline's folder or hf://OWNER/NAME; or a .safetensors file of
            embeddings.
        out: Write result.json, result.csv, figures and report.html there.
        overwrite: Replace a result of another protocol in `out`.
        format: Of figures: png, svg, pdf, or a list of them.
        size: Width of figures: column (3.25 inches), page (6.75), or a number of inches; text is then set to be
            read in print.
        style: A style file of matplotlib's for figures, laid over ours (report/figures/diffscope.mplstyle).
        step_scale: Of the axis of training steps.
        log: Show curves over steps, figures and the verdict in tensorboard:DIR, wandb[:PROJECT], mlflow[:URI] or
            trackio[:PROJECT], or a list of them.
        preset: A TOML file of options, of this command and of others; those that are given come before it.
        progress: Show a bar, in terminals and notebooks.

    Raises:
        DiffscopeError: Whatever keeps the question from being answered, in one line.
    """
