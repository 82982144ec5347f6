"""WebP and GIF for the fuzzer: files of blocks with lengths."""

from __future__ import annotations

import io
import struct
from random import Random
from typing import Any, NamedTuple

import numpy as np
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
from PIL import Image

from cudafilter.operations.pixels import Pixels

Chunk = tuple[bytes, bytes]
PIXELS = (b"VP8 ", b"VP8L")


def riff(chunks: list[Chunk], size: int | None = None) -> bytes:
    """A WebP of *chunks*, which says that it has *size* bytes."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def riff_chunks(data: bytes) -> list[Chunk]:
    found, at = [], 12
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        found.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def webp_seeds() -> list[Seed]:
    """Lossless and lossy, with alpha and without, bare and with metadata."""
    made = []
    for height, width in SIZES:
        for mode, channels in (("RGB", 3), ("RGBA", 4)):
            pixels = samples((height, width, channels))
            image = Image.frombytes(mode, (width, height), pixels.tobytes())
            for lossless in (True, False):
                for metadata in (True, False):
                    out, options = io.BytesIO(), dict[str, Any]()
                    if metadata:
                        options = {"exif": exif(), "xmp": XMP, "icc_profile": profile()}
                    image.save(out, "WEBP", lossless=lossless, exact=True, quality=80, **options)
                    name = f"{height}x{width} {mode} lossless {lossless} metadata {metadata}"
                    data = out.getvalue()
                    made.append(Seed(name, data, pixels if lossless else None, riff_chunks(data)))
    return made


def _place(chunks: list[Chunk]) -> int:
    return next(i for i, (kind, _) in enumerate(chunks) if kind in PIXELS)


def _webp_cut(random: Random, seed: Seed) -> bytes:
    """Cut before the end of the pixels."""
    chunks: list[Chunk] = seed.parts
    at = _place(chunks)
    most = len(riff(chunks[: at + 1])) - len(chunks[at][1]) % 2
    return seed.data[: random.randrange(1, most)]


def _webp_cut_late(random: Random, seed: Seed) -> bytes | None:
    """Cut in the metadata after the pixels."""
    chunks: list[Chunk] = seed.parts
    least = len(riff(chunks[: _place(chunks) + 1]))
    return seed.data[: random.randrange(least, len(seed.data))] if least < len(seed.data) else None


def _webp_half(random: Random, seed: Seed) -> bytes | None:
    """Half of the pixels' or the alpha's bytes or more missing, in a sound container."""
    chunks = list[Chunk](seed.parts)
    at = random.choice([i for i, one in enumerate(chunks) if one[0] in (*PIXELS, b"ALPH")])
    kind, body = chunks[at]
    if len(body) < 100:
        return None
    chunks[at] = (kind, body[: random.randrange(len(body) // 2)])
    return riff(chunks)


def _webp_none(random: Random, seed: Seed) -> bytes:
    return riff([one for one in seed.parts if one[0] not in PIXELS])


def _webp_added(random: Random, seed: Seed) -> bytes | None:
    """Unknown or damaged chunks of metadata."""
    chunks = list[Chunk](seed.parts)
    if chunks[0][0] != b"VP8X":
        return None
    kind = random.choice((b"EXIF", b"XMP ", b"ICCP", b"what", b"\0\0\0\0", b"FUZZ"))
    hostile = random.random() < 0.5
    body = bad_exif(random) if hostile else random.randbytes(random.choice((0, 1, 30)))
    chunks = [one for one in chunks if one[0] != kind]
    chunks.insert(1 if kind == b"ICCP" else len(chunks), (kind, body))
    return riff(chunks)


def _webp_sizes(random: Random, seed: Seed) -> bytes:
    """Sizes of the canvas, of the file and of chunks."""
    chunks = list[Chunk](seed.parts)
    if chunks[0][0] == b"VP8X" and random.random() < 0.5:
        chunks[0] = (b"VP8X", fields(random, chunks[0][1], 10))
        return riff(chunks)
    if random.random() < 0.3:
        return riff(chunks, number(random))
    return fields(random, seed.data, 60, 4)


def _webp_pixels(random: Random, seed: Seed) -> bytes:
    """Bytes of the pixels changed, or their head."""
    chunks = list[Chunk](seed.parts)
    at = random.choice([i for i, one in enumerate(chunks) if one[0] in (*PIXELS, b"ALPH")])
    kind, body = chunks[at]
    chunks[at] = (kind, flips(random, body, 0, random.choice((min(12, len(body)), len(body)))))
    return riff(chunks)


def _webp_shuffled(random: Random, seed: Seed) -> bytes:
    chunks = list[Chunk](seed.parts)
    way, at = random.randrange(4), random.randrange(len(chunks))
    if way == 0:
        random.shuffle(chunks)
    elif way == 1:
        chunks.insert(random.randrange(len(chunks)), chunks[at])
    elif way == 2:
        del chunks[at]
    else:
        chunks += [(random.choice((b"EXIF", b"what", b"ANMF")), b"")] * 60_000
    return riff(chunks)


def _webp_frames(random: Random, seed: Seed) -> bytes:
    """An animation of one or more frames, of any size and place."""
    chunks: list[Chunk] = seed.parts
    inner = riff([one for one in chunks if one[0] in (*PIXELS, b"ALPH")])[12:]
    side = struct.pack("<I", number(random) & 0xFFFFFF)[:3]
    canvas = random.choice((side, b"\x3f\0\0")) + random.choice((side, b"\x2f\0\0"))
    head = (b"VP8X", b"\x12\0\0\0" + canvas)
    frame = (b"ANMF", random.randbytes(6) + canvas + b"\1\0\0\0" + inner)
    return riff([head, (b"ANIM", bytes(6)), *[frame] * random.choice((1, 2, 100))])


WEBP = Format(
    webp_seeds,
    (
        Mutation("cut", "refuse", _webp_cut),
        Mutation("half of the pixels", "refuse", _webp_half),
        Mutation("no pixels", "refuse", _webp_none, 1),
        Mutation("cut in metadata", "same", _webp_cut_late, 4),
        Mutation("chunks added", "same", _webp_added),
        Mutation("trailing bytes", "same", trailing, 4),
        Mutation("sizes", "any", _webp_sizes),
        Mutation("pixels changed", "any", _webp_pixels),
        Mutation("chunks shuffled", "any", _webp_shuffled),
        Mutation("frames", "any", _webp_frames, 2),
        Mutation("noise", "any", noise),
    ),
)


class Gif(NamedTuple):
    """A GIF taken apart."""

    head: bytes
    """Signature, screen and palette."""
    extensions: bytes
    image: bytes
    """The image's own head."""
    bits: int
    indices: bytes
    """Palette indices in the order in which they are stored."""


