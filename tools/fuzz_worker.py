"""The fuzzer's child process: reads file after file and judges what comes of each."""

from __future__ import annotations

import os
import re
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from multiprocessing.connection import Connection
from typing import NamedTuple

import fuzz_bitmaps
import fuzz_blocks
import fuzz_boxes
import fuzz_jpeg
import fuzz_png
import fuzz_tiff
import numpy as np
from fuzz_cases import Case, Format, Seed, case_of

from cudafilter import images
from cudafilter.errors import CudafilterError, FramesError, ImageError
from cudafilter.formats import table
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Pieces

FORMATS: dict[str, Format] = {
    "png": fuzz_png.FORMAT,
    "jpeg": fuzz_jpeg.FORMAT,
    "tiff": fuzz_tiff.FORMAT,
    "webp": fuzz_blocks.WEBP,
    "bmp": fuzz_bitmaps.BMP,
    "pnm": fuzz_bitmaps.PNM,
    "gif": fuzz_blocks.GIF,
    "qoi": fuzz_boxes.QOI,
    "jp2": fuzz_boxes.JP2,
    "j2k": fuzz_boxes.J2K,
    "avif": fuzz_boxes.AVIF,
    "jxl": fuzz_boxes.JXL,
}
if find_spec("pillow_heif"):  # an extra
    FORMATS["heic"] = fuzz_boxes.HEIC

ACCEPTED, WRONG, FOREIGN, WORDS, TERMINAL, TIME, MEMORY, CRASH, AGAIN = (
    "damage accepted", "wrong pixels", "foreign exception", "foreign words", "terminal output",
    "time", "memory", "crash", "round trip",
)  # fmt: skip
"""Kinds of findings."""

REFUSED, SAME, OTHER = "refused", "same", "other"
"""What came of a file: refused, accepted with its seed's pixels, or with others."""

_FOREIGN = re.compile(
    r"\b\w*(Error|Exception|Warning)\b|Traceback|NoneType|\bNULL\b|\bnan\b|0x[0-9a-f]{4}"
    r"|index out of|out of (range|bounds)|unpack|subscriptable|not enough values|too many values"
    r"|has no attribute|object\b|bytes-like|codec can't|invalid literal|could not convert"
    r"|reshape|broadcast|\baxis\b|\bdtype\b|\bndarray\b|buffer|argument|positional|assert"
    r"|division by|must be (real|an integer)|negative dimensions|array size"
    r"|\bcv2\b|OpenCV|libpng|libtiff|libjpeg|libwebp|imagecodecs|Pillow|\bPIL\b|tifffile"
    r"|numpy|simplejpeg|\bzlib\b|TIFFRead|TiffP|JPEG datastream|(^|\s)/\w|\.(cpp|py|c|h)\b"
    r"|cannot identify|broken data stream|decoder error|image file is truncated|Truncated"
    r"|[Pp]remature end|Corrupt|Unsupported|unrecognized|Not a |Bogus|Invalid|[a-z]_[a-z]"
    r"|Decompressi|incorrect data check|[Ee]rrno|:\s*$"
)
"""Words that no message of this program has: other libraries' and Python's."""
_UNCHANGED = frozenset(
    {"png", "tiff", "bmp", "ppm", "pgm", "webp", "qoi", "jp2", "j2k", "avif", "jxl"}
)
"""Formats that are written without a loss."""
_MOST_FRAMES = 200
"""Most frames of a file that are read."""
_MOST_AGAIN = 1 << 20
"""Most samples of a picture that is written and read once more."""


class Limits(NamedTuple):
    """What reading one file may take."""

    seconds: float = 5
    """Of CPU time; three times as much by the clock."""
    bytes: int = 1 << 30


class Outcome(NamedTuple):
    """What came of one file."""

    format: str
    number: int
    oracle: str
    mutation: str
    seed: str
    verdict: str
    findings: tuple[tuple[str, str], ...]
    """Kind, and what was seen."""
    seconds: float
    memory: int
    """Bytes of growth at the most."""


