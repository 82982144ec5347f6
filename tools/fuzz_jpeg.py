"""JPEG for the fuzzer: markers are taken apart, changed and put together."""

from __future__ import annotations

import io
import struct
from random import Random
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from fuzz_cases import (
    NUMBERS,
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
from PIL import Image

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOS, DQT, DHT, DRI, APP0, APP1, APP2, APP14, COM = (
    0xDA, 0xDB, 0xC4, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE,
)  # fmt: skip
FRAMES = frozenset({0xC0, 0xC1, 0xC2})
PADDING = 2
"""Last bytes of a scan that may hold no more than its padding."""

Segment = tuple[int, bytes, bytes]
"""Marker, body, and the coded data that follow (after SOS)."""


class Jpeg(NamedTuple):
    """A JPEG taken apart."""

    segments: list[Segment]
    strict: bool
    """Whether simplejpeg reads the seed, so that what it says of damage counts."""


def parts_of(data: bytes) -> list[Segment]:
    """All segments from SOI to EOI."""
    found, at = [], 2
    while data[at : at + 2] != EOI:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        at = start = at + 2 + length
        while marker == SOS and (data[at] != 0xFF or data[at + 1] in (0, *range(0xD0, 0xD8))):
            at += 1
        found.append((marker, body, data[start:at]))
    return found


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def file(segments: list[Segment], end: bytes = EOI) -> bytes:
    return SOI + b"".join(segment(marker, body) + scan for marker, body, scan in segments) + end


def seeds() -> list[Seed]:
    """Baseline and progressive, gray, RGB and CMYK, every sampling, restarts, metadata."""
    made = []
    for turn, (mode, more) in enumerate(_ways()):
        for size in SIZES:
            channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
            pixels = samples((*size, channels)) if channels > 1 else samples(size)
            image = Image.frombytes(mode, (size[1], size[0]), pixels.tobytes())
            out, options = io.BytesIO(), dict(more)
            if turn % 3 == 0:
                options |= {"exif": exif(), "comment": b"a comment", "xmp": XMP, "dpi": (300, 300)}
            if turn % 4 == 0:
                options["icc_profile"] = profile()
            image.save(out, "JPEG", **options)
            made.append(_seed(f"{size[0]}x{size[1]} {mode} {more}", out.getvalue(), mode != "CMYK"))
    for sampling in ("440", "411"):
        for size in SIZES:
            data = simplejpeg.encode_jpeg(samples((*size, 3)), 90, "RGB", sampling)
            made.append(_seed(f"{size[0]}x{size[1]} 4:{sampling[1]}:{sampling[2]}", data, False))
    return made


def _ways() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("RGB", {"quality": 90, "subsampling": 0}),
        ("RGB", {"quality": 75, "subsampling": 1}),
        ("RGB", {"quality": 95, "subsampling": 2, "optimize": True}),
        ("RGB", {"quality": 90, "subsampling": 2, "progressive": True}),
        ("RGB", {"quality": 90, "subsampling": 0, "progressive": True}),
        ("RGB", {"quality": 90, "subsampling": 2, "restart_marker_blocks": 1}),
        ("RGB", {"quality": 90, "subsampling": 0, "restart_marker_rows": 1}),
        ("RGB", {"quality": 90, "keep_rgb": True}),
        ("L", {"quality": 90}),
        ("L", {"quality": 85, "progressive": True}),
        ("L", {"quality": 85, "restart_marker_blocks": 3}),
        ("CMYK", {"quality": 90}),
        ("CMYK", {"quality": 90, "progressive": True}),
    ]


def _seed(name: str, data: bytes, told: bool) -> Seed:
    """*told*: Pillow's pixels are what must be read."""
    pixels = None
    if told:
        read = np.asarray(Image.open(io.BytesIO(data)))
        pixels = read[..., None] if read.ndim == 2 else read
    try:
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
        strict = True
    except ValueError:
        strict = False
    return Seed(name, data, pixels, Jpeg(parts_of(data), strict))


def _cut(random: Random, seed: Seed) -> bytes:
    """Cut before the last scan's end, with nothing after it."""
    return seed.data[: random.randrange(3, len(seed.data) - 2 - PADDING)]


def _ended(random: Random, seed: Seed) -> bytes | None:
    """A scan cut, and an end marker after it."""
    jpeg: Jpeg = seed.parts
    at = random.choice([i for i, one in enumerate(jpeg.segments) if one[0] == SOS])
    marker, body, scan = jpeg.segments[at]
    if len(scan) <= PADDING:
        return None
    scan = scan[: random.randrange(len(scan) - PADDING)]
    if scan[-1:] == b"\xff":
        scan = scan[:-1]
    return file([*jpeg.segments[:at], (marker, body, scan)])