def lzw(indices: bytes, bits: int, end: bool = True) -> bytes:
    """GIF's LZW without any word longer than a sample: the table is cleared before it grows."""
    clear, size = 1 << bits, bits + 1
    codes = []
    for at, value in enumerate(indices):
        if at % (clear - 2) == 0:
            codes.append(clear)
        codes.append(value)
    if end:
        codes.append(clear + 1)
    whole = sum(code << size * i for i, code in enumerate(codes))
    return whole.to_bytes(-(-size * len(codes) // 8), "little")


def gif_blocks(data: bytes) -> bytes:
    parts = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


def gif(parts: Gif, coded: bytes | None = None) -> bytes:
    coded = lzw(parts.indices, parts.bits) if coded is None else coded
    return (
        parts.head
        + parts.extensions
        + parts.image
        + bytes((parts.bits,))
        + gif_blocks(coded)
        + b";"
    )


def gif_seeds() -> list[Seed]:
    """Palettes of 4 to 256 colours, of the file or the image, interlaced, with transparency."""
    made = []
    for height, width in SIZES:
        for bits in (2, 4, 8):
            for way in range(4):
                interlaced, local, clear = way % 2 == 1, way == 2, way >= 2
                index = samples((height, width), most=(1 << bits) - 1)
                palette = samples((1 << bits, 3))
                size = bits - 1
                screen = struct.pack("<HHBBB", width, height, 0 if local else 0x80 | size, 0, 0)
                table = palette.tobytes()
                head = b"GIF89a" + screen + (b"" if local else table)
                flags = (0x80 | size if local else 0) | (0x40 if interlaced else 0)
                image = b"," + struct.pack("<HHHHB", 0, 0, width, height, flags)
                more = b"!\xfe" + gif_blocks(b"a comment")
                pixels = palette[index]
                if clear:
                    more += b"!\xf9\4\1\0\0\1\0"
                    pixels = np.dstack([pixels, (index != 1) * np.uint8(255)])
                parts = Gif(
                    head, more, image + table * local, bits, _order(index, interlaced).tobytes()
                )
                name = f"{height}x{width} {bits} bits way {way}"
                made.append(Seed(name, gif(parts), pixels, parts))
    return made


def _order(index: Pixels, interlaced: bool) -> Pixels:
    if not interlaced:
        return index
    return np.concatenate([index[0::8], index[4::8], index[2::4], index[1::2]])


def _gif_cut(random: Random, seed: Seed) -> bytes:
    """Cut before the last samples."""
    parts: Gif = seed.parts
    lost = (parts.bits + 1 + 7) // 8 + 3  # the end code, the last block's end, and the trailer
    return seed.data[: random.randrange(6, len(seed.data) - lost)]


def _gif_fewer(random: Random, seed: Seed) -> bytes:
    """Samples missing, with the end code or without."""
    parts: Gif = seed.parts
    kept = random.randrange(len(parts.indices))
    coded = lzw(parts.indices[:kept], parts.bits, random.random() < 0.7)
    return gif(parts, coded)


def _gif_taller(random: Random, seed: Seed) -> bytes:
    """More rows declared than there are, of the image and of the screen."""
    parts: Gif = seed.parts
    (height,) = struct.unpack_from("<H", parts.image, 7)
    taller = struct.pack("<H", height + random.choice((1, 2, 100, 5000)))
    image = parts.image[:7] + taller + parts.image[9:]
    return gif(parts._replace(image=image, head=parts.head[:8] + taller + parts.head[10:]))


def _gif_end(random: Random, seed: Seed) -> bytes:
    """No trailer, or neither trailer nor end of blocks."""
    return seed.data[: -random.choice((1, 2))]


def _gif_extensions(random: Random, seed: Seed) -> bytes:
    """Unknown and damaged extensions."""
    parts: Gif = seed.parts
    head = random.choice((
        b"!\xff\x0bXMP DataXMP", b"!\xff\x0bICCRGBG1012", b"!\xff\x0bNETSCAPE2.0", b"!\xfe",
        b"!\x01",
        b"!" + bytes((random.randrange(0x10, 0xF0),)),
    ))  # fmt: skip
    more = head + gif_blocks(random.randbytes(random.choice((0, 3, 700))))
    return gif(parts._replace(extensions=more * random.choice((1, 2)) + parts.extensions))


def _gif_many(random: Random, seed: Seed) -> bytes:
    parts: Gif = seed.parts
    one = random.choice((b"!\xfe\x01a\0", b"!\xfe\0", b"!\xff\0", b"!\xf9\4\0\0\0\0\0"))
    return gif(parts._replace(extensions=one * 100_000 + parts.extensions))


def _gif_heads(random: Random, seed: Seed) -> bytes:
    """Numbers of the screen and of the image."""
    parts: Gif = seed.parts
    if random.random() < 0.5:
        return gif(parts._replace(head=fields(random, parts.head, 13, 6)))
    return gif(parts._replace(image=fields(random, parts.image, 10, 1)))


def _gif_frames(random: Random, seed: Seed) -> bytes:
    """Further images, of any size."""
    parts: Gif = seed.parts
    body = parts.image + bytes((parts.bits,)) + gif_blocks(lzw(parts.indices, parts.bits))
    other = fields(random, body, 10, 1)
    frames = b""
    for _ in range(random.choice((1, 2, 50))):
        told = random.getrandbits(8) & 0x1F, random.getrandbits(16), random.getrandbits(2)
        control = b"!\xf9" + gif_blocks(struct.pack("<BHB", *told))
        frames += control * random.randrange(2) + random.choice((body, body, other))
    return seed.data[:-1] + frames + b";"


def _gif_coded(random: Random, seed: Seed) -> bytes:
    """Codes changed, or read with another size."""
    parts: Gif = seed.parts
    coded = lzw(parts.indices, parts.bits)
    if random.random() < 0.4:
        return gif(parts._replace(bits=random.choice((0, 1, 5, 11, 12, 13, 255))), coded)
    return gif(parts, flips(random, coded))


GIF = Format(
    gif_seeds,
    (
        Mutation("cut", "refuse", _gif_cut),
        Mutation("samples missing", "refuse", _gif_fewer),
        Mutation("taller", "refuse", _gif_taller, 4),
        Mutation("trailer missing", "same", _gif_end, 2),
        Mutation("extensions", "same", _gif_extensions, 6),
        Mutation("many extensions", "same", _gif_many, 1),
        Mutation("trailing bytes", "same", trailing, 4),
        Mutation("heads", "any", _gif_heads),
        Mutation("frames", "any", _gif_frames, 2),
        Mutation("codes", "any", _gif_coded),
        Mutation("noise", "any", noise),
    ),
)