class Cases:
    """The files of one series; seeds are made once for each format."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._seeds: dict[str, list[Seed]] = {}

    def seeds(self, format: str) -> list[Seed]:
        if format not in self._seeds:
            self._seeds[format] = FORMATS[format].seeds()
        return self._seeds[format]

    def get(self, format: str, number: int) -> Case:
        return case_of(format, FORMATS[format], self.seeds(format), number, self._start)


def serve(
    pipe: Connection,
    start: int,
    limits: Limits,
    prepare: Callable[[], None] | None,
    formats: Sequence[str],
) -> None:
    """Read the files of *formats* that *pipe* names, as (format, number), until it says None."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # as the console script does
    warnings.filterwarnings("always")
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if prepare:
        prepare()
    cases = Cases(start)
    with tempfile.TemporaryFile() as terminal:
        for descriptor in (1, 2):
            os.dup2(terminal.fileno(), descriptor)
        judge = Judge(cases, limits, terminal.fileno())
        judge.warm(formats)
        pipe.send(None)
        while (task := pipe.recv()) is not None:
            pipe.send(judge.outcome(*task))


class Judge:
    """Reads files and judges them, one at a time."""

    def __init__(self, cases: Cases, limits: Limits, terminal: int) -> None:
        self._cases, self._limits, self._terminal = cases, limits, terminal
        self._expected: dict[bytes, images.Image | None] = {}

    def warm(self, formats: Sequence[str]) -> None:
        """Load what readers of *formats* load, then limit the memory.

        Half as much more again is allowed as is a finding.
        """
        for format in formats:
            self._baseline(self._cases.seeds(format)[-1])
        now = _status("VmSize") + self._limits.bytes * 3 // 2
        resource.setrlimit(resource.RLIMIT_AS, (now, now))

    def _baseline(self, seed: Seed) -> images.Image | None:
        """What is read of *seed* unchanged; None where it is refused."""
        if seed.data not in self._expected:
            try:
                self._expected[seed.data] = images.load(seed.data)
            except Exception:  # noqa: BLE001 - the seed's own case tells
                self._expected[seed.data] = None
        return self._expected[seed.data]

    def outcome(self, format: str, number: int) -> Outcome:
        """Read the file and say what came of it."""
        case = self._cases.get(format, number)
        expected = self._baseline(case.seed)
        os.ftruncate(self._terminal, 0)
        _forget_peak()
        before, began, clock = _status("VmRSS"), time.process_time(), time.perf_counter()
        verdict, found = self._read(case, expected)
        seconds, passed = time.process_time() - began, time.perf_counter() - clock
        memory = max(0, _status("VmHWM") - before)
        if seconds > self._limits.seconds or passed > 3 * self._limits.seconds:
            found.append((TIME, f"{seconds:.1f} s of CPU, {passed:.1f} s by the clock"))
        if memory > self._limits.bytes and len(case.data) < 1 << 20:
            found.append((MEMORY, f"{memory >> 20} MiB for a file of {len(case.data)} bytes"))
        if told := os.pread(self._terminal, 300, 0):
            found.append((TERMINAL, told.decode("utf-8", "replace")))
        return Outcome(
            format, number, case.oracle, case.mutation, case.seed.name, verdict, tuple(found),
            seconds, memory,
        )  # fmt: skip

    def _read(self, case: Case, expected: images.Image | None) -> tuple[str, list[tuple[str, str]]]:
        try:
            image = images.load(case.data)
        except FramesError:
            return self._read_frames(case)
        except Exception as error:  # noqa: BLE001 - each type is judged
            return REFUSED, list(_told(error))
        found = []
        same = expected is not None and _equal(image, expected)
        if case.oracle == "seed" and case.seed.pixels is not None:
            same = _same_pixels(image.pixels, case.seed.pixels)
        shape = f"{image.pixels.shape} {image.pixels.dtype}"
        if case.oracle == "refuse":
            found.append((ACCEPTED, f"{shape}, {'the same' if same else 'other'} pixels"))
        elif case.oracle in ("same", "seed") and not same:
            # Where the seed is refused, its pixels are known for some.
            known = case.seed.pixels
            if expected is not None or not (
                known is not None and _same_pixels(image.pixels, known)
            ):
                found.append((WRONG, f"{shape}, not the picture's own"))
        if image.pixels.size <= _MOST_AGAIN and (case.oracle != "any" or case.number % 4 == 0):
            found += _again(image, case.data)
        return (SAME if same else OTHER), found

    def _read_frames(self, case: Case) -> tuple[str, list[tuple[str, str]]]:
        try:
            frames = list(islice(images.Frames(case.data, "input"), _MOST_FRAMES))
        except Exception as error:  # noqa: BLE001 - each type is judged
            return REFUSED, list(_told(error))
        if case.oracle != "any":
            return OTHER, [
                (ACCEPTED if case.oracle == "refuse" else WRONG, f"{len(frames)} frames")
            ]
        if len(frames) > 1 and sum(frame.pixels.size for frame in frames) <= _MOST_AGAIN:
            return OTHER, list(_frames_again(frames, table.format_of_bytes(case.data)))
        return OTHER, []


