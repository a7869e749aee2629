"""From the bytes of a picture to uint8 [C, side, side]: Pillow decodes, two published crops fit it to the network.

A picture comes out as its viewer sees it: turned upright by its EXIF orientation, transparency laid over white,
16-bit grey scaled to 8 bits (not clipped). All resizing is done on the 8-bit picture, as both crops' authors do.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffscope.errors import DataError
from diffscope.sources.base import Target


def decode(data: bytes, name: str, target: Target) -> np.ndarray:
    """The picture in `data` as uint8 [C, side, side]; raises DataError naming `name` where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as stored:
            picture = _eight_bit(ImageOps.exif_transpose(stored))
    except DataError as error:
        raise DataError(f"Cannot read {name}: {error}") from None
    # Pillow keeps no closed list of what damaged files raise: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "not a picture that Pillow knows"
        raise DataError(f"Cannot read {name} ({len(data)} bytes): {reason}. Replace or remove the file.") from error
    return fit(picture, target)


def fit(picture: Image.Image, target: Target) -> np.ndarray:
    """An 8-bit picture (L, RGB or RGBA) as uint8 [C, side, side], cropped and resized as `target` says."""
    if target.channels not in (1, 3):
        raise DataError(
            f"Pictures give 1 or 3 channels, the network takes {target.channels}. Give latents (.npz with `mean`)."
        )
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    picture = picture.convert("L" if target.channels == 1 else "RGB")
    crop = _adm if target.resize == "adm" else _lanczos
    pixels = np.asarray(crop(picture, target.side))
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Any Pillow mode as L, RGB or RGBA."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _from_sixteen_bit(picture)
    if picture.mode == "F":
        raise DataError("its pixels are floats of unknown range. Expected 8 or 16 bits; convert the picture.")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        # Pillow converts premultiplied modes only through their plain twin.
        plain = {"RGBa": "RGBA", "La": "LA"}.get(picture.mode, picture.mode)
        return picture.convert(plain).convert("RGBA")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _from_sixteen_bit(picture: Image.Image) -> Image.Image:
    """16-bit grey (which Pillow also opens as 32-bit "I") to 8 bits: round(v · 255 / 65535)."""
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"its values span {values.min()}…{values.max()}. Expected 0…65535; convert the picture.")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _lanczos(picture: Image.Image, side: int) -> Image.Image:
    """The central square, then Lanczos: `center-crop` of NVlabs/edm: dataset_tool.py."""
    width, height = picture.size
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    square = picture.crop((left, top, left + shorter, top + shorter))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def _adm(picture: Image.Image, side: int) -> Image.Image:
    """Halve while twice too large, bicubic, cut: `center_crop_arr` of openai/guided-diffusion: image_datasets.py."""
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = side / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))
