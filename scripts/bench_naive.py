"""The naive script that `bench.py` compares with: what anybody would write, as our design notes word it.

For each noise level a new loader, which decodes and augments every image anew; whole forward passes with a hook; of a
latent model the VAE at each level; all features kept; a generalised eigenproblem at the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_cases import Case


def naive(case: Case, folder: Path, quick: bool) -> Iterator[None]:
    """Stops once after imports and loading."""
    import scipy.linalg
    import torch
    from torch.utils.data import DataLoader, Dataset

    from diffscope import api

    checkpoints = sorted(map(str, folder.glob("*.safetensors")))
    api.load(checkpoints[0])
    yield

    class Views(Dataset):  # type: ignore[type-arg]
        files = sorted((folder / "images").glob("*.jpg"))

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> list[torch.Tensor]:
            from PIL import Image

            image = Image.open(self.files[index]).convert("RGB")
            return [pillow_view(image) for _ in range(case.views)]

    for checkpoint in checkpoints:
        _, denoiser = api.load(checkpoint)
        if case.latent:
            denoiser.use_encoder(str(folder / "vae"))
        features: list[torch.Tensor] = []
        module = denoiser.network.get_submodule(case.layer_of(quick))

        def keep(_module: object, _inputs: object, out: torch.Tensor, to: list[torch.Tensor] = features) -> None:
            to.append(out.detach().cpu())

        hook = module.register_forward_hook(keep)
        for sigma in case.levels:
            z: list[list[np.ndarray]] = [[] for _ in range(case.views)]
            for views in DataLoader(Views(), batch_size=64, num_workers=0 if quick else 2):
                for v, x in enumerate(views):
                    features.clear()
                    with torch.no_grad():
                        if denoiser.space.image_channels == 1:
                            x = x.mean(1, keepdim=True)
                        if case.latent:
                            noise = torch.randn(len(x), denoiser.space.channels, *[denoiser.space.side] * 2)
                            x = denoiser.encode(x, noise)
                        noisy = x + sigma * torch.randn_like(x)
                        denoiser.denoise(noisy, torch.full((len(x),), sigma), denoiser.label(None, x.device))
                    out = features[-1]
                    z[v].append((out.mean((2, 3)) if out.dim() == 4 else out.mean(1)).numpy())
            seen = np.stack([np.concatenate(side).astype(np.float64) for side in z])
            within = (seen - seen.mean(0)).reshape(-1, seen.shape[2])
            shared, rest = np.cov(seen.mean(0), rowvar=False), within.T @ within / len(within) / (case.views - 1)
            # More channels than images would stop it: a ridge, as anybody would add.
            scipy.linalg.eigh(shared - rest, rest + 1e-6 * np.trace(rest) * np.eye(len(rest)), eigvals_only=True)
        hook.remove()
    yield


def pillow_view(image: Any) -> Any:
    import torch
    from PIL import Image, ImageEnhance, ImageOps

    side = image.width
    image = ImageOps.expand(image, side // 8)
    left, top = random.randint(0, side // 4), random.randint(0, side // 4)
    image = image.crop((left, top, left + side, top + side))
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    if random.random() < 0.8:
        changes = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None]
        random.shuffle(changes)
        for change in changes:
            if change is None:
                hue, saturation, value = image.convert("HSV").split()
                shift = int(random.uniform(-0.1, 0.1) * 255)
                hue = hue.point([(h + shift) % 256 for h in range(256)])
                image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
            else:
                image = change(image).enhance(random.uniform(0.6, 1.4))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
