"""How far each filter and the same in other tools differ: python tools/elsewhere.py.

The code is that of docs/filters.toml, which the pages of the filters show. The tools are OpenCV,
and those of scikit-image, ImageMagick and G'MIC that are installed. It prints JSON for
docs/figures/elsewhere.json: the largest difference on samples/chart.png, in steps of 8 bits, and
where that is more than 1 the mean one. A tool that is not installed gets no figures.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import cudafilter
from cudafilter.cli.steps import parse_steps

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "samples" / "chart.png"
FILTERS: dict[str, dict[str, Any]] = tomllib.loads(
    (ROOT / "docs" / "filters.toml").read_text(encoding="utf-8")
)
TITLES = {
    "imagemagick": "ImageMagick",
    "opencv": "OpenCV",
    "skimage": "scikit-image",
    "gmic": "G'MIC",
}
"""The tools, and what they are called."""
MODULES = (
    "exposure", "feature", "filters", "morphology", "restoration", "util",
)  # fmt: skip
"""What the code for scikit-image imports from it."""

Levels = npt.NDArray[np.uint8]


def source(name: str) -> Levels:
    """The image that filter *name* is compared on: (H, W, 3), or (H, W) of a filter for gray."""
    with Image.open(CHART) as chart:
        return np.asarray(chart.convert("L" if FILTERS[name].get("gray") else "RGB"))


def ours(name: str, image: Levels) -> Levels:
    """What cudafilter makes of *image*."""
    (step,) = parse_steps(f"{name} {FILTERS[name]['options']}")
    return cudafilter.apply(image, name, engine="cpu", **step.parameters)


def opencv(code: str, image: Levels) -> Levels:
    """What *code* for OpenCV makes of *image*."""
    return _python(code, image, cv2=import_module("cv2"))


def skimage(code: str, image: Levels) -> Levels:
    """What *code* for scikit-image and SciPy makes of *image*."""
    modules = {each: import_module(f"skimage.{each}") for each in MODULES}
    return _python(code, image, ndimage=import_module("scipy.ndimage"), **modules)


def command(line: str, folder: Path) -> Levels:
    """What the command *line* makes of *folder*'s in.png."""
    program, *arguments = shlex.split(line)
    subprocess.run(
        [_program(program) or program, *arguments], cwd=folder, check=True, timeout=60,
        capture_output=True,
    )  # fmt: skip
    return _read(folder / "out.png")


def _program(name: str) -> str | None:
    """Where *name* is; ImageMagick's was called convert up to version 6."""
    return shutil.which(name) or (_imagemagick6() if name == "magick" else None)


def _imagemagick6() -> str | None:
    for path in ("/usr/bin/convert", shutil.which("convert")):
        if path and Path(path).exists():
            told = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
            if "ImageMagick" in told.stdout:
                return path
    return None


def _python(code: str, image: Levels, **names: object) -> Levels:
    space: dict[str, Any] = {"image": image.copy(), "np": np, **names}
    exec(code, space)  # the code is this repository's own
    return np.clip(np.rint(np.asarray(space["out"], np.float64)), 0, 255).astype(np.uint8)


def _read(path: Path) -> Levels:
    with Image.open(path) as image:
        return np.asarray(image)


def is_here(tool: str) -> bool:
    """Whether *tool* is installed."""
    if tool in ("opencv", "skimage"):
        return find_spec({"opencv": "cv2", "skimage": "skimage"}[tool]) is not None
    return _program({"imagemagick": "magick", "gmic": "gmic"}[tool]) is not None


def difference(name: str, tool: str) -> tuple[int, float]:
    """Of filter *name* the largest and the mean difference from *tool*, in steps of 8 bits."""
    image, code = source(name), FILTERS[name][tool]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        Image.fromarray(image).save(folder / "in.png")
        run: dict[str, Callable[[], Levels]] = {
            "opencv": lambda: opencv(code, image), "skimage": lambda: skimage(code, image)
        }  # fmt: skip
        theirs = run.get(tool, lambda: command(code, folder))()
        off = np.abs(ours(name, image).astype(int) - _like(theirs, image))
    return int(off.max()), float(off.mean())


def _like(pixels: Levels, image: Levels) -> Levels:
    """*pixels* in the shape of *image*: programs write equal channels as one, or one as three."""
    if pixels.ndim == 3 and image.ndim == 2:
        return pixels[..., 0]
    if pixels.ndim == 2 and image.ndim == 3:
        return np.repeat(pixels[..., None], 3, axis=2)
    return pixels


def cell(name: str, tool: str) -> str | int | None:
    """The figure of a filter and a tool; None where there is no code, or no tool."""
    if tool not in FILTERS[name] or not is_here(tool):
        return None
    largest, mean = difference(name, tool)
    return largest if largest <= 1 else f"{largest} ({mean:.2g})"


def versions() -> str:
    """The tools that are here, with their versions."""
    told = [f"OpenCV {version('opencv-python-headless')}"]
    if is_here("skimage"):
        told.append(f"scikit-image {version('scikit-image')}, SciPy {version('scipy')}")
    for tool, program, word in (
        ("imagemagick", "magick", "Version: "),
        ("gmic", "gmic", "Version "),
    ):
        if is_here(tool):
            ask = [str(_program(program)), "-version" if tool == "imagemagick" else "version"]
            done = subprocess.run(ask, capture_output=True, text=True, check=False)
            told_line = (done.stdout + done.stderr).partition(word)[2].split("\n")[0]
            line = re.sub(r"\x1b\S*", "", told_line)  # its colours
            told.append(
                line.split(" http")[0] if tool == "imagemagick" else f"{TITLES[tool]} {line}"
            )
    return ", ".join(told)


def main() -> None:
    """Print the figures."""
    rows = [[f"`{name}`", *(cell(name, tool) for tool in TITLES)] for name in FILTERS]
    figures = {
        "published": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": versions(),
        "command": "python tools/elsewhere.py",
        "conditions": "largest difference on samples/chart.png, in steps of 8 bits, and where it is"
        " more than 1 the mean one in brackets; a dash: there is no such filter",
        "columns": ["filter", *TITLES.values()],
        "rows": rows,
    }
    head = json.dumps({**figures, "rows": None}, indent=2, ensure_ascii=False)
    lines = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows)
    print(head.replace('"rows": null', f'"rows": [\n{lines}\n  ]'))


if __name__ == "__main__":
    main()
