"""The works of wallclock.py: pictures, and the command of each tool that does the same to them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from cudafilter.operations import reference
from cudafilter.operations.make import make

LARGE, MIDDLE, SMALL = (4032, 3024), (1632, 1224), (64, 64)
"""Width and height: 12 megapixels, 2 megapixels, an icon."""
QUALITY = 90

MEAN, TAIL = 1.0, 12
"""Difference from the reference, in steps of 255, that counts as the same picture: on average,
and of all but a thousandth of the samples. Tools cut the kernel at 2 to 4 sigma, approximate it
by boxes or recursion, and JPEG takes its own share."""

ROOT = Path(__file__).resolve().parent.parent

CONSOLE_SCRIPT = "import sys; from cudafilter.__main__ import main; sys.exit(main())"

OPENCV = f"""
import sys, cv2
source, destination = sys.argv[1:]
image = cv2.imread(source)
image = cv2.GaussianBlur(image, (13, 13), 2, borderType=cv2.BORDER_REPLICATE)
jpeg = [cv2.IMWRITE_JPEG_QUALITY, {QUALITY},
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
cv2.imwrite(destination, image, jpeg if destination.endswith(".jpg") else [])
"""

OPENCV_WORK = f"""
import os, sys, cv2
source, destination, workers = sys.argv[1:]
jpeg = [cv2.IMWRITE_JPEG_QUALITY, {QUALITY},
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
def work(name):
    image = cv2.imread(os.path.join(source, name))
    image = cv2.GaussianBlur(image, (13, 13), 2, borderType=cv2.BORDER_REPLICATE)
    settings = jpeg if name.endswith(".jpg") else []
    assert cv2.imwrite(os.path.join(destination, name), image, settings)
"""

OPENCV_POOL = f"""{OPENCV_WORK}
from multiprocessing import Pool
if __name__ == "__main__":
    with Pool(int(workers), cv2.setNumThreads, (1,)) as pool:
        for _ in pool.imap_unordered(work, sorted(os.listdir(source))):
            pass
"""

PILLOW = f"""
import sys
from PIL import Image, ImageFilter
source, destination = sys.argv[1:]
settings = dict(quality={QUALITY}, subsampling="4:2:0") if destination.endswith(".jpg") else {{}}
Image.open(source).filter(ImageFilter.GaussianBlur(2)).save(destination, **settings)
"""

Array = npt.NDArray[np.uint8]


@dataclass
class Contender:
    """A command that does the work, and how long it took. Times are in seconds."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list, kw_only=True)
    failure: str | None = field(default=None, kw_only=True)

    @property
    def median(self) -> float:
        return median(self.seconds) if self.seconds else 0.0


@dataclass
class Compared(Contender):
    """A contender of wallclock.py, whose output is compared with the reference."""

    output: Path | None = None
    """The file or folder that it writes."""
    stdin: str = ""
    env: dict[str, str] = field(default_factory=dict)
    mean: float | None = None
    tail: float | None = None
    """Differences from the reference: see MEAN and TAIL."""
    nbytes: int | None = None

    @property
    def right(self) -> bool:
        """It ran, and what it wrote is the picture asked for."""
        differs = self.mean is not None and (self.mean > MEAN or (self.tail or 0) > TAIL)
        return self.failure is None and not differs


@dataclass(frozen=True)
class Bar:
    """Ours against the fastest of *peers* (all but *but* where none are named)."""

    text: str
    limit: float
    """Highest ratio of our time to theirs; with *rate*, lowest of our images/s to theirs."""
    peers: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    rate: bool = False


@dataclass
class Work:
    """The same work for all contenders; the first one is ours."""

    name: str
    title: str
    contenders: list[Compared]
    bars: list[Bar]
    expected: dict[str, Array] = field(default_factory=dict)
    """Reference results (H, W, 3), by name of the file in a folder, or "" for a single file."""
    images: int = 1


def photo(width: int, height: int) -> Array:
    """(height, width, 3): noise of every scale, coarse strongest, outlines, and grain of a sensor.

    Made so that its PNG and JPEG are as large as those of a daylight photo of that size.
    """
    random = np.random.default_rng(0)

    def clouds(strength: float, decay: float, channels: int) -> npt.NDArray[np.float32]:
        field = np.zeros((height, width, channels), np.float32)
        side = 4
        while side < max(width, height) / 2:
            shape = (max(2, side * height // width), side, channels)
            octave = random.standard_normal(shape, np.float32)
            large = cv2.resize(octave, (width, height), interpolation=cv2.INTER_CUBIC)
            field += strength * large.reshape(field.shape)
            side, strength = side * 2, strength * decay
        return field

    scene = 120 + clouds(24, 0.9, 1) + clouds(12, 0.5, 3)
    for level in (30, -40):  # things with outlines before it, each of a colour of its own
        scene = np.where(clouds(40, 0.5, 1) > level, scene, scene / 2 + clouds(40, 0.1, 3) + 60)
    scene += random.standard_normal((height, width, 1), np.float32) * 5
    scene += random.standard_normal((height, width, 3), np.float32) * 1.5
    made: Array = np.clip(np.rint(scene), 0, 255).astype(np.uint8)
    return made


def environment(folder: Path) -> dict[str, str]:
    """What every contender runs in: Python finds this checkout first, and keeps the bytecode of all
    that is imported, as pip does for what it installs, below *folder*."""
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    paths = [str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    return {
        **env,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }


def write(pixels: Array, path: Path) -> None:
    settings: dict[str, Any] = {"compress_level": 6}
    if path.suffix == ".jpg":
        settings = {"quality": QUALITY, "subsampling": "4:2:0"}
    Image.fromarray(pixels).save(path, **settings)


def read(path: Path) -> Array:
    """The (H, W, 3) pixels of a file, as Pillow decodes them."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def blurred(path: Path) -> Array:
    return reference.apply(read(path), make("blur", sigma=2)).astype(np.uint8)


class Works:
    """Makes the works in *folder*, for the tools that are installed; ``missing`` names the rest."""

    def __init__(self, folder: Path, cores: int, engine: str, images: int) -> None:
        self._folder, self._cores, self._engine, self._images = folder, cores, engine, images
        self._photo = photo(*LARGE)
        self._magick = next(
            (name for name in ("magick", "convert-im6.q16", "convert") if shutil.which(name)), ""
        )
        self.missing = [
            name
            for name, program in {
                "ImageMagick": self._magick,
                "GraphicsMagick": "gm",
                "libvips": "vips",
                "G'MIC": "gmic",
                "ffmpeg": "ffmpeg",
                "xargs": "xargs",
            }.items()
            if not (program and shutil.which(program))
        ]

    def png(self) -> Work:
        source = self._folder / "photo.png"
        write(self._photo, source)
        bars = [Bar("at most 0.7x the fastest peer (aim 0.5x)", 0.7)]
        return Work(
            "png", "12-megapixel PNG -> PNG", list(self._singles(source)), bars,
            {"": blurred(source)},
        )  # fmt: skip

    def jpeg(self) -> Work:
        source = self._folder / "photo.jpg"
        write(self._photo, source)
        bars = [
            Bar("at most 1.3x libvips (aim 1.0x)", 1.3, ("libvips",)),
            Bar("faster than every other peer", 1.0, but=("libvips",)),
        ]
        return Work(
            "jpeg", "12-megapixel JPEG -> JPEG", list(self._singles(source)), bars,
            {"": blurred(source)},
        )  # fmt: skip

    def folder(self) -> Work:
        sources = self._folder / "in"
        sources.mkdir()
        random = np.random.default_rng(1)
        names = [f"{i:03}.{'jpg' if i % 2 else 'png'}" for i in range(self._images)]
        for name in names:
            write(self._part(MIDDLE, random), sources / name)
        title = f"{len(names)} mixed 2-megapixel PNGs and JPEGs in one call"
        bars = [Bar("at least 1.3x the images/s of the fastest peer", 1.3, rate=True)]
        expected = {name: blurred(sources / name) for name in names[:4]}
        return Work(
            "folder", title, list(self._folders(sources, names)), bars, expected, len(names)
        )

    def small(self) -> Work:
        source, out = self._folder / "icon.png", self._folder / "icon-ours.png"
        write(self._part(SMALL, np.random.default_rng(2)), source)
        bar = Bar("at most 2x the import of its libraries", 2.0)
        contenders = [self._ours([str(source), str(out)], out), _python("numpy, PIL.Image, click")]
        return Work("small", "64x64 PNG -> PNG", contenders, [bar], {"": blurred(source)})

    def help(self) -> Work:
        bar = Bar("at most 1.8x the import of click", 1.8)
        ours = Compared("cudafilter", [sys.executable, "-c", CONSOLE_SCRIPT, "--help"])
        return Work("help", "--help", [ours, _python("click")], [bar])

    def _part(self, size: tuple[int, int], random: np.random.Generator) -> Array:
        x, y = (int(random.integers(n - m)) for n, m in zip(LARGE, size, strict=True))
        return np.ascontiguousarray(self._photo[y : y + size[1], x : x + size[0]])

    def _ours(self, paths: Sequence[str], out: Path) -> Compared:
        options = ["blur", "--sigma", "2", "--engine", self._engine, "--quiet"]
        command = [sys.executable, "-c", CONSOLE_SCRIPT, *options, *paths]
        return Compared("cudafilter", command, out)

    def _singles(self, source: Path) -> Iterator[Compared]:
        """Every tool on one file."""
        jpeg = source.suffix == ".jpg"
        given = str(source)

        out = source.with_name(f"{source.stem}-ours{source.suffix}")
        yield self._ours([given, str(out)], out)
        found = {
            "ImageMagick": (self._magick, given, *_magick(jpeg), "OUT"),
            "GraphicsMagick": ("gm", "convert", given, *_magick(jpeg, "2x2"), "OUT"),
            "libvips": ("vips", "gaussblur", given, "OUT" + _vips(jpeg), "2"),
            "G'MIC": ("gmic", given, "blur", "2", "-o", "OUT" + (f",{QUALITY}" if jpeg else "")),
            # JPEG is blurred as RGB, as by the others: on the chroma of half the resolution, the
            # second form, sigma 2 is sigma 4.
            "ffmpeg": _ffmpeg(given, "format=gbrp,", ",format=yuvj420p")
            if jpeg
            else _ffmpeg(given),
            "ffmpeg, YUV": _ffmpeg(given) if jpeg else (),
            "OpenCV script": (sys.executable, "-c", OPENCV, given, "OUT"),
            "Pillow script": (sys.executable, "-c", PILLOW, given, "OUT"),
        }
        for i, (name, command) in enumerate(found.items()):
            if command and name not in self.missing:
                path = source.with_name(f"{source.stem}-{i}{source.suffix}")
                words = [word.replace("OUT", str(path)) for word in command]
                yield Compared(name, words, path, env={"VIPS_CONCURRENCY": str(self._cores)})

    def _folders(self, sources: Path, names: Sequence[str]) -> Iterator[Compared]:
        """Every tool on a folder. The folders for their outputs are made here."""

        def out(tool: str) -> Path:
            path = self._folder / f"out-{tool}"
            path.mkdir()
            return path

        def lines(words: Sequence[str], out: Path, settings: dict[bool, str]) -> str:
            """A line for xargs of each file: *words* with its paths and its format's settings."""
            made = []
            for name in names:
                line = " ".join(words).replace("IN", str(sources / name))
                line = line.replace("SET", settings[name.endswith(".jpg")])
                made.append(line.replace("OUT", str(out / name)))
            return "\n".join(made)

        ours = out("ours")
        yield self._ours(["-r", str(sources), str(ours)], ours)
        xargs = ["xargs", "-L", "1", "-P", str(self._cores)]
        if not {"xargs", "libvips"} & {*self.missing}:
            path = out("vips")
            files = lines(
                ["IN", "OUTSET", "2"], path, {jpeg: _vips(jpeg) for jpeg in (True, False)}
            )
            yield Compared(
                "libvips, xargs", [*xargs, "vips", "gaussblur"], path, files,
                {"VIPS_CONCURRENCY": "1"},
            )  # fmt: skip
        if not {"xargs", "ImageMagick"} & {*self.missing}:
            path = out("magick")
            settings = {jpeg: " ".join(_magick(jpeg)) for jpeg in (True, False)}
            files = lines(["IN", "SET", "OUT"], path, settings)
            yield Compared(
                "ImageMagick, xargs", [*xargs, self._magick], path, files,
                {"MAGICK_THREAD_LIMIT": "1"},
            )  # fmt: skip
        path = out("opencv")
        script = self._folder / "opencv_pool.py"
        script.write_text(OPENCV_POOL)
        words = [sys.executable, str(script), str(sources), str(path), str(self._cores)]
        yield Compared("OpenCV script, a pool", words, path)


def _python(modules: str) -> Compared:
    return Compared(f"import {modules}", [sys.executable, "-c", f"import {modules}"])


def _magick(jpeg: bool, sampling: str = "4:2:0") -> list[str]:
    settings = ["-quality", str(QUALITY), "-sampling-factor", sampling] if jpeg else []
    return ["-blur", "0x2", *settings]


def _vips(jpeg: bool) -> str:
    return f"[Q={QUALITY},subsample_mode=on]" if jpeg else ""


def _ffmpeg(source: str, before: str = "", after: str = "") -> tuple[str, ...]:
    quality = ("-q:v", "3") if source.endswith(".jpg") else ()
    chain = f"{before}gblur=sigma=2{after}"
    return ("ffmpeg", "-v", "error", "-y", "-i", source, "-vf", chain, *quality, "OUT")
