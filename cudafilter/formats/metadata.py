"""What travels with pixels from one file to another, and which format can hold what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from cudafilter.formats import ifd
from cudafilter.formats.table import FORMATS, Format
from cudafilter.operations.pixels import Pixels

_METRES = {"inch": Fraction(254, 10000), "cm": Fraction(1, 100), "metre": Fraction(1)}

SRGB = (1, 13)
"""sRGB's primaries and transfer curve, by the numbers of CICP (ITU-T H.273)."""
EXIF_MARK = b"Exif\0\0"
XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP_MARK = b"http://ns.adobe.com/xmp/extension/\0"


class Resolution(NamedTuple):
    """Pixels per ``unit``: "inch", "cm", "metre", or "" where only the ratio x:y is meant."""

    x: Fraction
    y: Fraction
    unit: str

    def per(self, unit: str) -> tuple[Fraction, Fraction]:
        """Pixels per *unit*; a bare ratio stays as it is."""
        factor = _METRES[unit] / _METRES[self.unit] if self.unit else 1
        return self.x * factor, self.y * factor


class JpegCoding(NamedTuple):
    """How a JPEG was compressed, so that writing it again keeps its quality."""

    tables: tuple[tuple[int, ...], ...]
    """Of each channel the quantisation table, 64 values row by row."""
    sampling: tuple[int, int]
    """Luma samples for one of chroma, across and down: (1, 1) is 4:4:4, (2, 2) is 4:2:0.

    (0, 0) where there is no such ratio.
    """
    progressive: bool
    transformed: bool = True
    """RGB became luma and chroma, or CMYK did likewise (YCCK)."""


class Animation(NamedTuple):
    """What an animation tells beside its frames."""

    plays: int
    """How often it is shown; 0 for ever."""
    background: bytes = b""
    """The colour that a WebP proposes behind it: blue, green, red, alpha. Viewers ignore it."""


class TiffLayout(NamedTuple):
    """How the pixels of a TIFF lie in it, so that writing it again keeps that."""

    tile: tuple[int, int] | None = None
    """Width and height of a tile; None for strips."""
    compression: int = 8
    """The tag's number: 1 for none, 5 for LZW, 8 for deflate."""


@dataclass(frozen=True)
class Metadata:
    """All that must survive beside the pixels. Empty for pixels that came from no file."""

    icc: bytes | None = None
    exif: bytes | None = None
    """Raw, from its byte-order mark "II" or "MM" on; orientation is left as it was."""
    xmp: bytes | None = None
    resolution: Resolution | None = None
    cmyk: bool = False
    """The four channels are cyan, magenta, yellow, black; 0 is no ink."""
    comments: tuple[bytes, ...] = ()
    """Comments of a JPEG, GIF or PNM."""
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """PNG text and colour chunks (type, data) that have no field here."""
    jpeg_segments: tuple[tuple[int, bytes], ...] = ()
    """JPEG application segments (marker, data) that have no field here, such as IPTC."""
    jpeg_coding: JpegCoding | None = None
    tiff_tags: bytes | None = None
    """TIFF tags that EXIF does not know, such as IPTC or GeoTIFF, laid out as ``exif`` is."""
    tiff_layout: TiffLayout | None = None
    icc_name: bytes = b""
    """What a PNG calls its ICC profile: Latin-1, 1 to 79 bytes, or none."""
    bits: int | None = None
    """Bits of a sample in the file, where 9 to 15 of them were scaled to 16."""
    cicp: tuple[int, int] | None = None
    """Primaries and transfer curve of the colours, by the numbers of CICP."""
    jp2_boxes: tuple[tuple[bytes, bytes], ...] = ()
    """Boxes (kind, body) of a JP2 that have no field here, such as GeoJP2."""
    animation: Animation | None = None


class Decoded(NamedTuple):
    """What a reader gives: pixels (H, W, C), whether the last is alpha, and the rest."""

    pixels: Pixels
    alpha: bool
    metadata: Metadata
    notes: tuple[str, ...] = ()


def is_rgb_profile(icc: bytes | None) -> bool:
    """Whether *icc* is a profile for RGB data."""
    return icc is not None and icc[16:20] == b"RGB "


