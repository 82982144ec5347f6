"""The formats: how a file of each is told, read and written.

Readers and writers are named, not imported: a job loads only the modules of its own formats.
Pillow reads and writes all that nothing faster does as well; each module says what does.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, cast

from cudafilter.formats.limits import Limits
from cudafilter.formats.metadata import Decoded, Metadata
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Buffer

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"


class Ways(NamedTuple):
    """How pixels are to be written; each format takes what it knows."""

    alpha: bool = False
    """The last channel is alpha."""
    quality: int | None = None
    """1..100, of lossy coding."""
    compress_level: int | None = None
    """0..9, of lossless coding."""


Reader = Callable[[bytes, Limits], Decoded]
Writer = Callable[[Pixels, Metadata, Ways], Buffer]


class Format(NamedTuple):
    """A file format."""

    extensions: tuple[str, ...]
    starts: tuple[bytes, ...]
    """First bytes of its files."""
    reader: str
    """Function of a module of this package, as "module.function"."""
    writer: str | None = None
    """None for formats of fewer colours than a filter makes."""
    takes_quality: bool = False
    takes_compress_level: bool = False

    def begins(self, data: bytes) -> bool:
        """Whether *data* begins as its files do."""
        # RIFF, of which WebP is a kind, has the file's size in bytes 4 to 7.
        return data.startswith(self.starts) or (data[:4] == b"RIFF" and data[8:12] in self.starts)

    def read(self, data: bytes, limits: Limits) -> Decoded:
        """Decode the bytes of a file."""
        return cast(Reader, _named(self.reader))(data, limits)

    def write(self, pixels: Pixels, metadata: Metadata, ways: Ways) -> Buffer:
        """Encode *pixels* with what of *metadata* the format holds; see metadata.split."""
        assert self.writer is not None
        return cast(Writer, _named(self.writer))(pixels, metadata, ways)


def _named(name: str) -> Any:
    module, function = name.split(".")
    return getattr(import_module(f"cudafilter.formats.{module}"), function)


FORMATS: dict[str, Format] = {
    "png": Format(
        (".png",), (PNG_SIGNATURE,), "png.read", "png.write", takes_compress_level=True
    ),
    "jpeg": Format(
        (".jpg", ".jpeg", ".jpe", ".jfif"), (JPEG_SIGNATURE,), "jpeg.read", "jpeg.write",
        takes_quality=True,
    ),
    "webp": Format(
        (".webp",), (b"WEBP",), "webp.read", "webp.write", takes_quality=True
    ),
    "tiff": Format(
        (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tiff.read", "tiff.write",
        takes_compress_level=True,
    ),
    "bmp": Format((".bmp", ".dib"), (b"BM",), "bmp.read", "bmp.write"),
    "ppm": Format(
        (".ppm", ".pnm"), (b"P3", b"P6", b"PF", b"Pf"), "pnm.read", "pnm.write"
    ),
    "pgm": Format((".pgm",), (b"P2", b"P5"), "pnm.read", "pnm.write"),
    "pbm": Format((".pbm",), (b"P1", b"P4"), "pnm.read"),
    "gif": Format((".gif",), (b"GIF87a", b"GIF89a"), "gif.read"),
}  # fmt: skip
