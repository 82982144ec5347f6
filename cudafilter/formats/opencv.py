"""What OpenCV encodes, without the interpreter's lock and in the order RGB."""

from __future__ import annotations

import cv2

from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer


def encode_jpeg(pixels: Pixels, quality: int, sampling: str, progressive: bool) -> Buffer:
    """uint8 gray or RGB *pixels* as a JPEG with the standard quantisation tables of *quality*.

    The same bytes as Pillow's. *sampling* is a name of jpeg_head.SAMPLINGS, such as "420".
    """
    ways = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    if pixels.shape[2] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        factor: int = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
        ways += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    _, encoded = cv2.imencode(".jpg", pixels, ways)
    return encoded.data
