"""QOI and the formats of boxes for the fuzzer: JPEG 2000, AVIF, HEIC and JPEG XL."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from random import Random

import imagecodecs
from fuzz_cases import (
    SIZES,
    XMP,
    Format,
    Mutation,
    Seed,
    bad_exif,
    exif,
    fields,
    flips,
    noise,
    number,
    profile,
    samples,
    trailing,
)
from PIL import Image as PillowImage

from cudafilter import images
from cudafilter.formats.bmff import box, boxes
from cudafilter.formats.metadata import Metadata, Resolution
from cudafilter.formats.samples import spread
from cudafilter.images import Image


def metadata(channels: int) -> Metadata:
    """All that these formats keep."""
    return Metadata(
        profile() if channels > 2 else None,
        exif(),
        XMP,
        Resolution(Fraction(300), Fraction(200), "inch"),
    )


def written(format: str, kinds: tuple[tuple[str, int], ...]) -> list[Seed]:
    """Files that this program writes, of (samples, channels), bare and with metadata."""
    made = []
    for height, width in SIZES:
        for dtype, channels in kinds:
            pixels = samples((height, width, channels), dtype)
            if channels in (2, 4):
                pixels[0, 0, -1] = 7
            for told in (Metadata(), metadata(channels)):
                image = Image(pixels, channels in (2, 4), told)
                data = bytes(images.encode(image, format))
                name = f"{height}x{width} {dtype} {channels} metadata {told.exif is not None}"
                made.append(Seed(name, data, pixels))
    return made


def qoi_seeds() -> list[Seed]:
    """Written by this program, and with chunks that its encoder would not choose."""
    made = written("qoi", (("uint8", 3), ("uint8", 4)))
    for height, width in SIZES:
        pixels = samples((height, width, 3))
        chunks = b"".join(b"\xfe" + pixel.tobytes() for pixel in pixels.reshape(-1, 3))
        head = b"qoif" + struct.pack(">IIBB", width, height, 3, 0)
        made.append(Seed(f"{height}x{width} plain", head + chunks + bytes(7) + b"\1", pixels))
    return made


def _qoi_fewer(random: Random, seed: Seed) -> bytes | None:
    """Bytes missing before the end's mark."""
    if len(seed.data) < 40:
        return None
    return seed.data[: random.randrange(14, len(seed.data) - 8)] + seed.data[-8:]


def _cut(random: Random, seed: Seed) -> bytes:
    return seed.data[: random.randrange(1, len(seed.data) - 1)]


def _heads(size: int) -> Callable[[Random, Seed], bytes]:
    """Numbers among the first *size* bytes."""
    return lambda random, seed: fields(random, seed.data, min(size, len(seed.data)), 4)


def _changed(random: Random, seed: Seed) -> bytes:
    return flips(random, seed.data, 4)


QOI = Format(
    qoi_seeds,
    (
        Mutation("cut", "refuse", _cut),
        Mutation("fewer bytes", "refuse", _qoi_fewer),
        Mutation("trailing bytes", "same", trailing, 4),
        Mutation("header", "any", _heads(14)),
        Mutation("pixels changed", "any", _changed),
        Mutation("noise", "any", noise),
    ),
)


def jp2_seeds() -> list[Seed]:
    """Gray to RGBA of 8 and 16 bits, of few bits, tiled, lossy, with a palette."""
    made = written("jp2", (("uint8", 1), ("uint8", 3), ("uint8", 4), ("uint16", 2), ("uint16", 3)))
    lossy = Image(samples((48, 64, 3)), False, metadata(3))
    made.append(Seed("lossy", bytes(images.encode(lossy, "jp2", quality=80))))
    index = samples((48, 64, 1), most=3)
    colours = samples((4, 3))
    stream = bytes(
        imagecodecs.jpeg2k_encode(index[..., 0], level=0, reversible=True, codecformat="j2k")
    )
    head = [
        box(b"ihdr", struct.pack(">IIHBBBB", 48, 64, 1, 7, 7, 0, 0)),
        box(b"colr", struct.pack(">BBBI", 1, 0, 0, 16)),
        box(b"pclr", struct.pack(">HB3B", 4, 3, 7, 7, 7) + colours.tobytes()),
        box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, n) for n in range(3))),
    ]
    start = bytes(images.encode(lossy, "jp2"))[:32]
    palette = start + box(b"jp2h", *head) + box(b"jp2c", stream)
    made.append(Seed("palette", palette, colours[index[..., 0]]))
    return made


