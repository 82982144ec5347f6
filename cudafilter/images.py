"""Files to pixels and back, with all that must survive; whatever cannot is named or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from cudafilter.errors import UNEXPECTED, FramesError, ImageError, in_words
from cudafilter.formats import rows
from cudafilter.formats.limits import MAX_STREAM
from cudafilter.formats.metadata import Metadata, is_rgb_profile, split
from cudafilter.formats.rows import Header
from cudafilter.formats.table import format_of_bytes
from cudafilter.operations.pixels import Pixels, require_pixels
from cudafilter.stores import everywhere
from cudafilter.stores.buffers import Buffer, Pieces, Sink, Source
from cudafilter.stores.local import write_atomically as write_atomically
from cudafilter.stores.reading import to_end
from cudafilter.stores.store import Store
from cudafilter.stores.url import AnyPath

if TYPE_CHECKING:
    from cudafilter.formats.png_path import PngPath

_DAMAGED = "it is damaged, or of a kind that is not supported"


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
    seconds: Fraction | None = None
    """How long it is shown, of a frame of an animation."""

    @property
    def colour(self) -> str:
        """What the channels are, in a word for people."""
        return Header.of(self.pixels, self.alpha, self.metadata).colour

    def with_pixels(self, pixels: Pixels) -> Image:
        """This image with other *pixels* of the same meaning (channels, alpha)."""
        return replace(self, pixels=pixels)


@contextmanager
def naming(name: str, failed: str, otherwise: str) -> Iterator[None]:
    """Turn every failure inside into an ImageError that begins with *name*.

    Decoders and encoders raise nearly every type there is, in words for their own users: what is
    neither ours nor the system's reads *otherwise*, and is the cause of what is raised.
    """
    try:
        yield
    except ImageError as error:
        raise type(error)(f"{name}: {error}", hint=error.hint) from error
    except Exception as error:
        reason, hint = getattr(error, "strerror", None), None
        if not reason:
            reason, hint = in_words(error)
        if reason == UNEXPECTED:
            reason, hint = otherwise, None
        raise ImageError(f"{name}: {failed}: {reason}", hint=hint) from error


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


def read_file(path: AnyPath, name: str | None = None, store: Store[Any] = everywhere) -> bytes:
    """The bytes of a file. Raises ImageError, naming it (or *name*) and the reason.

    Of a pipe, a device or a large file only the first bytes are read if they show no known format.
    """
    with _reading(name or str(path)):
        return store.read(path, format_of_bytes, MAX_STREAM)


def read_stream(stream: BinaryIO, name: str) -> bytes:
    """The bytes of a *stream*, as read_file() reads those of a pipe."""
    with _reading(name):
        return to_end(getattr(stream, "read1", stream.read), format_of_bytes, MAX_STREAM)


def decoding(name: str) -> AbstractContextManager[None]:
    """naming() for what decodes the file *name*."""
    return naming(name, "cannot be decoded", _DAMAGED)


def encoding(name: str) -> AbstractContextManager[None]:
    """naming() for what encodes the file *name*."""
    return naming(name, "cannot be encoded", "its encoder failed")


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
    with decoding(name):
        reader = rows.open(data, max_pixels)
        if reader.frames > 1:
            raise FramesError(
                f"it holds {reader.frames} frames, of which only one could be written",
                hint="--first-frame takes the first one",
            )
        return frame_of(reader)


class Frames:
    """The frames of an image file, those *picked* of them, one after the other.

    A file of one picture has one frame. *picked* gets how many frames there are and whether they
    have times, as those of animations do. It gives the numbers wanted, from 0 on and rising, or
    raises ImageError; all are taken without it. *data*, *name* and *max_pixels*, and
    what is raised, here and as frames are taken, are as load() has them. *by_rows* says that
    headers() is asked, and then the reader for some rows at a time. *png* is that of rows.open().
    """

    def __init__(
        self,
        data: Source,
        name: str,
        picked: Callable[[int, bool], Sequence[int]] | None = None,
        max_pixels: int | None = None,
        by_rows: bool = False,
        png: Callable[[], PngPath | None] | None = None,
    ) -> None:
        self._name, self._at = name, 0
        with decoding(name):
            self.reader = rows.open(data, max_pixels, by_rows, png)
            count, timed = self.reader.frames, self.reader.header.seconds is not None
            self.numbers = picked(count, timed) if picked else range(count)
            self._some = len(self.numbers) < count
            self.notes: tuple[str, ...] = ()
            """What is left out where some frames are taken."""
            if self._some:  # of a stack the first page tells, which may not be taken
                _, self.notes = _of_some(self.reader.header.metadata)

    def headers(self) -> Iterator[Header]:
        """That of each frame; the reader is at it until the next one is asked for."""
        for number in self.numbers:
            yield self._go_to(number)

    def __iter__(self) -> Iterator[Image]:
        for number in self.numbers:
            yield self._take(number)

    def _go_to(self, number: int) -> Header:
        with decoding(self._name):
            while self._at < number:
                self.reader.next_frame()
                self._at += 1
            header = self.reader.header
            if self._some:
                header = replace(header, metadata=_of_some(header.metadata)[0])
        header = replace(header, frames=len(self.numbers))
        if len(self.numbers) > 1:
            return header
        return replace(header, seconds=None, metadata=replace(header.metadata, animation=None))

    def _take(self, number: int) -> Image:
        header = self._go_to(number)
        with decoding(self._name):
            image = frame_of(self.reader)
        if number == self.numbers[-1]:
            del self.reader  # and with it what it has decoded
        return replace(
            image, metadata=header.metadata, seconds=header.seconds, notes=image.notes + self.notes
        )


def _of_some(metadata: Metadata) -> tuple[Metadata, tuple[str, ...]]:
    """See stacks.of_some()."""
    from cudafilter.formats.stacks import of_some  # not before: most files have one picture

    return of_some(metadata)


def frame_of(reader: rows.Reader) -> Image:
    """The frame that *reader* is at."""
    header = reader.header
    pixels = require_pixels(reader.rows(0, header.height), header.alpha)
    return Image(pixels, header.alpha, header.metadata, reader.notes, header.seconds)


def to_gray(image: Image) -> Image:
    """The luma of *image* in its own sample type, alpha kept; a gray image as it is.

    ITU-R 601-2 as Pillow's "L": (19595 R + 38470 G + 7471 B + 32768) >> 16. Raises ImageError
    for CMYK, whose luma only its profile could tell.
    """
    if image.pixels.shape[2] < 3:
        return image
    header, notes = gray_header(Header.of(image.pixels, image.alpha, image.metadata))
    pixels = gray_pixels(image.pixels, image.alpha)
    return replace(image, pixels=pixels, metadata=header.metadata, notes=image.notes + notes)


def gray_header(header: Header) -> tuple[Header, tuple[str, ...]]:
    """to_gray() of a header, and notes for the user."""
    metadata, notes = header.metadata, tuple[str, ...]()
    if metadata.cmyk:
        raise ImageError("CMYK cannot be made gray", hint="convert the picture to RGB first")
    if header.channels < 3:
        return header, ()
    if is_rgb_profile(metadata.icc):
        metadata = replace(metadata, icc=None)
        notes = ("the RGB colour profile is not kept, for it is not valid for gray",)
    if metadata.exif is not None:
        from cudafilter.formats.stacks import retyped  # not before: few pictures come here

        metadata, wrong = retyped(metadata, header.dtype, 1 + header.alpha)
        notes += wrong
    return replace(header, channels=1 + header.alpha, metadata=metadata), notes


def gray_pixels(pixels: Pixels, alpha: bool) -> Pixels:
    """to_gray() of rows of pixels."""
    if pixels.shape[2] < 3:
        return pixels
    if pixels.dtype == np.float32:
        luma = (pixels[..., :3].astype(np.float64) @ [0.299, 0.587, 0.114]).astype(np.float32)
    else:
        # 65535 * 2**16 + 2**15 still fits in 32 bits.
        red, green, blue = (pixels[..., c].astype(np.uint32) for c in range(3))
        luma = ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(pixels.dtype)
    parts = [luma[..., None], pixels[..., 3:]] if alpha else [luma[..., None]]
    return np.ascontiguousarray(np.concatenate(parts, axis=2))


def flattened(image: Image, colour: tuple[int, int, int]) -> Image:
    """*image* over *colour*, of 8 bits a sample, without alpha; one that has none as it is.

    The colour's numbers count in the image's own space. Raises ImageError for a gray image and a
    colour that is none.
    """
    if not image.alpha:
        return image
    header, notes = flat_header(Header.of(image.pixels, True, image.metadata), colour)
    pixels = flat_pixels(image.pixels, colour)
    return replace(
        image, pixels=pixels, alpha=False, metadata=header.metadata, notes=image.notes + notes
    )


def flat_header(header: Header, colour: tuple[int, int, int]) -> tuple[Header, tuple[str, ...]]:
    """flattened() of a header, and notes for the user."""
    metadata, notes = header.metadata, tuple[str, ...]()
    if not header.alpha:
        return header, ()
    channels = header.channels - 1
    if channels == 1 and len(set(colour)) > 1:
        raise ImageError("it is gray, and the background is a colour", hint="choose a gray one")
    if metadata.exif is not None:
        from cudafilter.formats.stacks import retyped  # not before: few pictures come here

        metadata, notes = retyped(metadata, header.dtype, channels)
    return replace(header, channels=channels, alpha=False, metadata=metadata), notes


def flat_pixels(pixels: Pixels, colour: tuple[int, int, int]) -> Pixels:
    """flattened() of rows of pixels that have alpha."""
    from cudafilter.operations.blend import flattened as over  # not before: few are laid over one

    return over(pixels, colour[: pixels.shape[2] - 1])


def lost_metadata(image: Image, format: str) -> tuple[str, ...]:
    """Names for the metadata that a file of *format* cannot hold; encode leaves just these out.

    Resolution is rounded to what the format stores: whole pixels an inch or cm in JPEG, whole
    pixels a metre in PNG and BMP.
    """
    return split(image.metadata, format, image.pixels.shape[2])[1]


def encode(
    image: Image,
    format: str,
    *,
    quality: int | None = None,
    compress_level: int | None = None,
    dither: bool = False,
    name: str = "output",
) -> Buffer:
    """*image* as the bytes of a file of *format*; see Output."""
    file = Pieces()
    output = Output(
        format, file, quality=quality, compress_level=compress_level, dither=dither,
        name=name,
    )  # fmt: skip
    output.add(image)
    output.close()
    return file.joined()


class Output:
    """A file of *format* that is written into *target*, of as many *frames* as are told.

    *quality* 1..100 is for lossy formats. Left out, a JPEG that comes from a JPEG keeps its
    quantisation tables, another one gets 95 and full colour resolution (4:4:4), and all others are
    lossless. *compress_level* is an effort: 0 stores where that can be, 1 (if left out) is the
    fastest, 2..9 are ever slower and smaller. *dither* is for GIF. *png* gives what may compress a
    PNG that has no *compress_level*. Raises ImageError, with a hint what to choose, where bits,
    alpha, colour or frames would be lost; see lost_metadata for the rest.
    """

    def __init__(
        self,
        format: str,
        target: Sink,
        frames: int = 1,
        *,
        quality: int | None = None,
        compress_level: int | None = None,
        dither: bool = False,
        name: str = "output",
        png: Callable[[], PngPath | None] | None = None,
    ) -> None:
        self._format, self._frames, self._name = format, frames, name
        self._create = partial(
            rows.create, format, target,
            quality=quality, compress_level=compress_level, dither=dither, png=png,
        )  # fmt: skip
        self._writer: rows.Writer | None = None

    def add(self, image: Image) -> None:
        """Write one more frame. Raises ImageError where the format holds no such one."""
        with encoding(self._name):
            pixels = require_pixels(image.pixels, image.alpha)
            metadata, _ = split(image.metadata, self._format, pixels.shape[2])
            header = Header.of(pixels, image.alpha, metadata, image.seconds, self._frames)
            if self._writer is None:
                self._writer = self._create(header)
            else:
                self._writer.next_frame(header)
            self._writer.write(pixels)

    def close(self) -> tuple[str, ...]:
        """End the file. Returns what became of pixels that it does not hold as they are."""
        assert self._writer is not None
        with encoding(self._name):
            self._writer.close()
        return self._writer.notes
