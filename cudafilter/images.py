"""Files to pixels and back, with all that must survive; whatever cannot is named or refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cudafilter.errors import CudafilterError, ImageError
from cudafilter.formats import table
from cudafilter.formats.limits import MAX_STREAM, Limits
from cudafilter.formats.metadata import Metadata, is_rgb_profile, split
from cudafilter.host.cores import free_memory
from cudafilter.operations.pixels import Pixels, require_pixels
from cudafilter.stores.buffers import Buffer
from cudafilter.stores.local import write_atomically as write_atomically

FORMATS: dict[str, tuple[str, ...]] = {
    name: format.extensions for name, format in table.FORMATS.items()
}
"""Format name -> its file name extensions."""

READ_ONLY = frozenset(name for name, format in table.FORMATS.items() if format.writer is None)
"""Formats of fewer colours than a filter makes."""

_PIECE = 1 << 20
"""Bytes that are read at a time of what does not tell its size."""
_HEAD = 16
"""Bytes that show a file's format."""

_DAMAGED = "it is damaged, or of a kind that is not supported"

_BY_EXTENSION = {extension: name for name, known in FORMATS.items() for extension in known}


@dataclass(frozen=True)
class Image:
    """An image in memory: pixels and what belongs to them."""

    pixels: Pixels
    """(H, W, C) uint8, uint16 or float32, C-contiguous."""
    alpha: bool = False
    """The last channel is (straight) alpha."""
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    """What was converted on the way, for the user to be told."""

    @property
    def colour(self) -> str:
        """What the channels are, in a word for people."""
        if self.metadata.cmyk:
            return "CMYK"
        names = {1: "gray", 2: "gray+alpha", 3: "RGB", 4: "RGBA"}
        return names[self.pixels.shape[2]]

    def with_pixels(self, pixels: Pixels) -> Image:
        """This image with other *pixels* of the same meaning (channels, alpha)."""
        return replace(self, pixels=pixels)


def format_of(path: str | Path) -> str:
    """The format that *path*'s extension names; ImageError lists the known ones otherwise."""
    try:
        return _BY_EXTENSION[os.path.splitext(path)[1].lower()]
    except KeyError:
        known = ", ".join(_BY_EXTENSION)
        raise ImageError(
            f"{path}: the extension names no known image format", hint=f"known are {known}"
        ) from None


def format_of_bytes(data: bytes) -> str:
    """The format that the first bytes of a file show, whatever its name; ImageError if none."""
    if not data:
        raise ImageError("the file is empty")
    for name, format in table.FORMATS.items():
        if format.begins(data):
            return name
    raise ImageError("it is no image of a known format", hint=f"known are {', '.join(FORMATS)}")


def is_image_name(path: str | Path) -> bool:
    """Whether *path* has the extension of a format that is read."""
    return os.path.splitext(path)[1].lower() in _BY_EXTENSION


@contextmanager
def _naming(name: str, failed: str, otherwise: str) -> Iterator[None]:
    """Turn every failure inside into an ImageError that begins with *name*.

    Decoders and encoders raise nearly every type there is, in words for their own users: what is
    neither ours nor the system's reads *otherwise*, and is the cause of what is raised.
    """
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}", hint=error.hint) from error
    except MemoryError as error:
        raise ImageError(f"{name}: {failed}: there is not enough memory") from error
    except CudafilterError as error:
        raise ImageError(f"{name}: {failed}: {error}", hint=error.hint) from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or otherwise
        raise ImageError(f"{name}: {failed}: {reason}") from error


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn every failure to read the bytes of *name* into an ImageError."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}", hint=error.hint) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name}: cannot be read: {reason}") from error
    except MemoryError as error:
        raise ImageError(f"{name}: cannot be read: it does not fit in memory") from error


def read_file(path: Path, name: str | None = None) -> bytes:
    """The bytes of a file. Raises ImageError, naming it (or *name*) and the reason.

    Of a pipe, a device or a large file only the first bytes are read if they show no known format.
    """
    with _reading(name or str(path)):
        return _content(path)


