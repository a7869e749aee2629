"""Endings of file names and names of number types, each in one place for the rooms that share them."""

from __future__ import annotations

CHECKPOINT_ENDINGS = (".pkl", ".pt", ".pth", ".ckpt", ".bin", ".safetensors")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

TENSOR_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "complex64": "C64", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""The names of numpy and torch → those of safetensors (https://github.com/huggingface/safetensors#format)."""
