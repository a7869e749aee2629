"""From the bytes of a picture to uint8 [C, side, side]: Pillow decodes, two published crops fit it to the network.

A picture comes out as its viewer sees it: turned upright by its EXIF orientation, transparency laid over white,
16-bit grey scaled to 8 bits (not clipped). All resizing is done on the 8-bit picture, as both crops' authors do.

A picture larger than a source admits is known by its header and never decoded; of the others few are at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
from functools import cache

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, _imaging

from diffscope.errors import DataError, Exhausted
from diffscope.sources._room import DECODED
from diffscope.sources.base import MAX_PIXELS, Target

# To the terminal go neither its log, where a program keeps none, ...
logging.getLogger("PIL").addHandler(logging.NullHandler())
# ... nor libtiff's lines on each damaged file, past Python; Pillow raises as well.
with contextlib.suppress(OSError, AttributeError):  # where Pillow holds libtiff in itself, it cannot be reached
    for _handler in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        getattr(ctypes.CDLL(_imaging.__file__), _handler)(None)

OUT_OF_MEMORY = ("out of memory", "decoder error -9")  # as Pillow's C code and its reader of TIFF say
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations whose height and width change places
WHOLE = 2**32 - 1  # TIFF's number of rows in a strip where all are in one
LUMA = np.array([[0.299], [0.587], [0.114]], np.float32)  # ITU-R 601-2, as Pillow's "L"
LARGEST_BLOCK = 2**31 - 2  # bytes of a TIFF's strip or tile that Pillow unpacks; beyond, it claims to lack memory


def most_bytes(max_pixels: int) -> int:
    """Most bytes of a stored picture: more than any format needs for so many pixels, and 64 MB for all else."""
    return 4 * max_pixels + (64 << 20)


def decode(data: bytes, name: str, target: Target, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a picture.

    Args:
        data: The stored file.
        name: What errors call it.
        target: What it is cropped and resized to.
        max_pixels: Of the stored picture.

    Returns:
        uint8 [channels, side, side].

    Raises:
        DataError: It cannot be read, or is too large.
        Exhausted: Memory ran out, which is no fault of the picture.
    """
    _check_channels(target)
    try:
        with Image.open(io.BytesIO(data), formats=_formats(max_pixels)) as stored:
            check_size(stored.width, stored.height, max_pixels)
            if isinstance(stored, TiffImagePlugin.TiffImageFile):
                _check_blocks(stored, max_pixels)
            with DECODED.of(stored.width * stored.height):
                stored.load()
                ImageOps.exif_transpose(stored, in_place=True)
                return fit(_eight_bit(stored), target, max_pixels)
    except DataError as error:
        raise DataError(f"Cannot read {name}: {error}") from None
    # Pillow keeps no closed list of what damaged files raise: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise _failure(data, name, error, max_pixels) from error


def upright_size(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Reads the height and width of a picture, as `decode` turns it, from its header.

    Args:
        data: The stored file.
        name: What errors call it.
        max_pixels: Of the stored picture.

    Raises:
        DataError: The header cannot be read.
        Exhausted: Memory ran out, which is no fault of the picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_formats(max_pixels)) as stored:
            sideways = stored.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
            return (stored.width, stored.height) if sideways else (stored.height, stored.width)
    except Exception as error:
        raise _failure(data, name, error, max_pixels) from error


