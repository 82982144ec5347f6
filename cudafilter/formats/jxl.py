"""JPEG XL: its boxes, header and profile are read and written here, the pixels by imagecodecs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats import ifd, jxl_head, jxl_icc
from cudafilter.formats.bmff import box, boxes
from cudafilter.formats.jxl_head import ALPHA, GRAY, RGB, Head
from cudafilter.formats.limits import MAX_METADATA, Extent, Limits
from cudafilter.formats.metadata import EXIF_MARK, SRGB, Decoded, Metadata, Resolution
from cudafilter.formats.samples import drawn, scaling_note, spread, straight
from cudafilter.formats.table import FORMATS, Ways
from cudafilter.host.cores import share
from cudafilter.operations.pixels import Pixels

_BARE, _SIGNATURE = FORMATS["jxl"].starts
_LINEAR = (SRGB[0], 8)
"""The colour space of floats, unless another one is told."""
_LOSSY_LEVEL = 5
_MORE_EFFORT = (7, 9, 10)
"""What libjxl 0.12 needs for floats of both signs, with a quality for such alphas: less fails, at
some pixels 9 too."""
_STREAM = {b"jxlc", b"jxlp"}
_PASSED = {b"JXL ", b"ftyp", b"jxll", b"jxli", b"jbrd", b"free"}
"""Boxes that tell nothing of the result; jbrd makes a JPEG of the source again."""


def extent(head: bytes) -> Extent:
    """The size of an image by the first bytes of its file."""
    stream = head if head.startswith(_BARE) else _parts(head, cut=True)[0]
    found = jxl_head.head_of(stream)
    depth = 4 if found.exponent else 2 if found.bits > 8 else 1
    return Extent(found.width, found.height, found.channels, depth)


def read(data: bytes, limits: Limits) -> Decoded:
    """Decode a still JPEG XL: gray to RGBA of 1 to 16 bits, or floats."""
    import imagecodecs

    parts: dict[bytes, bytes] = {}
    notes: list[str] = []
    if data.startswith(_BARE):
        stream = data
    else:
        stream, parts, notes = _parts(data)
    head = jxl_head.head_of(stream)
    size = extent(stream)
    limits.require_size(size.width, size.height, size.channels * size.bytes_per_sample)
    alpha = _require_readable(head)
    icc, stream = _profile(stream, head, notes)
    try:
        samples: Pixels = np.asarray(
            imagecodecs.jpegxl_decode(stream, 0, keeporientation=True, numthreads=share())
        )
    except (imagecodecs.JpegxlError, ValueError, RuntimeError) as error:
        raise ImageError("it is cut short, or damaged: its picture cannot be decoded") from error
    shape = head.height, head.width, head.channels
    if samples.size != np.prod(shape):
        raise ImageError("it is damaged: its picture is of another size than it says")
    samples = samples.reshape(shape)
    if head.exponent:
        if samples.dtype == np.float16:
            notes.insert(0, "16-bit floats stored as 32-bit")
        pixels = np.ascontiguousarray(samples, np.float32)
    else:
        pixels = spread(samples, head.bits)
        notes = scaling_note(head.bits) + notes
    if alpha and head.extra[0][1]:
        pixels = straight(pixels)
        notes.append("premultiplied alpha stored as straight")
    exif, told = ifd.as_told(_exif(parts.get(b"Exif")), head.orientation)
    resolution = ifd.resolution(exif)
    usual = _LINEAR if head.exponent else SRGB
    metadata = Metadata(
        icc,
        exif,
        parts.get(b"xml "),
        Resolution(*resolution) if resolution else None,
        bits=head.bits if 8 < head.bits < 16 and not head.exponent else None,
        cicp=None if icc or head.cicp == usual else head.cicp,
    )
    return Decoded(pixels, alpha, metadata, (*notes, *told))


def _parts(data: bytes, cut: bool = False) -> tuple[bytes, dict[bytes, bytes], list[str]]:
    """The codestream, the first EXIF and XMP, and notes on what else there is."""
    parts: dict[bytes, bytes] = {}
    pieces, others = [], set[str]()
    for kind, start, stop in boxes(data, cut=cut):
        if kind in _STREAM:
            pieces.append(data[start + 4 * (kind == b"jxlp") : stop])
            continue
        body = data[start:stop]
        if kind == b"brob" and not cut:
            kind, body = body[:4], _inflated(body[4:])
        if kind in (b"Exif", b"xml ") and kind not in parts:
            parts[kind] = body
        elif kind not in _PASSED:
            others.add(kind.decode("latin-1").strip())
    if not pieces:
        raise ImageError("it is damaged: it has no picture")
    told = ", ".join(sorted(others))
    notes = [f"not kept, for they are not known or there twice: JXL {told}"] if told else []
    return b"".join(pieces), parts, notes


def _inflated(body: bytes) -> bytes:
    """What a compressed box holds, or nothing where it is damaged or too large."""
    import imagecodecs

    try:
        return bytes(imagecodecs.brotli_decode(body, out=MAX_METADATA))
    except (imagecodecs.BrotliError, ValueError, RuntimeError):
        return b""


def _exif(body: bytes | None) -> bytes | None:
    """EXIF from a box, which tells how many bytes stand before it."""
    if not body or len(body) < 4:
        return None
    return body[4 + int.from_bytes(body[:4], "big") :].removeprefix(EXIF_MARK) or None


def _require_readable(head: Head) -> bool:
    """Whether the last channel is alpha. Raises ImageError for what is not read."""
    if head.animated:
        raise ImageError(
            "it holds frames of an animation, of which only one could be written",
            hint="extract the frames into files of their own first",
        )
    if head.space not in (RGB, GRAY) and not head.profiled:
        raise ImageError("a file that names no colour space cannot be filtered")
    if any(kind != ALPHA for kind, _ in head.extra) or len(head.extra) > 1:
        raise ImageError("it has a channel that is neither colour nor alpha")
    if head.exponent and (head.bits, head.exponent) not in ((16, 5), (32, 8)):
        raise ImageError(f"floats of {head.bits} bits are not read from JPEG XL")
    if head.bits > 16 and not head.exponent:
        raise ImageError(f"samples of {head.bits} bits are not read from JPEG XL")
    return bool(head.extra)


def _profile(stream: bytes, head: Head, notes: list[str]) -> tuple[bytes | None, bytes]:
    """The profile of the pixels that *stream*, as it is given back, is decoded to.

    Lossy colours are absolute and decoded to any space that has a name; to sRGB where theirs has
    none.
    """
    icc, end = jxl_icc.read(stream, head.end) if head.profiled else (None, head.end)
    if icc and icc[16:20] not in (b"GRAY", b"RGB "):
        raise ImageError("its colours are neither gray nor RGB")
    if icc:
        head.space = GRAY if icc[16:20] == b"GRAY" else RGB
    if not head.xyb:
        if not icc and head.cicp is None:
            notes.append("its colour space has no name elsewhere and is not kept")
        return icc, stream
    if head.cicp is None:
        head.profiled, head.cicp = False, _LINEAR if head.exponent else SRGB
        stream = jxl_head.joined(jxl_head.written(head)) + stream[-(-end // 8) :]
        notes.append(
            "its colours are converted to sRGB, for they are stored without their profile's"
        )
    return None, stream


def _encoded(pixels: Pixels, efforts: list[int], **ways: Any) -> bytes:
    """A file of *pixels*, by the first of *efforts* with which libjxl does not fail.

    Raises ImageError for floats with which it always fails.
    """
    import imagecodecs

    for effort in efforts:
        try:
            return bytes(
                imagecodecs.jpegxl_encode(pixels, effort=effort, numthreads=share(), **ways)
            )
        except imagecodecs.JpegxlError as error:
            failed = error
    if pixels.dtype == np.float32:
        raise ImageError(
            f"{imagecodecs.jpegxl_version()} does not encode these values",
            hint="TIFF holds them",
        ) from failed
    raise failed


def write(pixels: Pixels, metadata: Metadata, ways: Ways) -> bytes:
    """Encode *pixels*: lossless unless a quality is given. A compress level is libjxl's effort.

    uint16 pixels from a file of fewer bits get these bits again. Raises ImageError for a quality
    and colours that are not sRGB: what imagecodecs codes so is taken for sRGB.
    """
    lossy = ways.quality is not None
    icc, cicp = metadata.icc, metadata.cicp
    usual = _LINEAR if pixels.dtype == np.float32 else SRGB
    if lossy:
        if (icc and not _is_srgb(icc)) or (cicp or usual) != usual:
            raise ImageError(
                "with a quality JPEG XL is written in sRGB only, and the picture has other colours",
                hint="leave --quality out: it is lossless then, and keeps them",
            )
        icc = None
    bits = metadata.bits or 16 if pixels.dtype == np.uint16 else 8
    if pixels.dtype == np.uint16:
        pixels = drawn(_linear(pixels), 16) if lossy else drawn(pixels, bits)
    level = ways.compress_level
    effort = max(1, (_LOSSY_LEVEL if lossy else 1) if level is None else level)
    floats = pixels.dtype == np.float32
    further = [each for each in _MORE_EFFORT if each > effort] if floats else []
    data = _encoded(
        pixels,
        [effort, *further],
        level=ways.quality,
        lossless=not lossy,
        bitspersample=None if floats or lossy else bits,
    )
    level_box = b""
    if not data.startswith(_BARE):
        told = {kind: data[a:b] for kind, a, b in boxes(data)}
        level_box = box(b"jxll", told[b"jxll"]) if b"jxll" in told else b""
        data = _parts(data)[0]
    head = jxl_head.head_of(data)
    frames = data[-(-head.end // 8) :]
    head = replace(
        head,
        orientation=ifd.orientation(metadata.exif),
        profiled=icc is not None,
        cicp=cicp or usual,
    )
    pieces = jxl_head.written(head) + (jxl_icc.written(icc) if icc else [])
    stream = jxl_head.joined(pieces) + frames
    more = []
    if metadata.exif:
        more.append(box(b"Exif", bytes(4), metadata.exif))
    if metadata.xmp:
        more.append(box(b"xml ", metadata.xmp))
    if not (more or level_box):
        return stream
    start = _SIGNATURE + box(b"ftyp", b"jxl \0\0\0\0jxl ") + level_box
    return b"".join([start, *more, box(b"jxlc", stream)])


def _linear(pixels: Pixels) -> Pixels:
    """uint16 *pixels* of sRGB with light's own values, as the lossy encoder takes them."""
    value = np.arange(65536) / 65535
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    table = np.rint(light * 65535).astype(np.uint16)
    alpha = pixels.shape[2] in (2, 4)
    colours = table[pixels[..., : pixels.shape[2] - alpha]]
    return np.concatenate([colours, pixels[..., pixels.shape[2] - alpha :]], axis=2)


def _is_srgb(icc: bytes) -> bool:
    """Whether a profile for gray or RGB shows what sRGB shows, to two 255ths."""
    import io

    from PIL import Image, ImageCms

    ramp = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(ramp, ramp, ramp), axis=-1).reshape(len(ramp), -1, 3)
    if icc[16:20] == b"GRAY":
        colours = np.repeat(ramp[:, None, None], 3, axis=2)
    shown = Image.fromarray(colours)
    given = shown.convert("L") if icc[16:20] == b"GRAY" else shown
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        srgb = ImageCms.createProfile("sRGB")
        seen = ImageCms.profileToProfile(given, profile, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return False
    return bool(np.abs(np.asarray(seen).astype(int) - colours).max() <= 2)
