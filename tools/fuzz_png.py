"""PNG for the fuzzer: chunks are taken apart, changed, and put together with right checksums."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random
from typing import NamedTuple

import numpy as np
from fuzz_cases import (
    HUGE,
    SIZES,
    XMP,
    Format,
    Mutation,
    Seed,
    bad_exif,
    exif,
    fields,
    flips,
    hole,
    noise,
    number,
    profile,
    samples,
    trailing,
)
from PIL import Image, PngImagePlugin

from cudafilter.operations.pixels import Pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
DEPTHS = {GRAY: (1, 2, 4, 8, 16), PALETTE: (1, 2, 4, 8), RGB: (8, 16), GRAY_ALPHA: (8, 16)}
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
ADAM7 = (*PASSES, (1, 0, 2, 1))
"""First row and column, and the steps, of each pass of an interlaced picture."""

Chunk = tuple[bytes, bytes]


class Png(NamedTuple):
    """A PNG taken apart."""

    before: list[Chunk]
    """What stands before the pixels."""
    rows: bytes
    """The filtered rows, not compressed."""
    after: list[Chunk]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def file(before: list[Chunk], stream: bytes, after: list[Chunk], step: int = 1 << 30) -> bytes:
    """The file, its compressed *stream* in chunks of *step* bytes."""
    data = [(b"IDAT", stream[at : at + step]) for at in range(0, max(1, len(stream)), step)]
    return SIGNATURE + b"".join(chunk(*one) for one in (*before, *data, *after))


def rows_of(pixels: Pixels, depth: int, interlaced: bool) -> bytes:
    """Samples (H, W, C) as rows, filtered by none, Sub or Up in turn."""
    if not interlaced:
        return _rows(pixels, depth)
    parts = [pixels[y::down, x::across] for y, x, down, across in ADAM7]
    return b"".join(_rows(part, depth) for part in parts if part.size)


def _rows(pixels: Pixels, depth: int) -> bytes:
    flat = pixels.reshape(len(pixels), -1)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8)
    elif depth == 8:
        rows = flat.astype(np.uint8)
    else:
        bits = (flat[:, :, None] >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=1)
    step = max(1, pixels.shape[2] * depth // 8)
    out = np.zeros((len(rows), rows.shape[1] + 1), np.uint8)
    out[:, 0] = np.arange(len(rows)) % 3
    out[:, 1:] = rows
    out[1::3, 1 + step :] -= rows[1::3, :-step]
    out[2::3, 1:] -= rows[1::3][: len(out[2::3])]
    return out.tobytes()


def _seed(shape: tuple[int, int], colour: int, depth: int, interlaced: bool, more: bool) -> Seed:
    height, width = shape
    most = (1 << depth) - 1
    stored = samples((*shape, CHANNELS[colour]), "uint16", most)
    before = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))]
    dtype = np.uint16 if depth == 16 else np.uint8
    pixels = stored * (255 // most) if depth < 8 else stored
    if more:
        before += _metadata(colour)
    if colour == PALETTE:
        palette = samples((most + 1, 3))
        before.append((b"PLTE", palette.tobytes()))
        pixels = palette[stored[..., 0]]
        if more:
            alphas = samples((most // 2 + 1, 1))[:, 0]
            before.append((b"tRNS", alphas.tobytes()))
            full = np.concatenate([alphas, np.full(most + 1 - len(alphas), 255, np.uint8)])
            pixels = np.dstack([pixels, full[stored[..., 0]]])
    elif more and colour in (GRAY, RGB):
        key = stored[height // 2, width // 2]
        before.append((b"tRNS", key.astype(">u2").tobytes()))
        alpha = np.any(stored != key, axis=2) * (65535 if depth == 16 else 255)
        pixels = np.dstack([pixels, alpha])
    rows = rows_of(stored, depth, interlaced)
    after = [(b"tEXt", b"Comment\0after the pixels")] * more + [(b"IEND", b"")]
    name = f"{height}x{width} colour {colour} depth {depth}{' interlaced' * interlaced}"
    data = file(before, zlib.compress(rows), after, 1000)
    return Seed(name, data, pixels.astype(dtype), Png(before, rows, after))


def _metadata(colour: int) -> list[Chunk]:
    chunks = [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"pHYs", struct.pack(">IIB", 3000, 3000, 1)),
        (b"tEXt", b"Title\0A picture"),
        (b"zTXt", b"Author\0\0" + zlib.compress(b"nobody")),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"eXIf", exif()),
        (b"tIME", struct.pack(">HBBBBB", 2024, 2, 29, 1, 2, 3)),
    ]
    if colour not in (GRAY, GRAY_ALPHA):
        chunks.append((b"iCCP", b"sRGB\0\0" + zlib.compress(profile())))
    return chunks


def seeds() -> list[Seed]:
    """Every colour type and depth; sizes, interlacing and metadata in turn; two by Pillow."""
    made = []
    kinds = [(colour, depth) for colour in CHANNELS for depth in DEPTHS.get(colour, (8, 16))]
    for turn, (colour, depth) in enumerate(kinds):
        made.append(_seed(SIZES[1], colour, depth, turn % 4 == 3, turn % 2 == 0))
        made.append(_seed(SIZES[2], colour, depth, turn % 4 == 1, turn % 2 == 1))
        made.append(_seed(SIZES[0], colour, depth, turn % 4 == 0, turn % 4 == 2))
    for mode, channels in (("RGB", 3), ("RGBA", 4)):  # all five filters
        pixels = samples((48, 64, channels))
        out, text = io.BytesIO(), PngImagePlugin.PngInfo()
        text.add_itxt("Title", "A picture")
        Image.frombytes(mode, (64, 48), pixels.tobytes()).save(out, "PNG", pnginfo=text)
        chunks = chunks_of(out.getvalue())
        at = next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT")
        rows = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
        made.append(
            Seed(f"Pillow's {mode}", out.getvalue(), pixels, Png(chunks[:at], rows, chunks[-1:]))
        )
    return made


def chunks_of(data: bytes) -> list[Chunk]:
    found, at = [], len(SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _cut(random: Random, seed: Seed) -> bytes:
    return seed.data[: random.randrange(1, len(seed.data))]


def _fewer_rows(random: Random, seed: Seed) -> bytes | None:
    """Whole rows or single bytes missing, in a stream that is sound."""
    png: Png = seed.parts
    length = random.randrange(len(png.rows))
    row = len(png.rows) // seed.pixels.shape[0] if seed.pixels is not None else 1
    if random.random() < 0.5:
        length -= length % row
    return file(png.before, zlib.compress(png.rows[:length]), png.after, 1000)


def _taller(random: Random, seed: Seed) -> bytes | None:
    """More rows declared than there are."""
    png: Png = seed.parts
    head = bytearray(png.before[0][1])
    height = int.from_bytes(head[4:8], "big")
    head[4:8] = (height + random.choice((1, 2, 100, 20000))).to_bytes(4, "big")
    if head[12]:  # a pass may end where it ended
        return None
    return file([(b"IHDR", bytes(head)), *png.before[1:]], zlib.compress(png.rows), png.after)


def _stream_cut(random: Random, seed: Seed) -> bytes:
    """The end of the compressed stream missing, checksums of chunks right."""
    png: Png = seed.parts
    stream = zlib.compress(png.rows)
    return file(png.before, stream[: random.randrange(len(stream) - 4)], png.after, 1000)


def _stream_hole(random: Random, seed: Seed) -> bytes | None:
    """Zeros or changed bytes in the compressed stream; its own checksum tells."""
    png: Png = seed.parts
    stream = zlib.compress(png.rows)
    body = hole(random, stream[:-4]) if random.random() < 0.5 else flips(random, stream[:-4], 2)
    if _sound(body + stream[-4:], png.rows):
        return None
    return file(png.before, body + stream[-4:], png.after, 1000)


def _sound(stream: bytes, rows: bytes) -> bool:
    try:
        return zlib.decompress(stream) == rows
    except zlib.error:
        return False


def _adler(random: Random, seed: Seed) -> bytes:
    png: Png = seed.parts
    stream = zlib.compress(png.rows)
    return file(png.before, stream[:-4] + flips(random, stream[-4:]), png.after, 1000)


def _filter(random: Random, seed: Seed) -> bytes | None:
    """A filter that there is not."""
    png: Png = seed.parts
    rows = bytearray(png.rows)
    rows[0] = random.randint(5, 255)
    return file(png.before, zlib.compress(bytes(rows)), png.after)


def _no_palette(random: Random, seed: Seed) -> bytes | None:
    png: Png = seed.parts
    if png.before[0][1][9] != PALETTE:
        return None
    before = [one for one in png.before if one[0] != b"PLTE"]
    return file(before, zlib.compress(png.rows), png.after)


def _no_pixels(random: Random, seed: Seed) -> bytes:
    png: Png = seed.parts
    return SIGNATURE + b"".join(chunk(*one) for one in (*png.before, *png.after))


def _more_rows(random: Random, seed: Seed) -> bytes:
    png: Png = seed.parts
    more = random.choice((b"\0", png.rows, random.randbytes(1000)))
    return file(png.before, zlib.compress(png.rows + more), png.after)


def _bytes_in_chunks(random: Random, seed: Seed) -> bytes:
    return flips(random, seed.data)


def _chunks_added(random: Random, seed: Seed) -> bytes:
    """Chunks that are unknown, or known and damaged."""
    png: Png = seed.parts
    kind = random.choice((
        b"prVt", b"prVT", b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"iCCP",
        b"eXIf", b"tIME", b"bKGD", b"sBIT", b"hIST", b"sPLT", b"cICP", b"oFFs", b"sCAL", b"acTL",
    ))  # fmt: skip
    body = random.randbytes(random.choice((0, 1, 2, 4, 9, 32, 500)))
    if kind == b"acTL":
        body = struct.pack(">II", random.randrange(2), 0)
    added = [(kind, body)] * random.choice((1, 1, 2))
    early = random.random() < 0.7
    before = png.before + added if early else png.before
    after = png.after if early else [*png.after[:-1], *added, png.after[-1]]
    return file(before, zlib.compress(png.rows), after, random.choice((1, 100, 1 << 30)))


def _exif(random: Random, seed: Seed) -> bytes:
    png: Png = seed.parts
    before = [one for one in png.before if one[0] != b"eXIf"]
    before.append((b"eXIf", bad_exif(random, 300_000)))
    return file(before, zlib.compress(png.rows), png.after)


def _bombs(random: Random, seed: Seed) -> bytes:
    """Compressed text and profiles that are long when inflated; many of them."""
    png: Png = seed.parts
    zeros = zlib.compress(bytes(random.choice((1 << 16, 1 << 22, 30 << 20))))
    kind, head = random.choice((
        (b"iCCP", b"a\0\0"), (b"zTXt", b"a\0\0"), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
    ))  # fmt: skip
    bombs = [(kind, head + zeros)] * random.choice((1, 20))
    return file(png.before + bombs, zlib.compress(png.rows), png.after)


def _many_chunks(random: Random, seed: Seed) -> bytes:
    png: Png = seed.parts
    many = [random.choice(((b"prVt", b""), (b"tEXt", b"a\0b"), (b"IDAT", b"")))] * 60_000
    return file(png.before + many, zlib.compress(png.rows), png.after)


def _head(random: Random, seed: Seed) -> bytes:
    """Numbers of the header written over."""
    png: Png = seed.parts
    head = bytearray(png.before[0][1])
    for _ in range(random.randint(1, 2)):
        at = random.choice((0, 4, 8, 9, 10, 11, 12))
        size = 4 if at < 8 else 1
        value = random.choice((number(random), *HUGE)) & ((1 << 8 * size) - 1)
        head[at : at + size] = value.to_bytes(size, "big")
    return file([(b"IHDR", bytes(head)), *png.before[1:]], zlib.compress(png.rows), png.after)


def _frames(random: Random, seed: Seed) -> bytes:
    """An animation of the picture and parts of it, with wrong numbers in some."""
    parts: Png = seed.parts
    head = parts.before[0][1]
    width, height = struct.unpack_from(">II", head)
    count = random.choice((1, 2, 3, 40))
    stream = zlib.compress(parts.rows)
    told = count if random.random() < 0.8 else number(random)
    chunks = [parts.before[0], (b"acTL", struct.pack(">II", told, 0)), *parts.before[1:]]
    at = 0
    for n in range(count):
        place = struct.pack(
            ">IIIIIHHBB", at, width, height, 0, 0, n, 100, random.randrange(3), random.randrange(2)
        )
        if random.random() < 0.1:
            place = fields(random, place, 26)
        chunks.append((b"fcTL", place))
        at += 1
        if n == 0:
            chunks.append((b"IDAT", stream))
            continue
        data = flips(random, stream) if random.random() < 0.02 else stream
        chunks.append((b"fdAT", struct.pack(">I", at) + data))
        at += 1
    body = b"".join(chunk(*one) for one in (*chunks, *parts.after))
    return SIGNATURE + body


def _shuffled(random: Random, seed: Seed) -> bytes:
    """Chunks moved, doubled, dropped or filled otherwise, with right checksums."""
    chunks = chunks_of(seed.data)
    at = random.randrange(len(chunks))
    kind, body = chunks[at]
    way = random.randrange(4)
    if way == 0:
        random.shuffle(chunks)
    elif way == 1:
        chunks.insert(random.randrange(len(chunks)), chunks[at])
    elif way == 2:
        del chunks[at]
    else:
        chunks[at] = (kind, flips(random, body) if body else random.randbytes(9))
    return SIGNATURE + b"".join(chunk(*one) for one in chunks)


FORMAT = Format(
    seeds,
    (
        Mutation("cut", "refuse", _cut),
        Mutation("rows missing", "refuse", _fewer_rows),
        Mutation("taller", "refuse", _taller),
        Mutation("stream cut", "refuse", _stream_cut),
        Mutation("hole in the stream", "refuse", _stream_hole),
        Mutation("stream's checksum", "refuse", _adler),
        Mutation("unknown filter", "refuse", _filter, 2),
        Mutation("no palette", "refuse", _no_palette, 2),
        Mutation("no pixels", "refuse", _no_pixels, 1),
        Mutation("bytes changed", "same", _bytes_in_chunks),
        Mutation("more rows", "same", _more_rows, 4),
        Mutation("trailing bytes", "same", trailing, 4),
        Mutation("chunks added", "same", _chunks_added),
        Mutation("hostile EXIF", "same", _exif, 4),
        Mutation("bombs in metadata", "same", _bombs, 1),
        Mutation("many chunks", "same", _many_chunks, 1),
        Mutation("header", "any", _head),
        Mutation("frames", "any", _frames, 4),
        Mutation("chunks shuffled", "any", _shuffled),
        Mutation("noise", "any", noise, 4),
    ),
)
