"""Strips and tiles of TIFF that are pictures of other formats: JPEG 2000, WebP, PNG, JPEG XL.

Each is given room for the pixels that the layout has. So it holds just these, or is refused. JPEG
XR is not read: its decoder makes up what is missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Samples = Any
"""(rows, width, samples)."""

JPEG_2000, APERIO_RGB, JPEG_2000_LOSSY = 34712, 33005, 33004
WEBP, OLD_WEBP, PNG = 50001, 34927, 34933
JPEG_XL, JPEG_XL_DNG = 50002, 52546

_FUNCTIONS = {
    JPEG_2000: "jpeg2k_decode", APERIO_RGB: "jpeg2k_decode", JPEG_2000_LOSSY: "jpeg2k_decode",
    WEBP: "webp_decode", OLD_WEBP: "webp_decode", PNG: "png_decode", JPEG_XL: "jpegxl_decode",
    JPEG_XL_DNG: "jpegxl_decode",
}  # fmt: skip
"""The compression's number -> imagecodecs' decoder."""
PICTURES = frozenset(_FUNCTIONS)
_CODESTREAM, _SIZE = b"\xff\x4f\xff\x51", 40
"""How a picture of JPEG 2000 begins, and bytes of its head that tell the size."""


def decode(compression: int, data: Any, shape: tuple[int, int, int], dtype: Any) -> Samples | None:
    """The samples of *shape* and *dtype* in *data*; None where it holds others.

    Raises what the decoder raises: RuntimeError or ValueError.
    """
    import imagecodecs

    stream = bytes(data)
    if _FUNCTIONS[compression] == "jpeg2k_decode" and _size_of_2000(stream) != shape:
        return None  # its decoder takes memory for all that the head says
    room = np.empty(shape if shape[2] > 1 else shape[:2], dtype)
    done = getattr(imagecodecs, _FUNCTIONS[compression])(stream, out=room)
    return done.reshape(shape) if done.shape == room.shape and done.dtype == dtype else None


def _size_of_2000(stream: bytes) -> tuple[int, ...]:
    """(rows, width, samples) of a picture of JPEG 2000; empty where it has no head."""
    at = stream.find(_CODESTREAM)
    head = stream[at : at + _SIZE + 2]
    if at < 0 or len(head) < _SIZE + 2:
        return ()
    right, bottom, left, top = (int.from_bytes(head[n : n + 4], "big") for n in (8, 12, 16, 20))
    return bottom - top, right - left, int.from_bytes(head[40:42], "big")