def _scans_missing(random: Random, seed: Seed) -> bytes | None:
    """The last scans of a progressive file missing: bits of all coefficients are."""
    jpeg: Jpeg = seed.parts
    places = [i for i, one in enumerate(jpeg.segments) if one[0] == SOS]
    if len(places) < 2:
        return None
    return file(jpeg.segments[: random.choice(places[1:])])


def _no_scan(random: Random, seed: Seed) -> bytes:
    jpeg: Jpeg = seed.parts
    return file([one for one in jpeg.segments if one[0] != SOS])


def _damaged_scan(random: Random, seed: Seed) -> bytes | None:
    """Zeros, changed, missing or doubled bytes in a scan, where the strict decoder warns of it."""
    jpeg: Jpeg = seed.parts
    at = random.choice([i for i, one in enumerate(jpeg.segments) if one[0] == SOS])
    marker, body, scan = jpeg.segments[at]
    if not jpeg.strict or len(scan) < 4:
        return None
    start = random.randrange(len(scan) - 1)
    length = min(random.choice((1, 4, 20, 200)), len(scan) - start)
    rest = scan[start + length :]
    way = random.randrange(4)
    if way == 0:
        scan = scan[:start] + bytes(length) + rest
    elif way == 1:
        scan = scan[:start] + rest
    elif way == 2:
        scan = scan[: start + length] + scan[start:]
    else:
        scan = flips(random, scan)
    segments = list(jpeg.segments)
    segments[at] = (marker, body, scan)
    data = file(segments)
    try:
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return data
    return None


def _restart_missing(random: Random, seed: Seed) -> bytes | None:
    """One or more intervals between restart markers missing."""
    jpeg: Jpeg = seed.parts
    at = next(i for i, one in enumerate(jpeg.segments) if one[0] == SOS)
    marker, body, scan = jpeg.segments[at]
    marks = [i for i in range(len(scan) - 1) if scan[i] == 0xFF and 0xD0 <= scan[i + 1] <= 0xD7]
    if len(marks) < 2:
        return None
    first = random.randrange(len(marks) - 1)
    last = min(len(marks) - 1, first + random.choice((1, 2, 8)))
    segments = list(jpeg.segments)
    segments[at] = (marker, body, scan[: marks[first]] + scan[marks[last] :])
    return file(segments)


def _taller(random: Random, seed: Seed) -> bytes | None:
    """Rows of blocks declared that are not there."""
    jpeg: Jpeg = seed.parts
    segments = list(jpeg.segments)
    at = next(i for i, one in enumerate(segments) if one[0] in FRAMES)
    marker, body, scan = segments[at]
    height = int.from_bytes(body[1:3], "big") + random.choice((32, 100, 5000))
    segments[at] = (marker, body[:1] + height.to_bytes(2, "big") + body[3:], scan)
    return file(segments)


def _end_missing(random: Random, seed: Seed) -> bytes:
    return seed.data[: -random.choice((1, 2))]


def _segments_added(random: Random, seed: Seed) -> bytes:
    """Segments that are unknown, or known and damaged; fill bytes before markers."""
    jpeg: Jpeg = seed.parts
    marker = random.choice((APP0, APP1, APP2, *range(0xE3, 0xEE), 0xEF, COM))
    head = random.choice((
        b"", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"MPF\0",
        b"Photoshop 3.0\0", b"JFXX\0", b"ICC_PROFILE\0\1\2", b"ICC_PROFILE\0\2\1",
    ))  # fmt: skip
    body = head + random.randbytes(random.choice((0, 1, 5, 14, 300)))
    if body.startswith(b"JFIF\0") and marker == APP0:
        marker = COM
    fill = b"\xff" * random.choice((0, 0, 1, 7))
    added = (fill + segment(marker, body)) * random.choice((1, 1, 3))
    first = 1 if jpeg.segments[0][0] == APP0 else 0
    place = random.choice((0, first, first))
    return SOI + file(jpeg.segments[:place], b"")[2:] + added + file(jpeg.segments[place:])[2:]


def _bad_segment(random: Random, seed: Seed, body: bytes) -> bytes:
    jpeg: Jpeg = seed.parts
    kept = [one for one in jpeg.segments if one[0] != APP1]
    return file([*kept[:1], (APP1, body, b""), *kept[1:]])


def _exif(random: Random, seed: Seed) -> bytes:
    return _bad_segment(random, seed, b"Exif\0\0" + bad_exif(random, 65000))


def _pictures(random: Random, seed: Seed) -> bytes:
    """The index of a multi-picture file, damaged."""
    jpeg: Jpeg = seed.parts
    body = b"MPF\0" + bad_exif(random, 65000)
    return file([*jpeg.segments[:1], (APP2, body, b""), *jpeg.segments[1:]])


