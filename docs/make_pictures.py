"""Makes the pictures beside it: python docs/make_pictures.py. Runs the real command line.

filters.png is the same part of samples/chart.png, as it is and under each filter of the catalogue.
before-after.jpg is samples/cat.jpg, as it is and sharpened. pair() makes those of the site's pages.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "samples" / "chart.png"
PHOTO = HERE.parent / "samples" / "cat.jpg"
BEFORE_AFTER = "unsharp --sigma 1.5 --amount 2"
PANELS = (
    "",
    "blur --sigma 3",
    "box --radius 4",
    "motion --length 15 --angle 30",
    "disk --radius 5",
    "bilateral --sigma 3 --range 0.15",
    "denoise --strength 0.1",
    "sharpen --amount 2",
    "unsharp --sigma 2 --amount 2",
    "highpass --sigma 3",
    "sobel --scale 0.5",
    "scharr --gray --scale 0.25",
    "prewitt --gray",
    "laplacian",
    "emboss --gray",
    "dog --sigma 2 --scale 3 --gray",
    "log --sigma 2 --scale 2 --gray",
    "gabor --angle 30 --scale 4 --gray",
    "canny --gray --low 0.2 --high 0.6",
    "median --radius 3",
    "percentile --radius 2 --rank 25",
    "erode --radius 2",
    "dilate --shape disk --radius 3",
    "open --radius 2",
    "close --radius 2",
    "tophat --radius 3",
    "blackhat --radius 3",
    "outline --gray",
    "invert",
    "levels --black 0.2 --gamma 2",
    "threshold --otsu --gray",
    'kernel --weights "0 1; -1 0" --bias 0.5',
)
"""What follows ``cudafilter``; nothing is the chart itself."""

PART = (74, 142, 234, 302)
"""The part of the chart that is shown: left, top, right, bottom."""
COLUMNS, GAP, CAPTION, LINE = 6, 8, 40, 15
"""Panels side by side; pixels between them, below them, and of a line of text."""
PAPER, INK = (255, 255, 255), (24, 28, 38)


def filtered(arguments: str, source: Path, folder: Path) -> Image.Image:
    """The picture *source* after ``cudafilter ARGUMENTS``, or as it is."""
    path = source
    if arguments:
        path = folder / "out.png"
        command = [sys.executable, "-m", "cudafilter", *shlex.split(arguments)]
        # One engine, so that the picture does not depend on where it is made.
        options = ["--engine", "cpu", "--check", "--quiet"]
        subprocess.run([*command, *options, str(source), str(path)], check=True, cwd=HERE.parent)
    with Image.open(path) as image:
        return image.convert("RGB")


def pair(arguments: str, *sources: Path) -> Image.Image:
    """Each of *sources* in a row: left as it is, right after ``cudafilter ARGUMENTS``.

    Of those that are larger than others, a part is shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            (filtered("", source, Path(folder)), filtered(arguments, source, Path(folder)))
            for source in sources
        ]
    width, height = (min(left.size[axis] for left, _ in rows) for axis in (0, 1))
    sheet = Image.new("RGB", (2 * width + GAP, len(rows) * (height + GAP) - GAP), PAPER)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            x, y = picture.width - width, picture.height - height
            part = picture.crop((x // 2, y // 2, x // 2 + width, y // 2 + height))
            sheet.paste(part, (column * (width + GAP), row * (height + GAP)))
    return sheet


def main() -> None:
    """Write filters.png and before-after.jpg."""
    pair(BEFORE_AFTER, PHOTO).save(HERE / "before-after.jpg", quality=88, optimize=True)
    width, height = PART[2] - PART[0] + GAP, PART[3] - PART[1] + CAPTION
    size = COLUMNS * width - GAP, -(-len(PANELS) // COLUMNS) * height
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    with tempfile.TemporaryDirectory() as folder:
        for i, arguments in enumerate(PANELS):
            x, y = i % COLUMNS * width, i // COLUMNS * height
            sheet.paste(filtered(arguments, CHART, Path(folder)).crop(PART), (x, y))
            name, _, options = (arguments or "original").partition(" ")
            for line, text in enumerate((name, options)):
                draw.text(
                    (x + (width - GAP) / 2, y + height - CAPTION + (line + 0.6) * LINE), text, INK,
                    font=ImageFont.load_default(13 - line), anchor="mm",
                )  # fmt: skip
    # A palette of the colours that lie apart: smooth enough to the eye, and a third of the bytes.
    palette = sheet.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(HERE / "filters.png", optimize=True)


if __name__ == "__main__":
    main()
