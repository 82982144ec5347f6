"""AVIF: its boxes are read and written here, the pixels by imagecodecs (libavif, libaom)."""

from __future__ import annotations

import struct

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import av1, heif, ifd
from cudafilter.formats.bmff import box, boxes
from cudafilter.formats.limits import Extent, Limits, refuse_frames
from cudafilter.formats.metadata import SRGB, Decoded, Metadata
from cudafilter.formats.samples import drawn, scaling_note, spread
from cudafilter.formats.table import Ways
from cudafilter.host.cores import share
from cudafilter.operations.pixels import Pixels

MAX_SIDE = 32768
"""libavif holds no longer ones, nor more than MAX_PIXELS."""
MAX_PIXELS = 16384 * 16384
_LOSSY_LEVEL = 4
"""The compress level of lossy coding, unless one is given: libavif's own."""
_TOLD = {b"ispe", b"pixi", b"av1C", b"colr", b"irot", b"imir", b"auxC"}
"""Properties of the picture that are kept, or are made anew."""


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file, which hold all of its boxes."""
    return heif.extent(head)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a still AVIF: gray to RGBA of 8, 10 or 12 bits."""
    import imagecodecs

    found = heif.items_of(data)
    if found.frames > 1:
        refuse_frames(found.frames)
    width, height = found.size()
    alpha = found.alpha()
    bits = _bits(found)
    limits.require_size(width, height, (3 + bool(alpha)) * (1 if bits == 8 else 2))
    _require_sizes(data, found)
    try:
        samples: Pixels = np.asarray(imagecodecs.avif_decode(data, 0, numthreads=share()))
    except (imagecodecs.AvifError, ValueError, IndexError) as error:
        raise ImageError(
            "its picture cannot be decoded: it is damaged, or of a kind that is not read"
        ) from error
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape[:2] != (height, width) or (samples.shape[2] in (2, 4)) != bool(alpha):
        raise ImageError("it is damaged: its picture is of another size than it says")
    if samples.itemsize != (1 if bits == 8 else 2):
        raise ImageError("it is damaged: its samples have other bits than it says")
    metadata, notes = heif.metadata_of(data, found, bits, _TOLD)
    if alpha and found.main.references.get(b"prem"):
        notes.append("premultiplied alpha stored as straight")
    return Decoded(spread(samples, bits), bool(alpha), metadata, (*scaling_note(bits), *notes))


def _bits(found: heif.Items) -> int:
    """Bits of a sample of the picture, or of the tiles that it is made of."""
    tiles = found.main.references.get(b"dimg", [found.primary])
    told = {found.items[tile].first(b"av1C") for tile in tiles if tile in found.items}
    bits = {one[2] & 0x60 for one in told if one and len(one) >= 4}
    if len(bits) != 1:
        raise ImageError("it is damaged: its picture has no coding, or several")
    return {0: 8, 0x40: 10, 0x60: 12}.get(bits.pop(), 8)


