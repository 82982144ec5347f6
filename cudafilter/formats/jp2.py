"""JP2: the boxes around a JPEG 2000 codestream, which tell colours and hold metadata."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import ifd, j2k
from cudafilter.formats.bmff import Box, box, boxes
from cudafilter.formats.limits import Extent, Limits, refuse_frames
from cudafilter.formats.metadata import EXIF_MARK, Decoded, Metadata, Resolution
from cudafilter.formats.samples import scaling_note, spread, straight
from cudafilter.formats.table import FORMATS, Ways
from cudafilter.operations.pixels import Pixels

_SIGNATURE = FORMATS["jp2"].starts[0]
_EXIF_ID = b"JpgTiffExif->JP2"
_XMP_ID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_SRGB, _GRAY = 16, 17
_OTHER_SPACES = {12: "CMYK", 14: "L*a*b* colour", 18: "YCbCr colour"}
"""Enumerated colour spaces that are not read, those with a name that people know."""
_COLOUR, _OPACITY, _PREMULTIPLIED = 0, 1, 2
_KEPT = {b"uuid", b"xml ", b"asoc", b"uinf"}
"""Boxes that say something that holds for the result: GeoJP2, GMLJP2 and others' own."""
_KNOWN = {b"jP  ", b"ftyp", b"rreq", b"jp2h", b"jp2c", b"free"}
_LOOK = 1 << 12
"""Bytes after the header's boxes among which extent() looks for the codestream."""


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file; ImageError where they do not tell."""
    at = head.find(b"ihdr")
    height, width, channels, bits = struct.unpack_from(">IIHB", head, at + 4)
    if at < 0 or not width or not height:
        raise ImageError("it is damaged: it does not tell its size")
    palette = head.find(b"pclr", at, at + _LOOK)
    if palette >= 0:
        channels = head[palette + 6]
    return Extent(width, height, channels, 2 if bits == 255 or bits & 127 > 7 else 1)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a JP2: gray or RGB with alpha or without, 1 to 16 bits, palettes."""
    found = boxes(data)
    streams = [one for one in found if one.kind == b"jp2c"]
    heads = [one for one in found if one.kind == b"jp2h"]
    if len(streams) > 1:
        refuse_frames(len(streams))
    if not streams or not heads:
        raise ImageError("it is damaged: it has no picture")
    stream = data[streams[0].start : streams[0].stop]
    told = boxes(data, heads[0].start, heads[0].stop)
    head = {one.kind: data[one.start : one.stop] for one in reversed(told)}
    picture = j2k.picture_of(stream)
    size = struct.unpack_from(">IIH", head.get(b"ihdr", b"").ljust(10, b"\0"))
    if size != (picture.height, picture.width, len(picture.bits)):
        raise ImageError("it is damaged: its size stands in it twice, and differs")
    if len(picture.bits) > 4:
        raise ImageError(f"{len(picture.bits)} channels are not read")
    samples, comments, notes = j2k.decoded(stream, picture, limits)
    depth = picture.depth
    if b"pclr" in head:
        pixels = _expanded(samples, head[b"pclr"], head.get(b"cmap", b""), limits)
        notes.insert(0, "palette expanded")
        depth = 8
    else:
        pixels = spread(samples, depth)
    icc, colours = _space([data[one.start : one.stop] for one in told if one.kind == b"colr"])
    pixels, kind = _ordered(pixels, colours, head.get(b"cdef"))
    if kind == _PREMULTIPLIED:
        pixels = straight(pixels)
        notes.append("premultiplied alpha stored as straight")
    kept, others = _further(data, found)
    if others:
        notes.append(f"not kept, for they are not known or there twice: JP2 {', '.join(others)}")
    exif = kept.pop(_EXIF_ID, b"").removeprefix(EXIF_MARK) or None
    xmp = kept.pop(_XMP_ID, None)
    resolution = _resolution(head.get(b"res ", b"")) or _from_exif(exif)
    metadata = Metadata(
        icc,
        exif,
        xmp,
        resolution,
        comments=comments,
        bits=depth if depth > 8 else None,
        jp2_boxes=tuple((one[:4], one[4:]) for one in kept.values()),
    )
    return Decoded(pixels, kind != _COLOUR, metadata, (*scaling_note(depth), *notes))