def j2k_seeds() -> list[Seed]:
    """Bare codestreams, those of high throughput too."""
    made = written("j2k", (("uint8", 1), ("uint8", 3), ("uint16", 4)))
    for height, width in SIZES[1:]:
        pixels = samples((height, width, 3))
        data = bytes(imagecodecs.htj2k_encode(pixels, reversible=True))
        made.append(Seed(f"{height}x{width} high throughput", data, pixels))
    return made


CONTAINERS = {b"jp2h": 0, b"res ": 0, b"meta": 4, b"iprp": 0, b"ipco": 0, b"iinf": 6, b"iref": 4}
"""Boxes of boxes, and how many bytes stand before these."""


def _boxes(random: Random, seed: Seed) -> bytes:
    """Boxes left out, doubled, swapped, added, or with other bytes, at the top or in one."""
    data = seed.data

    def shuffled(start: int, stop: int, deep: bool) -> bytes:
        parts = [(one.kind, data[one.start : one.stop]) for one in boxes(data, start, stop)]
        if not parts:
            return b""
        at = random.randrange(len(parts))
        kind, body = parts[at]
        inner = kind in CONTAINERS
        way = random.randrange(2, 8) if deep else random.randrange(8)
        if way < 2 or (way < 6 and inner):
            within = [n for n, one in enumerate(parts) if one[0] in CONTAINERS]
            at = random.choice(within or [at])
            kind, body = parts[at]
            if within:
                begin, before = boxes(data, start, stop)[at].start, CONTAINERS[kind]
                body = shuffled(begin + before, begin + len(body), True)
                parts[at] = (kind, data[begin : begin + before] + body)
        elif way == 2:
            del parts[at]
        elif way == 3:
            parts.insert(random.randrange(len(parts) + 1), parts[at])
        elif way == 4:
            other = random.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif way == 5:
            parts[at] = (kind, random.choice((b"", body[: len(body) // 2], body + body)))
        elif way == 6 and body:
            parts[at] = (kind, fields(random, body, len(body)))
        else:
            new = random.choice((b"uuid", b"free", b"abcd", b"Exif", b"xml ", kind))
            parts.insert(at, (new, random.choice((bad_exif(random), random.randbytes(30)))))
        return b"".join(box(*part) for part in parts)

    return shuffled(0, len(data), False)


def _boxes_or_bits(random: Random, seed: Seed) -> bytes:
    """As _boxes(), and where there are none bytes changed."""
    return flips(random, seed.data, 2, 40) if seed.data[0] else _boxes(random, seed)


def _lengths(random: Random, seed: Seed) -> bytes:
    """A box's length that is wrong."""
    at = random.choice(boxes(seed.data)).start - 8
    value = number(random) & 0xFFFFFFFF
    return seed.data[:at] + struct.pack(">I", value) + seed.data[at + 4 :]


def _many(random: Random, seed: Seed) -> bytes:
    return seed.data + random.choice((box(b"free"), box(b"uuid", bytes(16)))) * 100_000


JP2 = Format(
    jp2_seeds,
    (
        Mutation("cut", "refuse", _cut),
        Mutation("boxes", "any", _boxes, 16),
        Mutation("lengths", "any", _lengths),
        Mutation("many boxes", "any", _many, 1),
        Mutation("header", "any", _heads(140)),
        Mutation("pixels changed", "any", _changed),
        Mutation("noise", "any", noise),
    ),
)

J2K = Format(
    j2k_seeds,
    (
        Mutation("cut", "refuse", _cut),
        Mutation("trailing bytes", "same", trailing, 4),
        Mutation("header", "any", _heads(120), 16),
        Mutation("pixels changed", "any", _changed),
        Mutation("noise", "any", noise),
    ),
)


def avif_seeds() -> list[Seed]:
    """Gray to RGBA, of 8, 10 and 12 bits, lossless and lossy, turned, and of tiles."""
    made = written("avif", (("uint8", 1), ("uint8", 3), ("uint8", 4)))
    for bits in (10, 12):
        pixels = spread(samples((13, 17, 4), "uint16", (1 << bits) - 1), bits)
        told = Metadata(bits=bits, cicp=(9, 16))
        made.append(
            Seed(f"{bits} bits", bytes(images.encode(Image(pixels, True, told), "avif")), pixels)
        )
    for quality in (30, 95):
        lossy = Image(samples((48, 64, 3)), False, metadata(3))
        made.append(
            Seed(f"quality {quality}", bytes(images.encode(lossy, "avif", quality=quality)))
        )
    return made


AVIF = Format(
    avif_seeds,
    (
        Mutation("cut", "refuse", _cut),
        Mutation("boxes", "any", _boxes, 24),
        Mutation("lengths", "any", _lengths),
        Mutation("many boxes", "any", _many, 1),
        Mutation("trailing bytes", "same", trailing, 2),
        Mutation("header", "any", _heads(400), 16),
        Mutation("pixels changed", "any", _changed),
        Mutation("noise", "any", noise),
    ),
)


def wide_profile() -> bytes:
    """A profile of a space that has no name, so that JPEG XL must code it."""
    made = bytearray(profile())
    at = made.index(b"gXYZ", 300) if b"gXYZ" in made[300:] else made.index(b"rXYZ")
    place = int.from_bytes(made[at + 4 : at + 8], "big")
    made[place + 9] ^= 5
    return bytes(made)


def jxl_seeds() -> list[Seed]:
    """Gray to RGBA, whole numbers and floats, lossy, in boxes of all kinds, with a profile."""
    kinds = (("uint8", 1), ("uint8", 3), ("uint8", 4), ("uint16", 3), ("float32", 2))
    made = written("jxl", kinds)
    pixels = spread(samples((13, 17, 3), "uint16", 1023), 10)
    ten = Image(pixels, False, Metadata(bits=10, cicp=(9, 16), exif=exif()))
    made.append(Seed("10 bits", bytes(images.encode(ten, "jxl")), pixels))
    for dtype in ("uint8", "uint16"):
        lossy = Image(samples((48, 64, 3), dtype), False, replace(metadata(3), icc=None))
        made.append(Seed(f"lossy {dtype}", bytes(images.encode(lossy, "jxl", quality=80))))
    pixels = samples((13, 17, 3))
    stream = bytes(images.encode(Image(pixels), "jxl"))
    head = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    packed = box(b"brob", b"Exif", bytes(imagecodecs.brotli_encode(bytes(4) + exif())))
    pieces = box(b"jxlp", bytes(4), stream[:50]) + box(b"jxlp", b"\x80\0\0\1", stream[50:])
    made.append(Seed("in pieces", head + packed + pieces, pixels))
    out = io.BytesIO()
    PillowImage.fromarray(pixels).save(out, "JPEG", icc_profile=wide_profile())
    made.append(Seed("from JPEG", bytes(imagecodecs.jpegxl_encode_jpeg(out.getvalue()))))
    return made


JXL = Format(
    jxl_seeds,
    (
        Mutation("cut", "refuse", _cut),
        Mutation("boxes", "any", _boxes_or_bits, 16),
        Mutation("header", "any", _heads(40), 24),
        Mutation("profile", "any", _heads(700), 16),
        Mutation("pixels changed", "any", _changed),
        Mutation("noise", "any", noise),
    ),
)


def heic_seeds() -> list[Seed]:
    """RGB and RGBA of 8 and 10 bits, lossless and lossy, and of tiles. Needs pillow-heif."""
    import pillow_heif

    made = []
    ways = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
    told = {"exif": b"Exif\0\0" + exif(), "xmp": XMP, "icc_profile": profile()}
    for dtype, channels in (("uint8", 3), ("uint8", 4), ("uint16", 3)):
        pixels = samples((64, 80, channels), dtype)
        mode = ("RGB", "RGBA")[channels - 3] + (";16" if dtype == "uint16" else "")
        for more in ({}, told):
            out = io.BytesIO()
            pillow_heif.encode(mode, (80, 64), pixels.tobytes(), out, **ways, **more)
            exact = spread(pixels >> 6, 10) if dtype == "uint16" else pixels
            made.append(Seed(f"{mode} metadata {bool(more)}", out.getvalue(), exact))
    out = io.BytesIO()
    pixels = samples((300, 400, 3))
    pillow_heif.options.GRID_TILE_SIZE = 256
    pillow_heif.encode("RGB", (400, 300), pixels.tobytes(), out, quality=50)
    return [*made, Seed("tiles", out.getvalue())]


HEIC = Format(heic_seeds, AVIF.mutations)
