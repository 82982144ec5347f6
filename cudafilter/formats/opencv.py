"""What OpenCV decodes and encodes, without the interpreter's lock and in the order RGB.

It takes metadata and orientation into no account if the file holds none: see the callers.
"""

from __future__ import annotations

import cv2
import numpy as np

from cudafilter.formats.buffers import Buffer
from cudafilter.pixels import Pixels


def decode(data: bytes) -> Pixels | None:
    """The pixels of a file as they are stored, of all their bits; None where OpenCV cannot.

    (H, W, 1), (H, W, 3) in the order RGB or (H, W, 4) in the order RGBA.
    """
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        return None
    if decoded.ndim == 2:
        return np.asarray(decoded[..., None])
    swap = cv2.COLOR_BGR2RGB if decoded.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return np.asarray(cv2.cvtColor(decoded, swap, dst=decoded))


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
