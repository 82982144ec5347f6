"""BMP and PNM for the fuzzer: a header and rows."""

from __future__ import annotations

import re
import struct
from random import Random
from typing import NamedTuple

import numpy as np
from fuzz_cases import (
    HUGE,
    SIZES,
    Format,
    Mutation,
    Seed,
    fields,
    flips,
    noise,
    number,
    profile,
    samples,
    trailing,
)

from cudafilter.operations.pixels import Pixels

PLAIN, RLE8, RLE4, MASKS = 0, 1, 2, 3


class Bmp(NamedTuple):
    """A BMP taken apart."""

    head: bytes
    """All before the pixels."""
    body: bytes
    padding: int
    """Bytes at the end of the pixels that hold none."""
    coding: int


def _bmp(name: str, info: bytes, more: bytes, body: bytes, padding: int, pixels: Pixels) -> Seed:
    start = 14 + len(info) + len(more)
    profile_at = struct.unpack_from("<I", info, 112)[0] if len(info) == 124 else 0
    tail = profile() if profile_at else b""
    head = b"BM" + struct.pack("<IHHI", start + len(body) + len(tail), 0, 0, start) + info + more
    coding = struct.unpack_from("<I", info, 16)[0] if len(info) > 12 else PLAIN
    return Seed(name, head + body + tail, pixels, Bmp(head, body, padding, coding))


def _info(size: int, height: int, width: int, bits: int, coding: int, body: int) -> bytes:
    colours = 1 << bits if bits <= 8 else 0
    fixed = (size, width, height, 1, bits, coding, body, 3000, 3000, colours, 0)
    return struct.pack("<IiiHHIIiiII", *fixed).ljust(size, b"\0")


def _rows(rows: Pixels) -> tuple[bytes, int]:
    """Rows (H, bytes) padded to four bytes each, and how much."""
    padding = -rows.shape[1] % 4
    return np.pad(rows, ((0, 0), (0, padding))).tobytes(), padding


def bmp_seeds() -> list[Seed]:
    """1 to 32 bits, palettes, masks, runs, old and new headers, rows from either end."""
    made = []
    for height, width in SIZES:
        colour = samples((height, width, 3))
        name = f"{height}x{width}"
        for bits, up in ((24, True), (24, False), (32, True)):
            stored = colour[..., ::-1]
            if bits == 32:
                stored = np.dstack([stored, np.zeros((height, width), np.uint8)])
            body, padding = _rows((stored[::-1] if up else stored).reshape(height, -1))
            info = _info(40, height if up else -height, width, bits, PLAIN, len(body))
            made.append(_bmp(f"{name} {bits} bits up {up}", info, b"", body, padding, colour))
        body, padding = _rows(colour[::-1, :, ::-1].reshape(height, -1))
        old = struct.pack("<IHHHH", 12, width, height, 1, 24)
        made.append(_bmp(f"{name} old", old, b"", body, padding, colour))
        new = bytearray(_info(124, height, width, 24, PLAIN, len(body)))
        new[56:60], sizes = b"DEBM", struct.pack("<II", 124 + len(body), len(profile()))
        new[112:120] = sizes
        made.append(_bmp(f"{name} profile", bytes(new), b"", body, padding, colour))
        for bits in (1, 4, 8):
            index = samples((height, width), most=(1 << bits) - 1)
            palette = samples((1 << bits, 4))
            table = palette.tobytes()
            step = np.arange(bits)[::-1]
            packed = np.packbits(
                ((index[::-1, :, None] >> step) & 1).reshape(height, -1).astype(np.uint8), axis=1
            )
            body, padding = _rows(packed)
            info = _info(40, height, width, bits, PLAIN, len(body))
            pixels = palette[index][..., 2::-1]
            made.append(_bmp(f"{name} {bits} bits", info, table, body, padding, pixels))
            if bits > 1:
                body = _runs(index, bits)
                info = _info(40, height, width, bits, RLE8 if bits == 8 else RLE4, len(body))
                made.append(_bmp(f"{name} runs of {bits}", info, table, body, 0, pixels))
    return made


def _runs(index: Pixels, bits: int) -> bytes:
    """Rows from the last on, as runs of one and, in rows of odd number, as they are."""
    out = b""
    for place, row in enumerate(index[::-1]):
        values = row.tolist()
        if place % 2 and len(values) >= 3:
            for at in range(0, len(values), 64):
                part = values[at : at + 64]
                if len(part) < 3:
                    out += b"".join(bytes((1, v if bits == 8 else v << 4)) for v in part)
                    continue
                if bits == 4:
                    pairs = [*part, 0][: len(part) + len(part) % 2]
                    body = bytes(a << 4 | b for a, b in zip(pairs[::2], pairs[1::2], strict=True))
                else:
                    body = bytes(part)
                out += bytes((0, len(part))) + body + b"\0" * (len(body) % 2)
        else:
            out += b"".join(bytes((1, v if bits == 8 else v << 4)) for v in values)
        out += b"\0\0"
    return out + b"\0\1"