def _frames_again(frames: list[images.Image], format: str) -> Iterator[tuple[str, str]]:
    """Findings of writing *frames* once more, in their own *format*, and reading that."""
    file = Pieces()
    try:
        output = images.Output(format, file, len(frames))
        for frame in frames:
            output.add(frame)
        output.close()
        back = list(images.Frames(bytes(file.joined()), "written"))
    except Exception as error:  # noqa: BLE001 - each type is judged
        yield from _told(error)
        return
    if len(back) != len(frames):
        yield AGAIN, f"of {len(frames)} frames {len(back)} are read again"
    for number, (one, other) in enumerate(zip(frames, back, strict=False)):
        if format != "gif" and not _same_pixels(one.pixels, other.pixels):
            yield AGAIN, f"frame {number} is read again with other pixels"
            return


def _again(image: images.Image, data: bytes) -> Iterator[tuple[str, str]]:
    """Findings of writing *image* once more, in its own format and as TIFF, and reading that."""
    own = table.format_of_bytes(data)
    for format in dict.fromkeys((own, "tiff")):
        if format not in table.written():
            continue
        try:
            images.lost_metadata(image, format)
            written = images.encode(image, format)
        except Exception as error:  # noqa: BLE001 - each type is judged
            yield from _told(error)
            continue
        try:
            back = images.load(bytes(written))
        except Exception as error:  # noqa: BLE001 - each type is judged
            yield AGAIN, f"what is written as {format} is refused: {error}"
            continue
        if format in _UNCHANGED:
            if not (_equal(back, image) or (format == "webp" and _equal(back, _opaque(image)))):
                yield AGAIN, f"what is written as {format} is read with other pixels"
        elif back.pixels.shape != image.pixels.shape:
            yield AGAIN, f"what is written as {format} is read with another size"


def _told(error: Exception) -> Iterator[tuple[str, str]]:
    """Findings of an *error*: its type, and words that are not the program's."""
    message = f"{error} {getattr(error, 'hint', None) or ''}".strip()
    if not isinstance(error, ImageError):
        yield FOREIGN, f"{type(error).__name__}: {message}"
        return
    if "memory" in message:
        yield MEMORY, message
    cause: BaseException | None = error
    while (cause := cause and cause.__cause__) is not None:
        ours = isinstance(cause, CudafilterError) or type(cause).__module__.startswith("cudafilter")
        if not ours and str(cause) and str(cause) in message:
            yield WORDS, message
            return
    if _FOREIGN.search(message):
        yield WORDS, message


def _opaque(image: images.Image) -> images.Image:
    """*image* less an alpha channel that is full everywhere, which WebP does not keep."""
    if not image.alpha or image.pixels[..., -1].min() < 255:
        return image
    return replace(image, pixels=image.pixels[..., :-1], alpha=False)


def _equal(one: images.Image, other: images.Image) -> bool:
    return one.alpha == other.alpha and _same_pixels(one.pixels, other.pixels)


def _same_pixels(one: Pixels, other: Pixels) -> bool:
    """Whether type, shape and every bit are the same; any NaN is as good as another."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _status(name: str) -> int:
    """Bytes of what the kernel calls *name* of this process."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
    return 0


def _forget_peak() -> None:
    """Make VmHWM begin again at what is in use."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