def read_stream(stream: BinaryIO, name: str) -> bytes:
    """The bytes of a *stream*, as read_file() reads those of a pipe."""
    with _reading(name):
        return _streamed(getattr(stream, "read1", stream.read))


def _content(path: Path) -> bytes:
    """Path.read_bytes() in half as many calls of the system.

    Each gives the interpreter's lock away, and with many images in work it takes long to come back:
    up to half a millisecond, on a busy host.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(file)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            if os.isatty(file):
                raise ImageError("it is a terminal, not an image")
            return _streamed(lambda most: os.read(file, most))
        if size > _PIECE:
            format_of_bytes(os.read(file, _HEAD))
            os.lseek(file, 0, os.SEEK_SET)
        if size > MAX_STREAM and size > (free_memory() or size):
            raise MemoryError
        piece = os.read(file, size + 1)
        if len(piece) == size:
            return piece
        # It grows, or is more than the system reads at once.
        return piece + _streamed(lambda most: os.read(file, most), piece[:_HEAD], size)
    finally:
        os.close(file)


def _streamed(read: Callable[[int], bytes], head: bytes = b"", least: int = 0) -> bytes:
    """What *read* gives until it gives nothing: *head* is what was read before, if anything.

    Raises ImageError where the first bytes show no known format, and past the larger of
    *least* and MAX_STREAM bytes.
    """
    pieces: list[bytes] = []
    size, most = 0, max(least, MAX_STREAM)
    while piece := read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if len(head) < _HEAD:
            head += piece[:_HEAD]
            if len(head) >= _HEAD:
                format_of_bytes(head)
        if size > most:
            raise ImageError(
                f"it goes on past {most:,} bytes, which is all that is read of a pipe or device",
                hint="save it as a file first",
            )
    return b"".join(pieces)


def load(source: Path | Buffer, name: str | None = None, *, max_pixels: int | None = None) -> Image:
    """Read an image file, or the bytes of one, whatever its name says it is.

    Pixels are not turned by an EXIF orientation, 16-bit colour keeps its 16 bits. Raises
    ImageError, naming the file (or *name*) and the reason, for what cannot be read whole and
    exactly: damaged or cut files, several frames, colour spaces other than gray, RGB and CMYK,
    more pixels than limits.Limits allows, or than *max_pixels*.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = name or "input", bytes(source)
    else:
        name = name or str(source)
        data = read_file(source, name)
    with _naming(name, "cannot be decoded", _DAMAGED):
        decoded = table.FORMATS[format_of_bytes(data)].read(data, Limits(len(data), max_pixels))
        pixels = require_pixels(decoded.pixels, decoded.alpha)
    return Image(pixels, decoded.alpha, decoded.metadata, decoded.notes)


def to_gray(image: Image) -> Image:
    """The luma of *image* in its own sample type, alpha kept; a gray image as it is.

    ITU-R 601-2 as Pillow's "L": (19595 R + 38470 G + 7471 B + 32768) >> 16. Raises ImageError
    for CMYK, whose luma only its profile could tell.
    """
    pixels, metadata = image.pixels, image.metadata
    if metadata.cmyk:
        raise ImageError("CMYK cannot be made gray", hint="convert the picture to RGB first")
    if pixels.shape[2] < 3:
        return image
    if pixels.dtype == np.float32:
        luma = (pixels[..., :3].astype(np.float64) @ [0.299, 0.587, 0.114]).astype(np.float32)
    else:
        # 65535 * 2**16 + 2**15 still fits in 32 bits.
        red, green, blue = (pixels[..., c].astype(np.uint32) for c in range(3))
        luma = ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(pixels.dtype)
    parts = [luma[..., None], pixels[..., 3:]] if image.alpha else [luma[..., None]]
    notes = image.notes
    if is_rgb_profile(metadata.icc):
        metadata = replace(metadata, icc=None)
        notes += ("the RGB colour profile is not kept, for it is not valid for gray",)
    gray = np.ascontiguousarray(np.concatenate(parts, axis=2))
    return Image(gray, image.alpha, metadata, notes)