def _require_sizes(data: bytes, found: heif.Items) -> None:
    """Raise ImageError where a picture in the file is larger than its boxes say."""
    for item in found.items.values():
        if item.kind == b"av01":
            told = item.first(b"ispe")
            size = struct.unpack_from(">4xII", told) if told and len(told) >= 12 else (0, 0)
            width, height = av1.size(heif.item_data(data, item))
            if width > size[0] or height > size[1]:
                raise ImageError("it is damaged: its picture is of another size than it says")


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode *pixels*: lossless unless a quality is given.

    uint16 pixels get as many bits as their file had, 10 or 12. A compress level N is libavif's
    speed 10 - N.
    """
    import imagecodecs

    height, width, _ = pixels.shape
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise ImageError(
            f"{width} x {height} pixels are more than AVIF holds", hint="choose .jxl, .png or .tif"
        )
    bits = 8 if pixels.dtype == np.uint8 else 10 if (metadata.bits or 16) <= 10 else 12
    samples = drawn(pixels, bits) if bits > 8 else pixels
    level = ways.compress_level
    if level is None:
        level = 1 if ways.quality is None else _LOSSY_LEVEL
    primaries, transfer = metadata.cicp or SRGB
    data = imagecodecs.avif_encode(
        samples if samples.shape[2] > 1 else samples[..., 0],
        level=100 if ways.quality is None else min(ways.quality, 99),
        speed=10 - level,
        bitspersample=bits,
        primaries=primaries,
        transfer=transfer,
        numthreads=share(),
    )
    return _with_metadata(bytes(data), metadata)


def _with_metadata(data: bytes, metadata: Metadata) -> bytes:
    """*data*, as libavif writes them, with profile, EXIF, XMP and orientation."""
    found = heif.items_of(data)
    top = {one.kind: one for one in boxes(data)}
    meta = top[b"meta"]
    inner = {k: data[a:b] for k, a, b in boxes(data, meta.start + 4, meta.stop)}
    turned = _turned(metadata)
    profile = [(box(b"colr", b"prof", metadata.icc), False)] if metadata.icc else []
    added = [*profile, *turned]
    new = _new_items(metadata, max(found.items) + 1)
    parts = {k: inner[b"iprp"][a:b] for k, a, b in boxes(inner[b"iprp"])}
    first = len(boxes(parts[b"ipco"])) + 1
    hung = {found.primary: [(first + n, essential) for n, (_, essential) in enumerate(added)]}
    if alpha := found.alpha():
        hung[alpha[0]] = hung[found.primary][len(profile) :]
    ipco = box(b"ipco", parts[b"ipco"], *(one for one, _ in added))
    ipma = box(b"ipma", _hung(parts[b"ipma"], hung))
    infos = inner[b"iinf"]
    total = struct.unpack_from(">H", infos, 4)[0] + len(new)
    iinf = box(b"iinf", infos[:4], struct.pack(">H", total), infos[6:], *(i for _, i, _ in new))
    told = [box(b"cdsc", struct.pack(">HHH", n, 1, found.primary)) for n, _, _ in new]
    references = inner.get(b"iref", bytes(4)) + b"".join(told)
    iref = box(b"iref", references) if len(references) > 4 else b""
    payloads = {n: heif.item_data(data, item) for n, item in found.items.items()}
    payloads.update({n: payload for n, _, payload in new})
    sizes = [len(payload) for payload in payloads.values()]
    fixed = [box(b"hdlr", inner[b"hdlr"]), box(b"pitm", inner[b"pitm"])]
    after = [iinf, iref, box(b"iprp", ipco, ipma)]
    head = len(data[: meta.start - 8])
    before = head + 12 + sum(map(len, [*fixed, *after])) + 16 + 14 * len(sizes) + 8
    places, at = [struct.pack(">IBBH", 0, 0x44, 0, len(sizes))], before
    for number, size in zip(payloads, sizes, strict=True):
        places.append(struct.pack(">HHHII", number, 0, 1, at, size))
        at += size
    whole = box(b"meta", bytes(4), *fixed, box(b"iloc", *places), *after)
    return b"".join([data[:head], whole, box(b"mdat", *payloads.values())])


def _turned(metadata: Metadata) -> list[tuple[bytes, bool]]:
    """The boxes that turn the picture, which nobody may pass over."""
    turn, mirror = heif.orientation_boxes(ifd.orientation(metadata.exif))
    told = [(b"irot", turn), (b"imir", mirror)]
    return [(box(kind, bytes([value])), True) for kind, value in told if value is not None]


def _new_items(metadata: Metadata, number: int) -> list[tuple[int, bytes, bytes]]:
    """Number, description and data of EXIF and XMP."""
    new = []
    if metadata.exif:
        info = struct.pack(">IHH4s", 2 << 24, number, 0, b"Exif") + b"\0"
        new.append((number, box(b"infe", info), bytes(4) + metadata.exif))
    if metadata.xmp:
        number += len(new)
        info = struct.pack(">IHH4s", 2 << 24, number, 0, b"mime") + b"\0" + heif.XMP + b"\0"
        new.append((number, box(b"infe", info), metadata.xmp))
    return new


def _hung(table: bytes, added: dict[int, list[tuple[int, bool]]]) -> bytes:
    """The table of which properties each item has, with those *added*."""
    (count,) = struct.unpack_from(">I", table, 4)
    parts, at = [table[:8]], 8
    for _ in range(count):
        number, told = struct.unpack_from(">HB", table, at)
        more = [index | 128 * essential for index, essential in added.get(number, [])]
        parts.append(struct.pack(">HB", number, told + len(more)))
        parts.append(table[at + 3 : at + 3 + told] + bytes(more))
        at += 3 + told
    return b"".join(parts)
