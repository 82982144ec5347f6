"""Makes filters.png beside it: python docs/make_pictures.py. Runs the real command line.

The same part of samples/chart.png, as it is and under four filters, side by side.
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
PANELS = ("", "blur --sigma 3", "sharpen --amount 2", "sobel", "emboss --gray")
"""What follows ``cudafilter``; nothing is the chart itself."""

PART = (12, 62, 252, 302)
"""The part of the chart that is shown: left, top, right, bottom."""
GAP, CAPTION = 10, 30
"""Pixels between panels, and below them."""
PAPER, INK = (255, 255, 255), (24, 28, 38)


def panel(arguments: str, folder: Path) -> Image.Image:
    """The part of the chart after ``cudafilter ARGUMENTS``."""
    path = CHART
    if arguments:
        path = folder / "out.png"
        command = [sys.executable, "-m", "cudafilter", *shlex.split(arguments)]
        # One engine, so that the picture does not depend on where it is made.
        options = ["--engine", "cpu", "--check", "--quiet"]
        subprocess.run([*command, *options, str(CHART), str(path)], check=True, cwd=HERE.parent)
    with Image.open(path) as image:
        return image.convert("RGB").crop(PART)


def main() -> None:
    """Write filters.png."""
    width, height = PART[2] - PART[0], PART[3] - PART[1]
    strip = Image.new("RGB", (len(PANELS) * (width + GAP) - GAP, height + CAPTION), PAPER)
    draw = ImageDraw.Draw(strip)
    with tempfile.TemporaryDirectory() as folder:
        for i, arguments in enumerate(PANELS):
            x = i * (width + GAP)
            strip.paste(panel(arguments, Path(folder)), (x, 0))
            draw.text(
                (x + width / 2, height + CAPTION / 2), arguments or "original", INK,
                font=ImageFont.load_default(16), anchor="mm",
            )  # fmt: skip
    # A palette of 256: smooth to the eye, and a third of the bytes.
    strip.quantize(256).save(HERE / "filters.png", optimize=True)


if __name__ == "__main__":
    main()