def _failure(data: bytes, name: str, error: Exception, max_pixels: int) -> DataError | Exhausted:
    """What Pillow's error means."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or reason.startswith(OUT_OF_MEMORY):
        return Exhausted(
            f"Out of memory while decoding {name}. Leaving it out would change numbers: free memory, take fewer "
            "`workers=` or a lower `max_pixels=`, or remove the file."
        )
    if isinstance(error, UnidentifiedImageError):
        reason = "not a picture that Pillow knows"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"more pixels than Pillow admits. Expected at most {max_pixels}; shrink it or raise `max_pixels=`"
    return DataError(f"Cannot read {name} ({len(data)} bytes): {reason}. Replace or remove the file.")


def fit(picture: Image.Image, target: Target, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Crops and resizes an 8-bit picture.

    Args:
        picture: In mode L, RGB or RGBA, which is laid over white.
        target: What it is cropped and resized to.
        max_pixels: Most pixels that it may be stretched to before it is cut.

    Returns:
        uint8 [channels, side, side].

    Raises:
        DataError: The network takes other than 1 or 3 channels, or the picture is too narrow to be stretched.
    """
    _check_channels(target)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    pixels = np.asarray(_cut(_in_mode(picture, "L" if target.channels == 1 else "RGB"), target, max_pixels))
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def fit_floats(pixels: np.ndarray, target: Target, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Crops and resizes a picture as `fit` does, without rounding to 8 bits.

    Args:
        pixels: float32 [H, W, 1 or 3], from 0 to 255.
        target: What it is cropped and resized to.
        max_pixels: Most pixels that it may be stretched to before it is cut.

    Returns:
        float32 [channels, side, side] in [-1, 1].

    Raises:
        DataError: The network takes other than 1 or 3 channels, or the picture is too narrow to be stretched.
    """
    _check_channels(target)
    if target.channels < pixels.shape[-1]:
        pixels = pixels @ LUMA
    planes = [np.ascontiguousarray(plane) for plane in pixels.transpose(2, 0, 1)]
    cut = np.stack([np.asarray(_cut(Image.fromarray(plane), target, max_pixels)) for plane in planes])
    whole = np.broadcast_to(cut.clip(0, 255), (target.channels, target.side, target.side))
    data: np.ndarray = whole / np.float32(127.5) - 1
    return data


def _cut(picture: Image.Image, target: Target, max_pixels: int) -> Image.Image:
    """The square of a picture, in the mode that it has, at the target's size."""
    if target.resize == "lanczos":
        return _lanczos(picture, target.side)
    return (_adm if target.resize == "adm" else _bilinear)(picture, target.side, max_pixels)


def _check_channels(target: Target) -> None:
    """DataError where a network takes other than 1 or 3 channels."""
    if target.channels not in (1, 3):
        raise DataError(
            f"Pictures give 1 or 3 channels, the network takes {target.channels}. Give latents (.npz with `mean`)."
        )


def check_size(width: int, height: int, max_pixels: int) -> None:
    """DataError where a picture is too large."""
    if width * height > max_pixels:
        raise DataError(
            f"it has {width} × {height} pixels. Expected at most {max_pixels}; shrink it or raise `max_pixels=`."
        )


def _check_blocks(stored: TiffImagePlugin.TiffImageFile, max_pixels: int) -> None:
    """DataError where the strips or tiles of a TIFF, unpacked one at a time, are too large."""
    tags = stored.tag_v2
    rows = tags.get(TiffImagePlugin.ROWSPERSTRIP, WHOLE)
    tile = tags.get(TiffImagePlugin.TILEWIDTH, 0) * tags.get(TiffImagePlugin.TILELENGTH, 0)
    strip = stored.width * (rows if 2**31 <= rows < WHOLE else min(rows, stored.height))
    size = (tile or strip) * sum(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) // 8
    if tile > max_pixels or size > LARGEST_BLOCK:
        raise DataError(f"its blocks have {size} bytes, more than can be unpacked; save it in smaller ones.")


def _formats(max_pixels: int) -> tuple[str, ...]:
    """Formats that Pillow may try; its own limit on pixels is lifted where the user has set a higher one."""
    if max_pixels > MAX_PIXELS and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    return _harmless_formats()


@cache
def _harmless_formats() -> tuple[str, ...]:
    """All formats but three, in Pillow's order, the common ones first.

    Left out are EPS and WMF, programs that Ghostscript or Windows would run, and FITS, which is inflated without limit.
    """
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name not in ("EPS", "WMF", "FITS"))


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Any Pillow mode as L, RGB or RGBA."""
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _from_sixteen_bit(picture)
    if picture.mode == "F":
        raise DataError("its pixels are floats of unknown range. Expected 8 or 16 bits; convert the picture.")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        # Pillow converts premultiplied modes only through their plain twin.
        plain = {"RGBa": "RGBA", "La": "LA"}.get(picture.mode, picture.mode)
        return _in_mode(_in_mode(picture, plain), "RGBA")
    return _in_mode(picture, "L" if picture.mode in ("1", "L") else "RGB")


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    return picture if picture.mode == mode else picture.convert(mode)


def _from_sixteen_bit(picture: Image.Image) -> Image.Image:
    """16-bit grey (which Pillow also opens as 32-bit "I") to 8 bits: round(v · 255 / 65535)."""
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"its values span {values.min()}…{values.max()}. Expected 0…65535; convert the picture.")
    return Image.fromarray(_EIGHT_OF_SIXTEEN.take(values))


_EIGHT_OF_SIXTEEN = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)


def _lanczos(picture: Image.Image, side: int) -> Image.Image:
    """The central square, then Lanczos: `center-crop` of NVlabs/edm: dataset_tool.py."""
    width, height = picture.size
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    square = picture.crop((left, top, left + shorter, top + shorter))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def _adm(picture: Image.Image, side: int, max_pixels: int) -> Image.Image:
    """Halve while twice too large, bicubic, cut: `center_crop_arr` of openai/guided-diffusion: image_datasets.py.

    All of a picture is resized before it is cut: a line of pixels would become a plane.
    """
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = side / min(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    _check_stretched(picture, width, height, max(max_pixels, side * side))
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _bilinear(picture: Image.Image, side: int, max_pixels: int) -> Image.Image:
    """The shorter side resized, then cut: torchvision's Resize and CenterCrop of pictures, roundings included."""
    shorter = min(picture.size)
    width, height = (side if length == shorter else int(side * length / shorter) for length in picture.size)
    _check_stretched(picture, width, height, max(max_pixels, side * side))
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))


def _check_stretched(picture: Image.Image, width: int, height: int, max_pixels: int) -> None:
    """DataError where a narrow picture would become too large before it is cut."""
    if width * height > max_pixels:
        raise DataError(
            f"{picture.width} × {picture.height} pixels would be stretched to {width} × {height} before they are cut. "
            f"Expected at most {max_pixels}; cut it or raise `max_pixels=`."
        )
