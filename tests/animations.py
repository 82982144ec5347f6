"""Animations made patch by patch, what they show by the formats' own words, and other readers."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image as Pil

from cudafilter.formats.metadata import Animation, Metadata
from cudafilter.images import Image, Output
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Pieces
from image_files import chunk

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from fuzz_blocks import gif_blocks, lzw, riff

KEEP, BACKGROUND, PREVIOUS = range(3)
SIZE = (24, 18)
"""Width and height of all that is made here."""


class Patch(NamedTuple):
    """A frame as a file stores it."""

    pixels: Pixels
    """(H, W, 4), straight RGBA."""
    left: int = 0
    top: int = 0
    ms: int = 70
    disposal: int = KEEP
    blends: bool = True


def patch(
    seed: int,
    width: int = SIZE[0],
    height: int = SIZE[1],
    *,
    alphas: tuple[int, ...] = (255,),
    colours: int = 6,
    left: int = 0,
    top: int = 0,
    ms: int = 70,
    disposal: int = KEEP,
    blends: bool = True,
) -> Patch:
    """One of *colours* colours, blocks of 3 x 3 pixels, each with one of *alphas*."""
    rng = np.random.default_rng([seed, width, height])
    palette = rng.integers(0, 256, (colours, 4), np.uint8)
    palette[:, 3] = rng.permutation(np.resize(np.array(alphas, np.uint8), colours))
    blocks = rng.integers(0, colours, (-(-height // 3), -(-width // 3)))
    whole = np.kron(blocks, np.ones((3, 3), np.int64))[:height, :width]
    return Patch(palette[whole], left, top, ms, disposal, blends)


CLEAR = (0, 255)
PATCHES: dict[str, list[Patch]] = {
    "whole frames": [patch(0), patch(1), patch(2)],
    "offsets": [patch(0), patch(1, 7, 5, left=4, top=6), patch(2, 3, 9, left=20, top=8)],
    "a first frame that leaves some free": [
        patch(0, 9, 6, left=6, top=4), patch(1, 10, 10, left=2, top=2), patch(2, 1, 1)
    ],
    "background disposal": [
        patch(0), patch(1, 9, 8, left=4, top=2, disposal=BACKGROUND), patch(2, 5, 5, left=2),
        patch(3, disposal=BACKGROUND), patch(4, 8, 8, left=8, top=8),
    ],
    "previous disposal": [
        patch(0), patch(1, 9, 8, left=4, top=2, disposal=PREVIOUS), patch(2, 5, 5, left=2),
        patch(3, 12, 9, left=6, top=4, disposal=PREVIOUS, alphas=CLEAR), patch(4, 2, 2),
    ],
    "previous disposal at once": [
        patch(0, disposal=PREVIOUS), patch(1, 9, 8, left=4, top=2), patch(2, 5, 5, left=2)
    ],
    "transparency": [
        patch(0, alphas=CLEAR), patch(1, alphas=CLEAR),
        patch(2, 9, 7, left=6, alphas=CLEAR, disposal=BACKGROUND), patch(3, alphas=CLEAR),
    ],
    "the same again": [patch(0), patch(0), patch(0, 9, 6, left=2), patch(0)],
    "odd times": [patch(0, ms=0), patch(1, ms=10), patch(2, ms=65_000), patch(3, ms=0)],
    "nothing to see": [
        Patch(np.zeros((SIZE[1], SIZE[0], 4), np.uint8)), patch(1, disposal=BACKGROUND),
        Patch(np.zeros((1, 1, 4), np.uint8), 4, 4),
    ],
    "colours that many": [patch(0, colours=200), patch(1, colours=250, left=0)],
}  # fmt: skip
"""What GIF, PNG and WebP hold alike: animations by their odd feature."""

SOFT: dict[str, list[Patch]] = {
    "put in place": [
        patch(0, alphas=CLEAR), patch(1, 9, 8, left=4, top=2, alphas=CLEAR, blends=False),
        patch(2, alphas=CLEAR, blends=False, disposal=BACKGROUND), patch(3, 8, 8, blends=False),
    ],
    "half transparent": [
        patch(0, alphas=(0, 90, 255)), patch(1, alphas=(0, 10, 128, 255)),
        patch(2, 12, 10, left=6, top=2, alphas=(200, 3, 0), blends=False), patch(3, alphas=(77,)),
    ],
}  # fmt: skip
"""What GIF does not hold."""


def composed(patches: list[Patch]) -> list[Pixels]:
    """The frames (H, W, 4) that *patches* show, pixel by pixel."""
    width, height = SIZE
    canvas = np.zeros((height, width, 4), np.uint8)
    shown = []
    for number, one in enumerate(patches):
        before = canvas.copy()
        for y, x in np.ndindex(one.pixels.shape[:2]):
            over, under = one.pixels[y, x], canvas[one.top + y, one.left + x]
            if not one.blends or over[3] == 255:
                under[...] = over
            elif over[3]:
                a, b = over[3] / 255, under[3] / 255 * (1 - over[3] / 255)
                colour = (over[:3] * a + under[:3] * b) / (a + b)
                under[...] = np.rint([*colour, 255 * (a + b)])
        shown.append(canvas.copy())
        disposal = one.disposal
        if disposal == PREVIOUS and number == 0:
            disposal = BACKGROUND
        if disposal == PREVIOUS:
            canvas = before
        elif disposal == BACKGROUND:
            rows, columns = one.pixels.shape[:2]
            canvas[one.top : one.top + rows, one.left : one.left + columns] = 0
    return shown


def gif(patches: list[Patch], plays: int = 0) -> bytes:
    """A GIF with a palette for each frame, whose last entry is transparent."""
    file = b"GIF89a" + struct.pack("<HHBBB", *SIZE, 0, 0, 0)
    if plays != 1:
        again = max(0, plays - 1)
        file += b"!\xff\x0bNETSCAPE2.0" + gif_blocks(struct.pack("<BH", 1, again))
    for one in patches:
        height, width = one.pixels.shape[:2]
        codes = one.pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1, 0], np.uint32)
        clear = one.pixels[..., 3] == 0
        found, numbers = np.unique(codes[~clear], return_inverse=True)
        indices = np.full((height, width), 255, np.uint8)
        indices[~clear] = numbers
        table = np.zeros((256, 3), np.uint8)
        table[: len(found)] = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
        told = (one.disposal + 1) << 2 | bool(clear.any())
        file += b"!\xf9" + gif_blocks(struct.pack("<BHB", told, one.ms // 10, 255))
        file += struct.pack("<BHHHHB", 0x2C, one.left, one.top, width, height, 0x87)
        file += table.tobytes() + b"\x08" + gif_blocks(lzw(indices.tobytes(), 8))
    return file + b";"


def _file(pixels: Pixels, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Pil.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def apng(
    patches: list[Patch], plays: int = 0, hidden: Pixels | None = None, colour: int = 6
) -> bytes:
    """An animated PNG; *hidden* is a picture for viewers of stills that is no frame.

    *colour* is 6 for RGBA, 2 for RGB.
    """
    if colour == 2:
        patches = [one._replace(pixels=one.pixels[..., :3]) for one in patches]
    width, height = SIZE
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    file += chunk(b"acTL", struct.pack(">II", len(patches), plays))
    file += chunk(b"IDAT", _rows(hidden)) if hidden is not None else b""
    number = 0
    for at, one in enumerate(patches):
        rows, columns = one.pixels.shape[:2]
        body = struct.pack(
            ">IIIIIHHBB", number, columns, rows, one.left, one.top, one.ms, 1000, one.disposal,
            one.blends,
        )  # fmt: skip
        file += chunk(b"fcTL", body)
        number += 1
        if at == 0 and hidden is None:
            file += chunk(b"IDAT", _rows(one.pixels))
            continue
        data = _rows(one.pixels)
        for part in (data[:20], data[20:]):
            file += chunk(b"fdAT", struct.pack(">I", number) + part)
            number += 1
    return file + chunk(b"IEND")


def _rows(pixels: Pixels) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))


def webp(patches: list[Patch], plays: int = 0) -> bytes:
    """A lossless WebP."""
    chunks = [
        (b"VP8X", b"\x12\0\0\0" + _threes(SIZE[0] - 1, SIZE[1] - 1)),
        (b"ANIM", bytes(4) + struct.pack("<H", plays)),
    ]
    for one in patches:
        height, width = one.pixels.shape[:2]
        coded = _file(one.pixels, "WebP", lossless=True, exact=True)
        place = _threes(one.left // 2, one.top // 2, width - 1, height - 1, one.ms)
        flags = (not one.blends) << 1 | (one.disposal == BACKGROUND)
        at = coded.index(b"VP8L")
        chunks.append((b"ANMF", place + bytes([flags]) + coded[at:]))
    return riff(chunks)


def _threes(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(3, "little") for number in numbers)


MAKERS = {"gif": gif, "png": apng, "webp": webp}


def features(format: str) -> dict[str, list[Patch]]:
    """The animations that a file of *format* holds."""
    if format == "gif":
        return PATCHES
    if format == "png":
        return PATCHES | SOFT
    previous = {name for name in PATCHES if "previous" in name}  # WebP has no such disposal
    return {name: made for name, made in (PATCHES | SOFT).items() if name not in previous}


def written(
    format: str,
    frames: list[Pixels],
    metadata: Metadata | None = None,
    plays: int = 0,
) -> bytes:
    """A file of *frames*, each shown for 0.1 s."""
    metadata = replace(metadata or Metadata(), animation=Animation(plays))
    file = Pieces()
    output = Output(format, file, len(frames))
    for pixels in frames:
        alpha = pixels.shape[2] == 4
        output.add(Image(pixels, alpha, metadata, seconds=Fraction(1, 10)))
    output.close()
    return bytes(file.joined())


class Read(NamedTuple):
    """An animation as another program sees it."""

    frames: list[Pixels]
    """RGBA."""
    ms: list[int]
    plays: int


def by_pillow(file: Path | bytes) -> Read:
    """*file* as Pillow reads it."""
    with Pil.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        loop = image.info.get("loop")
        plays = loop or 0
        if image.format == "GIF":
            plays = 1 if loop is None else loop + 1 if loop else 0
        frames, times = [], []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGBA")))
            times.append(round(image.info["duration"]))
        return Read(frames, times, plays)


def by_opencv(file: Path) -> Read:
    """*file* as OpenCV reads it. What is transparent in a GIF comes black."""
    well, found = cv2.imreadanimation(str(file))
    assert well
    frames = []
    for frame in found.frames:
        code = cv2.COLOR_BGRA2RGBA if frame.shape[2] == 4 else cv2.COLOR_BGR2RGBA
        frames.append(cv2.cvtColor(frame, code))
    return Read(frames, [int(ms) for ms in found.durations], int(found.loop_count))
