"""Makes the sample pictures beside it: python samples/make_samples.py. Same bytes on every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
SCALE = 4
"""Shapes are drawn this many times larger and averaged down, for soft edges."""

INK, PAPER = (24, 28, 38), (246, 244, 238)
PALETTE = [
    (214, 69, 65), (235, 151, 78), (245, 215, 110), (77, 175, 124),
    (52, 152, 219), (65, 84, 178), (142, 68, 173), (210, 210, 210),
]  # fmt: skip

Array = npt.NDArray[Any]


def font(size: int) -> Any:
    return ImageFont.load_default(size * SCALE)


def wheel(draw: ImageDraw.ImageDraw, x: int, y: int, radius: int, spokes: int) -> None:
    """A Siemens star: edges at every angle, finer towards its middle."""
    box = [(v * SCALE) for v in (x - radius, y - radius, x + radius, y + radius)]
    step = 360 / spokes
    draw.ellipse(box, fill=PAPER, outline=INK, width=SCALE)
    for spoke in range(0, spokes, 2):
        draw.pieslice(box, spoke * step, (spoke + 1) * step, fill=INK)


def line_pairs(draw: ImageDraw.ImageDraw, x: int, y: int, height: int) -> None:
    """Upright bars of 8, 6, 4, 3, 2 and 1 pixels, four of each."""
    for width in (8, 6, 4, 3, 2, 1):
        for _ in range(4):
            box = (x, y, x + width, y + height)
            corners = [v * SCALE for v in box]
            draw.rectangle((corners[0], corners[1], corners[2] - 1, corners[3] - 1), fill=INK)
            x += 2 * width
        x += 4


def chart() -> Array:
    """512 x 384 RGB: what blurs, sharpens and finds edges visibly act on."""
    width, height = 512, 384
    picture = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    draw = ImageDraw.Draw(picture)

    def at(*values: float) -> tuple[Any, ...]:
        return tuple(value * SCALE for value in values)

    draw.rectangle(at(0, 0, width, 52), fill=INK)
    draw.text(at(20, 9), "cudafilter", font=font(30), fill=PAPER)
    draw.text(at(330, 20), "blur  sharpen  edges", font=font(15), fill=PALETTE[2])

    wheel(draw, 98, 146, 78, 48)
    line_pairs(draw, 198, 68, 44)
    y = 122.0
    for size in (22, 16, 12, 9, 7):
        draw.text(at(198, y), "Sphinx of black quartz", font=font(size), fill=INK)
        y += size * 1.32

    for i, colour in enumerate(PALETTE):
        x, y = 440 + i % 2 * 30, 122 + i // 2 * 27
        draw.rounded_rectangle(at(x, y, x + 26, y + 23), 4 * SCALE, fill=colour)

    box = at(20, 252, 148, 364)
    draw.rectangle(box, fill=(44, 62, 80))
    draw.ellipse(at(32, 264, 92, 324), fill=PALETTE[1])
    draw.polygon(at(84, 352, 136, 352, 118, 276), fill=PALETTE[3])
    draw.regular_polygon((*at(66, 334), 20 * SCALE), 6, rotation=17, fill=PALETTE[0])
    for i, slope in enumerate((1, 5, 12, 22)):
        draw.line(at(166, 258 + i * 6, 306, 258 + i * 6 + slope), fill=INK, width=(i + 1) * SCALE)
    for i in range(4):
        draw.arc(at(176 + i * 8, 304 + i * 8, 236 - i * 8, 364 - i * 8), 0, 360, fill=INK, width=6)
    for row in range(7):
        for column in range(7):
            if (row + column) % 2 == 0:
                x, y = 248 + column * 8, 306 + row * 8
                draw.rectangle(at(x, y, x + 8 - 1 / SCALE, y + 8 - 1 / SCALE), fill=INK)

    pixels = np.array(picture.reduce(SCALE))
    ramp = np.linspace(0, 255, 168).round().astype(np.uint8)
    pixels[252:276, 324:492] = ramp[None, :, None]
    pixels[280:304, 324:492] = (ramp // 32 * 36)[None, :, None]
    hue = np.zeros((56, 168, 3), np.uint8)
    hue[..., 0] = np.linspace(0, 179, 168).round()
    hue[..., 1] = np.linspace(255, 60, 56).round()[:, None]
    hue[..., 2] = 235
    pixels[308:364, 324:492] = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)
    return pixels


def coloured_shapes() -> Array:
    """256 x 256 RGBA: shapes with soft edges over full transparency.

    Transparent pixels are bright green, which shows wherever a filter lets them bleed.
    """
    size = 256
    premultiplied, alpha = np.zeros((size, size, 3)), np.zeros((size, size, 1))
    shapes = [
        ("ellipse", (18, 18, 138, 138), PALETTE[0], 1.0, 1),
        ("rectangle", (128, 40, 236, 112), PALETTE[4], 1.0, 0),
        ("ellipse", (116, 112, 244, 240), PALETTE[2], 0.6, 7),
        ("rectangle", (28, 156, 108, 236), PALETTE[6], 1.0, 3),
    ]
    for kind, box, fill, opacity, softness in shapes:
        shape = Image.new("L", (size * SCALE, size * SCALE), 0)
        getattr(ImageDraw.Draw(shape), kind)([v * SCALE for v in box], fill=255)
        cover: Array = np.array(shape.reduce(SCALE)) / 255
        if softness:
            cover = cv2.GaussianBlur(cover, (0, 0), softness)
        above = cover[..., None] * opacity
        premultiplied = premultiplied * (1 - above) + np.array(fill) * above
        alpha = alpha * (1 - above) + above
    stored = np.rint(alpha * 255)
    visible = stored > 0
    colour = np.where(visible, premultiplied / np.where(visible, alpha, 1), (0, 255, 0))
    return np.concatenate([np.rint(colour), stored], axis=2).astype(np.uint8)


def deep() -> Array:
    """192 x 128 RGB of 16 bits: gradients so flat that 8 bits would show bands."""
    y, x = np.mgrid[0:128, 0:192]
    red = 20000 + 12 * x + 3 * y
    green = 26000 + 9 * y + np.where((x - 96) ** 2 + (y - 64) ** 2 < 40**2, 700, 0)
    blue = 32000 + 8 * (191 - x) + 5 * y
    return np.stack([red, green, blue], axis=2).astype(np.uint16)


def odd() -> Image.Image:
    """37 x 23 with a palette of 8 colours: neither side is a multiple of anything."""
    y, x = np.mgrid[0:23, 0:37]
    rings = np.hypot(x - 18, (y - 11) * 1.3)
    picture = Image.fromarray((rings // 2.6 % 8).astype(np.uint8))
    picture.putpalette([sample for colour in PALETTE for sample in colour], "RGB")
    return picture


def main() -> None:
    """Write all samples."""
    Image.fromarray(chart()).save(HERE / "chart.png", optimize=True)
    Image.fromarray(coloured_shapes()).save(HERE / "alpha.png", optimize=True)
    ok, data = cv2.imencode(".png", deep()[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not ok:
        raise SystemExit("depth16.png could not be encoded")
    (HERE / "depth16.png").write_bytes(data.tobytes())
    odd().save(HERE / "odd.png", optimize=True)


if __name__ == "__main__":
    main()