def _bmp_cut(random: Random, seed: Seed) -> bytes | None:
    bmp: Bmp = seed.parts
    least = bmp.padding + (4 if bmp.coding else 0)  # runs end with a row's end and the picture's
    lost = random.randint(least + 1, len(bmp.head) + len(bmp.body) - 2)
    return (bmp.head + bmp.body)[:-lost]


def _bmp_taller(random: Random, seed: Seed) -> bytes | None:
    bmp: Bmp = seed.parts
    if bmp.coding or bmp.head[14] == 12 or bmp.head[14] == 124:
        return None
    (height,) = struct.unpack_from("<i", bmp.head, 22)
    more = random.choice((1, 2, 50, 3000))
    height += more if height > 0 else -more
    return bmp.head[:22] + struct.pack("<i", height) + bmp.head[26:] + bmp.body


def _bmp_head(random: Random, seed: Seed) -> bytes:
    bmp: Bmp = seed.parts
    return fields(random, seed.data, min(len(bmp.head), 14 + 124), 2)


def _bmp_size(random: Random, seed: Seed) -> bytes | None:
    """Width and height of no sense; many rows of few runs."""
    bmp: Bmp = seed.parts
    if bmp.head[14] == 12:
        return None
    sizes = (1, 1000, 30_000, 1 << 20, 8_000_000, 1 << 25, (1 << 31) - 1)
    size = struct.pack("<II", random.choice(sizes), random.choice(sizes))
    return bmp.head[:18] + size + bmp.head[26:] + bmp.body


def _bmp_runs(random: Random, seed: Seed) -> bytes | None:
    """Runs, deltas and ends in any order."""
    bmp: Bmp = seed.parts
    if not bmp.coding:
        return None
    pieces = (b"\0\0", b"\0\1", b"\0\2\xff\xff", b"\0\2\0\1", b"\xff\1", b"\0\xff", b"\1\1")
    return bmp.head + b"".join(random.choice(pieces) for _ in range(random.choice((3, 3000))))


BMP = Format(
    bmp_seeds,
    (
        Mutation("cut", "refuse", _bmp_cut),
        Mutation("taller", "refuse", _bmp_taller),
        Mutation("trailing bytes", "same", trailing, 4),
        Mutation("header", "any", _bmp_head),
        Mutation("sizes", "any", _bmp_size, 2),
        Mutation("runs", "any", _bmp_runs, 4),
        Mutation("noise", "any", noise),
    ),
)


class Pnm(NamedTuple):
    """A PNM taken apart."""

    kind: str
    """P1 to P6, PF or Pf."""
    size: tuple[int, int]
    most: int
    """The greatest value; 0 where there is none."""
    stored: Pixels
    """Samples as they are stored."""


def _pnm(pnm: Pnm, body: bytes | None = None, gap: str = "\n") -> bytes:
    """The file, with another *body* if given, and *gap* between the words of its header."""
    height, width = pnm.size
    scale = "-1.0" if pnm.kind in ("PF", "Pf") else str(pnm.most)
    words = [pnm.kind, str(width), str(height)] + [scale] * (pnm.kind not in ("P1", "P4"))
    head = (gap.join(words) + "\n").encode()
    return head + (_pnm_body(pnm) if body is None else body)


def _pnm_body(pnm: Pnm) -> bytes:
    kind, stored = pnm.kind, pnm.stored
    if kind in ("P1", "P2", "P3"):
        rows = stored.reshape(len(stored), -1)
        return b"\n".join(" ".join(map(str, row)).encode() for row in rows.tolist()) + b"\n"
    if kind == "P4":
        return np.packbits(stored[..., 0], axis=1).tobytes()
    if kind in ("PF", "Pf"):
        return stored[::-1].astype("<f4").tobytes()
    return stored.astype(">u2" if pnm.most > 255 else "u1").tobytes()