def _space(specifications: list[bytes]) -> tuple[bytes | None, int]:
    """The colour profile, and how many channels are colours, by the first box that is known."""
    unknown = ""
    for body in specifications:
        if len(body) < 3:
            continue
        method, value = body[0], body[3:]
        if method == 1 and len(value) >= 4:
            (space,) = struct.unpack_from(">I", value)
            if space in (_SRGB, _GRAY):
                return None, 3 if space == _SRGB else 1
            unknown = unknown or _OTHER_SPACES.get(space, f"colour space {space}")
        elif method in (2, 3):
            colours = {b"GRAY": 1, b"RGB ": 3}.get(value[16:20])
            if colours:
                return value, colours
            name = value[16:20].decode("latin-1").strip()
            unknown = unknown or f"colour by a profile for {name or 'nothing known'}"
    raise ImageError(f"{unknown or 'a file that names no colour space'} cannot be filtered")


def _ordered(pixels: Pixels, colours: int, definitions: bytes | None) -> tuple[Pixels, int]:
    """*pixels* with colours first and in order, and what the last channel is.

    _COLOUR where there is no alpha. Without definitions a channel after the colours is alpha.
    """
    channels = pixels.shape[2]
    order, alpha = list(range(channels)), _COLOUR if channels == colours else _OPACITY
    if definitions is not None:
        places: dict[int, int] = {}
        for at in range(2, len(definitions) - 5, 6):
            channel, kind, of = struct.unpack_from(">HHH", definitions, at)
            place = of - 1 if kind == _COLOUR else colours
            known = kind != _COLOUR or 1 <= of <= colours
            if not known or places.setdefault(place, channel) != channel:
                raise ImageError("it is damaged: its channels are told twice, or are none")
            alpha = alpha if kind == _COLOUR else kind
        order = [places.get(place, -1) for place in range(channels)]
    if alpha not in (_COLOUR, _OPACITY, _PREMULTIPLIED):
        raise ImageError("it has a channel that is neither colour nor alpha")
    if sorted(order) != list(range(channels)) or channels != colours + (alpha != _COLOUR):
        raise ImageError(f"{channels} channels do not fit its colours")
    same = order == list(range(channels))
    return pixels if same else np.ascontiguousarray(pixels[..., order]), alpha