def lost_metadata(image: Image, format: str) -> tuple[str, ...]:
    """Names for the metadata that a file of *format* cannot hold; encode leaves just these out.

    Resolution is rounded to what the format stores: whole pixels an inch or cm in JPEG, whole
    pixels a metre in PNG and BMP.
    """
    return split(image.metadata, format, image.pixels.shape[2])[1]


def unused_settings(
    format: str, *, quality: int | None = None, compress_level: int | None = None
) -> tuple[str, ...]:
    """What a user who gave settings that say nothing to *format* should know."""
    told = []
    if quality is not None and not table.FORMATS[format].takes_quality:
        told.append(f"the quality is not used: {format.upper()} is lossless")
    if compress_level is not None and not table.FORMATS[format].takes_compress_level:
        told.append(f"the compress level is not used: {format.upper()} has none")
    return tuple(told)


def encode(
    image: Image,
    format: str,
    *,
    quality: int | None = None,
    compress_level: int | None = None,
    name: str = "output",
) -> Buffer:
    """*image* as the bytes of a file of *format*.

    *quality* 1..100 is for JPEG and WebP. Left out, a JPEG that comes from a JPEG keeps its
    quantisation tables, another one gets 95 and full colour resolution (4:4:4), and WebP is
    lossless. *compress_level* is for PNG and TIFF: 0 stores, 1 (if left out) is the fastest, 2..9
    are ever slower and smaller. Raises ImageError, with a hint what to choose, where bits, alpha or
    colour would be lost; see lost_metadata for the rest.
    """
    with _naming(name, "cannot be encoded", "its encoder failed"):
        if format not in FORMATS or format in READ_ONLY:
            known = ", ".join(known for known in FORMATS if known not in READ_ONLY)
            raise ImageError(f"{format} files are not written", hint=f"choose one of {known}")
        require_range("quality", quality, 1, 100)
        require_range("compress level", compress_level, 0, 9)
        pixels = require_pixels(image.pixels, image.alpha)
        _require_held(image, format)
        metadata, _ = split(image.metadata, format, pixels.shape[2])
        ways = table.Ways(image.alpha, quality, compress_level)
        return table.FORMATS[format].write(pixels, metadata, ways)


def require_range(what: str, value: int | None, least: int, most: int) -> None:
    """Raise ImageError unless *value* is None or *least* to *most*."""
    if value is not None and not least <= value <= most:
        raise ImageError(f"{what} must be {least} to {most}, not {value}")


def _require_held(image: Image, format: str) -> None:
    """Raise ImageError unless a file of *format* holds the samples and channels of *image*."""
    dtype, channels, cmyk = image.pixels.dtype.name, image.pixels.shape[2], image.metadata.cmyk
    title = format.upper()
    if cmyk and (channels != 4 or image.alpha):
        raise ImageError(f"CMYK needs 4 channels without alpha, not {channels}")
    if channels in (2, 4) and not (image.alpha or cmyk):
        raise ImageError(f"{channels} channels without alpha have no meaning in a file")
    if cmyk and format not in ("jpeg", "tiff"):
        raise ImageError(
            f"{title} holds no CMYK", hint="choose .jpg or .tif, or convert the picture to RGB"
        )
    if cmyk and dtype != "uint8":
        raise ImageError("CMYK is written with 8 bits only")
    if dtype == "float32" and format != "tiff":
        raise ImageError(f"{title} holds no float samples", hint="choose .tif")
    if format == "pgm" and channels - image.alpha > 1:
        raise ImageError("PGM holds no colour", hint="choose .ppm, or make the picture gray")
    if dtype == "uint16" and format not in ("png", "tiff", "ppm", "pgm"):
        raise ImageError(
            f"{title} holds 8 bits a sample, and the picture has 16",
            hint="choose .png or .tif" + ("" if image.alpha else " or .ppm"),
        )
    if image.alpha and format not in ("png", "tiff", "webp"):
        wide = dtype != "uint8"
        raise ImageError(
            f"{title} holds no transparency",
            hint="choose .png or .tif" if wide else "choose .png, .webp or .tif",
        )