def pnm_seeds() -> list[Seed]:
    """Every kind, plain and raw, with greatest values of 1 to 65535."""
    made = []
    kinds = [("P1", 1), ("P4", 1), ("PF", 0), ("Pf", 0)]
    kinds += [(k, most) for k in ("P2", "P3", "P5", "P6") for most in (1, 101, 255, 1001, 65535)]
    for kind, most in kinds:
        for size in SIZES:
            channels = 3 if kind in ("P3", "P6", "PF") else 1
            dtype = "uint16" if most else "float32"
            stored = samples((*size, channels), dtype, most or None)
            top = 65535 if most > 255 else 255
            if kind in ("P1", "P4"):
                pixels = (1 - stored) * 255
            else:
                pixels = (stored.astype(np.uint32) * top + most // 2) // most if most else stored
            pnm = Pnm(kind, size, most, stored)
            meant = "float32" if not most else "uint8" if top == 255 else "uint16"
            name = f"{size[0]}x{size[1]} {kind} to {most}"
            made.append(Seed(name, _pnm(pnm), pixels.astype(meant), pnm))
    return made


def _pnm_cut(random: Random, seed: Seed) -> bytes:
    """Samples missing: any byte of a raw file, a whole sample of a plain one."""
    pnm: Pnm = seed.parts
    body = _pnm_body(pnm)
    if pnm.kind in ("P1", "P2", "P3"):
        words = body.split()
        return _pnm(pnm, b" ".join(words[: random.randrange(len(words))]))
    return _pnm(pnm, body[: random.randrange(len(body))])


def _pnm_taller(random: Random, seed: Seed) -> bytes:
    pnm: Pnm = seed.parts
    height, width = pnm.size
    size = (height + random.choice((1, 2, 100, 20_000)), width)
    return _pnm(pnm._replace(size=size))


def _pnm_past(random: Random, seed: Seed) -> bytes | None:
    """A sample past the greatest value."""
    pnm: Pnm = seed.parts
    raw = pnm.kind in ("P5", "P6")
    if not pnm.most or pnm.kind == "P4" or (raw and pnm.most in (255, 65535)):
        return None
    stored = pnm.stored.astype(np.int64)
    top = 255 if raw and pnm.most < 256 else 65535
    past = random.randint(pnm.most + 1, top) if pnm.most < top else 65536
    if pnm.kind == "P1":
        past = random.randint(2, 9)
    stored[random.randrange(len(stored)), random.randrange(stored.shape[1]), 0] = past
    return _pnm(pnm._replace(stored=stored))


def _pnm_words(random: Random, seed: Seed) -> bytes | None:
    """What is no number among the samples of a plain file."""
    pnm: Pnm = seed.parts
    if pnm.kind not in ("P2", "P3"):
        return None
    words = _pnm_body(pnm).split()
    words[random.randrange(len(words))] = random.choice((b"x", b"-1", b"1.5", b"0x1", b"\xff"))
    return _pnm(pnm, b" ".join(words))


def _pnm_maximum(random: Random, seed: Seed) -> bytes | None:
    pnm: Pnm = seed.parts
    if pnm.kind not in ("P2", "P3", "P5", "P6"):
        return None
    return _pnm(pnm._replace(most=random.choice((0, 65536, 1 << 31))), _pnm_body(pnm))


def _pnm_gaps(random: Random, seed: Seed) -> bytes:
    """Comments and other white space in the header."""
    pnm: Pnm = seed.parts
    return _pnm(pnm, gap=random.choice((" ", "\t", "\r\n", "\n\n", "\n# a comment\n", "  \n")))


def _pnm_header(random: Random, seed: Seed) -> bytes:
    """Words of the header of no sense."""
    words = re.split(rb"(\s)", seed.data, maxsplit=4)
    at = random.choice((0, 2, 4, 6)[: len(words) // 2 + 1])
    words[at] = random.choice((
        str(number(random)).encode(), b"-1", b"", b"#", b"1e9", b"P7",
        b"9" * random.choice((5, 5000)),
        *(str(huge).encode() for huge in HUGE), b"0", b"\0",
    ))  # fmt: skip
    return b"".join(words)


def _pnm_long(random: Random, seed: Seed) -> bytes:
    """A header or samples of very many digits, spaces or comments."""
    pnm: Pnm = seed.parts
    many = random.choice((b" ", b"#\n", b"0", b"9", b"1 ", b"\n")) * 300_000
    place = random.choice((2, len(_pnm(pnm, b"")), len(seed.data)))
    return seed.data[:place] + many + seed.data[place:]


def _pnm_flips(random: Random, seed: Seed) -> bytes:
    return flips(random, seed.data, 2, min(len(seed.data), 30))


PNM = Format(
    pnm_seeds,
    (
        Mutation("samples missing", "refuse", _pnm_cut),
        Mutation("taller", "refuse", _pnm_taller),
        Mutation("sample past the greatest value", "refuse", _pnm_past),
        Mutation("word among samples", "refuse", _pnm_words, 4),
        Mutation("greatest value", "refuse", _pnm_maximum, 2),
        Mutation("gaps in the header", "same", _pnm_gaps, 4),
        Mutation("words of the header", "any", _pnm_header),
        Mutation("bytes of the header", "any", _pnm_flips),
        Mutation("very long", "any", _pnm_long, 1),
        Mutation("noise", "any", noise),
    ),
)