def _many(random: Random, seed: Seed) -> bytes:
    """Tens of thousands of segments, or a profile in 255 parts of which some are missing."""
    jpeg: Jpeg = seed.parts
    if random.random() < 0.5:
        more = segment(random.choice((COM, APP1, APP2, 0xE5)), b"") * 100_000
    else:
        part = random.randbytes(3000)
        numbers = [*range(1, 256)]
        random.shuffle(numbers)
        more = b"".join(
            segment(APP2, b"ICC_PROFILE\0" + bytes((n, 255)) + part)
            for n in numbers[: random.choice((50, 254, 255))]
        )
    return SOI + more + file(jpeg.segments)[2:]


def _frame(random: Random, seed: Seed) -> bytes:
    """Numbers of the frame header, or of the scan's, written over."""
    jpeg: Jpeg = seed.parts
    segments = list(jpeg.segments)
    chosen = random.choice((FRAMES, FRAMES, {SOS}, {DRI}, {APP14}, {APP0}))
    places = [i for i, one in enumerate(segments) if one[0] in chosen]
    if not places:
        return noise(random, seed)
    at = random.choice(places)
    marker, body, scan = segments[at]
    if marker in FRAMES and random.random() < 0.3:
        size = struct.pack(">HH", number(random) & 65535, number(random) & 65535)
        body = body[:1] + size + body[5:]
    else:
        body = fields(random, body, len(body))
    if random.random() < 0.1:
        marker = random.randrange(0xC0, 0xD0)
    segments[at] = (marker, body, scan)
    return file(segments)


def _tables(random: Random, seed: Seed) -> bytes:
    """Tables changed, cut or missing."""
    jpeg: Jpeg = seed.parts
    segments = list(jpeg.segments)
    at = random.choice([i for i, one in enumerate(segments) if one[0] in (DQT, DHT)])
    marker, body, scan = segments[at]
    way = random.randrange(3)
    if way == 0:
        segments[at] = (marker, flips(random, body), scan)
    elif way == 1:
        segments[at] = (marker, body[: random.randrange(len(body))], scan)
    else:
        del segments[at]
    return file(segments)


def _shuffled(random: Random, seed: Seed) -> bytes:
    """Segments moved, doubled or dropped; lengths that are wrong; many scans of nothing."""
    jpeg: Jpeg = seed.parts
    segments = list(jpeg.segments)
    way = random.randrange(5)
    at = random.randrange(len(segments))
    if way == 0:
        random.shuffle(segments)
    elif way == 1:
        segments.insert(random.randrange(len(segments)), segments[at])
    elif way == 2:
        del segments[at]
    elif way == 3:
        data = bytearray(file(segments))
        place = len(file(segments[:at], b"")) + 2
        data[place : place + 2] = (random.choice(NUMBERS) & 65535).to_bytes(2, "big")
        return bytes(data)
    else:
        last = segments[-1]
        segments += [(SOS, last[1], b"")] * random.choice((1, 100, 20_000))
    return file(segments)


def _long_progressive(random: Random, seed: Seed) -> bytes | None:
    """A progressive file of many pixels with hundreds of scans of a few bytes."""
    jpeg: Jpeg = seed.parts
    segments = list(jpeg.segments)
    at = next(i for i, one in enumerate(segments) if one[0] in FRAMES)
    marker, body, scan = segments[at]
    if marker != 0xC2:
        return None
    side = random.choice((500, 4000, 20_000, 65_500))
    segments[at] = (marker, body[:1] + struct.pack(">HH", side, side) + body[5:], scan)
    scans = [one for one in segments if one[0] == SOS]
    return file(segments + scans[-1:] * random.choice((10, 500)))


FORMAT = Format(
    seeds,
    (
        Mutation("cut", "refuse", _cut),
        Mutation("scan cut, end marker", "refuse", _ended),
        Mutation("scans missing", "refuse", _scans_missing, 4),
        Mutation("no scan", "refuse", _no_scan, 1),
        Mutation("scan damaged", "refuse", _damaged_scan),
        Mutation("restart intervals missing", "refuse", _restart_missing, 4),
        Mutation("taller", "refuse", _taller, 4),
        Mutation("end marker missing", "same", _end_missing, 2),
        Mutation("trailing bytes", "same", trailing, 4),
        Mutation("segments added", "same", _segments_added),
        Mutation("hostile EXIF", "same", _exif, 4),
        Mutation("hostile picture index", "same", _pictures, 2),
        Mutation("many segments", "same", _many, 1),
        Mutation("frame", "any", _frame),
        Mutation("tables", "any", _tables, 4),
        Mutation("segments shuffled", "any", _shuffled),
        Mutation("many pixels and scans", "any", _long_progressive, 1),
        Mutation("noise", "any", noise),
    ),
)