def split(metadata: Metadata, format: str, channels: int) -> tuple[Metadata, tuple[str, ...]]:
    """What of *metadata* a file of *format* and *channels* holds, and names for all the rest."""
    known, title = FORMATS[format], format.upper()
    lost: list[str] = []
    drop: dict[str, object] = {}

    def lose(name: str, **fields: object) -> None:
        lost.append(name)
        drop.update(fields)

    if metadata.icc and (name := _profile_loss(metadata.icc, known, channels)):
        lose(name, icc=None)
    if metadata.exif:
        name, kept = _exif_loss(metadata.exif, known, title)
        if name:
            lose(name, exif=metadata.exif if kept else None)
    if metadata.xmp and "xmp" not in known.keeps:
        lose("XMP", xmp=None)
    elif metadata.xmp and _too_long(known, "xmp", metadata.xmp):
        lose(f"XMP (too long for {title})", xmp=None)
    if metadata.resolution and metadata.resolution.unit and "resolution" not in known.keeps:
        in_exif = "exif" in known.keeps and ifd.resolution(metadata.exif) is not None
        if not in_exif:
            lose("DPI", resolution=None)
    if metadata.comments and "comments" not in known.keeps:
        lose("comment", comments=())
    elif any(_too_long(known, "comments", comment) for comment in metadata.comments):
        lose(f"comment (too long for {title})", comments=())
    if "png_chunks" not in known.keeps:
        drop["png_chunks"] = ()
        lost.extend(_png_losses(metadata.png_chunks))
    elif wrong := [chunk for chunk in metadata.png_chunks if not _png_holds(*chunk, channels)]:
        right = tuple(chunk for chunk in metadata.png_chunks if chunk not in wrong)
        lose("bKGD (it is of other channels)", png_chunks=right)
    if metadata.jpeg_segments and "jpeg_segments" not in known.keeps:
        names = {_segment_name(*segment) for segment in metadata.jpeg_segments}
        lose(", ".join(sorted(names)), jpeg_segments=())
    if metadata.animation and "animation" not in known.keeps:
        lose("how long frames are shown, and how often", animation=None)
    if metadata.tiff_tags and "tiff_tags" not in known.keeps:
        tags = ", ".join(str(tag) for tag in sorted(ifd.parse(metadata.tiff_tags)[1]))
        lose(f"TIFF tags {tags}", tiff_tags=None)
    if metadata.jp2_boxes and "jp2_boxes" not in known.keeps:
        names = {kind.decode("latin-1").strip() for kind, _ in metadata.jp2_boxes}
        lose(f"JP2 {', '.join(sorted(names))}", jp2_boxes=())
    if metadata.cicp and not _holds_space(known, metadata.cicp):
        primaries, transfer = metadata.cicp
        if metadata.cicp != SRGB:
            lost.append(f"its colour space (CICP primaries {primaries}, transfer {transfer})")
        drop["cicp"] = None
    if "bits" not in known.keeps:
        drop["bits"] = None
    return replace(metadata, **drop), tuple(lost)  # type: ignore[arg-type]


def _holds_space(format: Format, cicp: tuple[int, int]) -> bool:
    """Whether a file of *format* can say that its colours are those of *cicp*."""
    known = all(not held or one in held for one, held in zip(cicp, format.spaces, strict=True))
    return "cicp" in format.keeps and known


def _too_long(format: Format, field: str, piece: bytes) -> bool:
    most = format.keeps.get(field)
    return most is not None and len(piece) > most


def _profile_loss(icc: bytes, format: Format, channels: int) -> str | None:
    """A name for *icc* where a file of *format* and *channels* cannot hold it, else None."""
    if "icc" not in format.keeps:
        return "ICC profile"
    if format.gray_profile and icc[16:20] == b"GRAY":
        return f"ICC profile ({format.gray_profile})"
    fitting = b"GRAY" if channels < 3 else b"RGB "
    if format.profile_fits and icc[16:20] != fitting:
        return "ICC profile (it is for other colours)"
    return None


def _exif_loss(exif: bytes, format: Format, title: str) -> tuple[str, bool]:
    """A name for what of *exif* a file of *format* cannot hold, or "", and if it holds the rest."""
    if "exif" not in format.keeps:
        turned = ifd.orientation(exif) != 1
        return f"EXIF{' with its orientation (it will show unturned)' * turned}", False
    if _too_long(format, "exif", exif):
        return f"EXIF (too long for {title})", False
    if format.exif_is_directory:
        try:
            _, _, following = ifd.parse(exif)
            pointers = ifd.dangling(exif)
        except ifd.BrokenIfd:
            return "EXIF (damaged)", False
        lost = ["EXIF thumbnail"] * bool(following)
        if pointers:
            lost.append(f"what EXIF's tags {', '.join(map(str, pointers))} point at")
        return ", ".join(lost), True
    return "", True


def _png_holds(kind: bytes, data: bytes, channels: int) -> bool:
    """Whether a background colour is of as many samples as a PNG of *channels* has."""
    return kind != b"bKGD" or len(data) == (2 if channels < 3 else 6)


def _png_losses(chunks: tuple[tuple[bytes, bytes], ...]) -> list[str]:
    """Names for *chunks*. sRGB and what it implies is what a file without a profile means."""
    keywords = [
        data.split(b"\0", 1)[0].decode("latin-1")
        for kind, data in chunks
        if kind in (b"tEXt", b"zTXt", b"iTXt")
    ]
    kinds = {kind for kind, _ in chunks} - {b"tEXt", b"zTXt", b"iTXt"}
    if b"sRGB" in kinds:
        kinds -= {b"sRGB", b"gAMA", b"cHRM"}
    lost = [f"PNG text ({', '.join(keywords)})"] if keywords else []
    return lost + [f"PNG {kind.decode('latin-1')}" for kind in sorted(kinds)]


def _segment_name(marker: int, data: bytes) -> str:
    if data.startswith(b"Photoshop 3.0\0"):
        return "IPTC and Photoshop data"
    if data.startswith(EXTENDED_XMP_MARK):
        return "extended XMP"
    if data.startswith((b"JFIF\0", b"JFXX\0")):
        return "JFIF thumbnail"
    return f"JPEG segment APP{marker - 0xE0}"
