"""What OpenCV encodes, without the interpreter's lock and in the order RGB."""

from __future__ import annotations

import cv2

from cudafilter.formats.buffers import Buffer
from cudafilter.pixels import Pixels

_SAMPLING = {
    0: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    1: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    2: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def encode_jpeg(pixels: Pixels, quality: int, subsampling: int, progressive: bool) -> Buffer:
    """uint8 gray or RGB *pixels* as a JPEG with the standard quantisation tables of *quality*.

    The same bytes as Pillow's, whose code for *subsampling* this is.
    """
    ways = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    if pixels.shape[2] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        ways += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING[subsampling]]
    _, encoded = cv2.imencode(".jpg", pixels, ways)
    return encoded.data