def _expanded(samples: Pixels, palette: bytes, mapping: bytes, limits: Limits) -> Pixels:
    """The colours of the palette entries *samples*."""
    entries, columns = struct.unpack_from(">HB", palette)
    kinds, body = palette[3 : 3 + columns], palette[3 + columns :]
    if any(kind > 7 for kind in kinds):
        raise ImageError("palettes of more than 8 bits are not read from JP2")
    if not 1 <= columns <= 4 or len(body) != entries * columns or len(mapping) != 4 * columns:
        raise ImageError("it is damaged: its palette has a wrong length")
    if samples.shape[2] != 1 or any(
        struct.unpack_from(">HBB", mapping, 4 * n) != (0, 1, n) for n in range(columns)
    ):
        raise ImageError("a palette for only some channels is not read from JP2")
    if samples.max() >= entries:
        raise ImageError(f"it is damaged: a pixel is past the {entries} colours of its palette")
    limits.require_size(samples.shape[1], samples.shape[0], columns)
    full = np.array([(2 << kind) - 1 for kind in kinds], np.uint32)
    colours = np.frombuffer(body, np.uint8).reshape(entries, columns)
    colours = ((colours * np.uint32(255) + full // 2) // full).astype(np.uint8)
    return np.ascontiguousarray(colours[samples[..., 0]])


def _further(data: bytes, found: list[Box]) -> tuple[dict[bytes, bytes], list[str]]:
    """Boxes beside the picture: EXIF and XMP by their identifier, others by kind and body."""
    kept: dict[bytes, bytes] = {}
    others: set[str] = set()
    for kind, start, stop in found:
        body = data[start:stop]
        if kind == b"uuid" and body[:16] in (_EXIF_ID, _XMP_ID) and body[:16] not in kept:
            kept[body[:16]] = body[16:]
        elif kind in _KEPT and body[:16] not in (_EXIF_ID, _XMP_ID):
            kept[kind + body] = kind + body
        elif kind not in _KNOWN:
            others.add(kind.decode("latin-1").strip())
    return kept, sorted(others)


def _resolution(body: bytes) -> Resolution | None:
    """The resolution at which to show it, else that at which it was taken."""
    found = {one.kind: body[one.start : one.stop] for one in boxes(body)}
    for kind in (b"resd", b"resc"):
        if len(told := found.get(kind, b"")) == 10:
            up, down, right, left, high, wide = struct.unpack(">HHHHbb", told)
            if up and down and right and left:
                x, y = Fraction(right, left) * 10**wide, Fraction(up, down) * 10**high
                return Resolution(x, y, "metre")
    return None


def _from_exif(exif: bytes | None) -> Resolution | None:
    found = ifd.resolution(exif)
    return Resolution(*found) if found else None


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode uint8 or uint16 *pixels* as j2k.write() does, in boxes."""
    stream = j2k.write(pixels, metadata, ways)
    height, width, channels = pixels.shape
    bits = j2k.picture_of(stream).depth
    alpha = channels in (2, 4)
    colours = channels - alpha
    head = [box(b"ihdr", struct.pack(">IIHBBBB", height, width, channels, bits - 1, 7, 0, 0))]
    if metadata.icc:
        head.append(box(b"colr", b"\2\0\0", metadata.icc))
    else:
        head.append(box(b"colr", struct.pack(">BBBI", 1, 0, 0, _SRGB if colours == 3 else _GRAY)))
    if alpha:
        told = [struct.pack(">HHH", n, _COLOUR, n + 1) for n in range(colours)]
        told.append(struct.pack(">HHH", colours, _OPACITY, 0))
        head.append(box(b"cdef", struct.pack(">H", channels), *told))
    if metadata.resolution and metadata.resolution.unit:
        head.append(box(b"res ", box(b"resd", _packed(metadata.resolution))))
    parts = [
        _SIGNATURE,
        box(b"ftyp", b"jp2 \0\0\0\0jp2 "),
        box(b"jp2h", *head),
    ]
    if metadata.exif:
        parts.append(box(b"uuid", _EXIF_ID, metadata.exif))
    if metadata.xmp:
        parts.append(box(b"uuid", _XMP_ID, metadata.xmp))
    parts += [box(kind, body) for kind, body in metadata.jp2_boxes]
    return b"".join([*parts, box(b"jp2c", stream)])


def _packed(resolution: Resolution) -> bytes:
    """*resolution* in pixels a metre, by the nearest of the numbers that the box holds."""
    x, y = resolution.per("metre")
    (up, down, high), (right, left, wide) = _fraction(y), _fraction(x)
    return struct.pack(">HHHHbb", up, down, right, left, high, wide)


def _fraction(value: Fraction) -> tuple[int, int, int]:
    """*value* as numerator and denominator of 16 bits, and a power of ten, of the least error."""
    tried = []
    for power in range(-3, 9):
        part = value / Fraction(10) ** power
        if not 1 <= part <= 65535:
            continue
        near = part.limit_denominator(int(65535 / part))
        error = abs(near * Fraction(10) ** power - value)
        tried.append((error, abs(power), near.numerator, near.denominator, power))
    _, _, numerator, denominator, power = min(tried, default=(0, 0, 1, 1, 0))
    return numerator, denominator, power
