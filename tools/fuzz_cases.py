"""What the fuzzer's formats share: seeds, mutations, and damage that any file can have.

A mutation belongs to a class, which says what may come of it:

- "refuse": the pixels are damaged or missing, and the file must be refused
- "same":   the pixels are whole; refused, or accepted with the seed's pixels
- "any":    accepted or refused, but in plain words, in time and in little memory
- "seed":   a valid file; refused as not supported, or accepted with its own pixels
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import numpy as np

from cudafilter.operations.pixels import Pixels


class Seed(NamedTuple):
    """A small valid file."""

    name: str
    data: bytes
    pixels: Pixels | None = None
    """(H, W, C): what must be read; None where only another decoder could tell."""
    parts: Any = None
    """What its format's mutations take apart; each format has a type of its own."""


class Mutation(NamedTuple):
    """One way to change a seed."""

    name: str
    oracle: str
    """The class: "refuse", "same" or "any"."""
    make: Callable[[Random, Seed], bytes | None]
    """The changed file; None where the seed has nothing of the kind."""
    weight: int = 8
    """How often it is taken; 1 for what takes long to read."""


class Format(NamedTuple):
    """All that is tried on one format."""

    seeds: Callable[[], list[Seed]]
    mutations: tuple[Mutation, ...]


class Case(NamedTuple):
    """One file to be read."""

    format: str
    number: int
    oracle: str
    mutation: str
    seed: Seed
    data: bytes


SIZES = ((1, 1), (13, 17), (48, 64))
"""Heights and widths of seeds."""

NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 17, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536)
HUGE = (1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) - 16, 1 << 28)


def case_of(format: str, known: Format, seeds: list[Seed], number: int, start: int) -> Case:
    """The file *number* of *format* in the series *start*: the seeds, each mutation once, then
    mutations by chance. The same numbers give the same file."""
    if number < len(seeds):
        return Case(format, number, "seed", "none", seeds[number], seeds[number].data)
    random = Random(f"{start} {format} {number}")
    weights = [mutation.weight for mutation in known.mutations]
    first = known.mutations[number - len(seeds) :][:1]
    while True:
        for mutation in first * 100 or random.choices(known.mutations, weights):
            seed = random.choice(seeds)
            data = mutation.make(random, seed)
            if data is not None and data != seed.data:
                return Case(format, number, mutation.oracle, mutation.name, seed, data)
        first = ()


def samples(shape: tuple[int, ...], dtype: str = "uint8", most: int | None = None) -> Pixels:
    """A picture with slopes and some noise, which no coding makes shorter than a few bytes."""
    rng = np.random.default_rng(sum(shape))
    if dtype.startswith("float"):
        return rng.normal(0.5, 2, shape).astype(dtype)
    top = np.iinfo(dtype).max if most is None else most
    y, x = np.indices(shape[:2])
    slope = (x * 3 + y * 2).reshape(*shape[:2], *[1] * (len(shape) - 2)) * max(1, top // 300)
    noise = rng.integers(0, top // 4 + 2, shape)
    return np.asarray((slope + noise) % (top + 1)).astype(dtype)


def flips(random: Random, data: bytes, start: int = 0, stop: int | None = None) -> bytes:
    """*data* with 1 to 8 bytes from *start* to *stop* changed."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        changed[random.randrange(start, len(data) if stop is None else stop)] ^= random.randint(
            1, 255
        )
    return bytes(changed)


def hole(random: Random, data: bytes) -> bytes:
    """*data* with 1 to 64 bytes of it zero, but for its first two."""
    if len(data) < 8:
        return data
    length = min(len(data) - 4, random.choice((1, 2, 8, 64)))
    at = random.randrange(2, len(data) - length + 1)
    return data[:at] + bytes(length) + data[at + length :]


def number(random: Random) -> int:
    """A number of 0 to 2**32 - 1 that a field is not made for."""
    return random.choice((*NUMBERS, *HUGE, random.getrandbits(32), random.getrandbits(8)))


def fields(random: Random, data: bytes, stop: int, start: int = 0) -> bytes:
    """*data* with 1 to 3 numbers of 1, 2 or 4 bytes between *start* and *stop* written over."""
    changed = bytearray(data)
    stop = min(stop, len(data))
    for _ in range(random.randint(1, 3)):
        size = random.choice((1, 2, 4))
        if stop - size < start:
            continue
        at = random.randint(start, stop - size)
        value = number(random) & ((1 << 8 * size) - 1)
        changed[at : at + size] = value.to_bytes(size, random.choice(("little", "big")))
    return bytes(changed)


def noise(random: Random, seed: Seed) -> bytes:
    """Bytes anywhere changed, taken out, put in or doubled."""
    data = seed.data
    at, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    way = random.randrange(5)
    if way < 2:
        return flips(random, data)
    if way == 2:
        return data[:at] + data[end:]
    if way == 3:
        return data[:end] + data[at:]
    return data[:at] + random.randbytes(random.randint(1, 40)) + data[at:]


def trailing(random: Random, seed: Seed) -> bytes:
    """Bytes after the end."""
    return seed.data + random.choice((b"\0", b"\n", random.randbytes(random.randint(1, 3000))))


EXIF_POINTER, GPS_POINTER, INTEROPERABILITY = 34665, 34853, 40965


def directory(order: str, *entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A directory of (tag, type, count, value or offset)."""
    packed = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return struct.pack(order + "H", len(entries)) + packed + struct.pack(order + "I", following)


def bad_directories(random: Random, order: str, base: int, most: int) -> bytes:
    """Directories to stand at *base* of a file, in *most* bytes, that hurt who believes them."""
    way = random.randrange(7)
    if way == 0:  # three levels of pointers, each to the whole next level
        wide = random.choice((5, 20, 70))
        size = 2 + 12 * wide + 4
        levels = [
            directory(order, *[(EXIF_POINTER, 4, 1, base + size * level)] * wide)
            for level in (1, 2, 3)
        ]
        return b"".join(levels) + directory(order, (40000, 3, 1, 1))
    if way == 1:  # tags that all claim the same bytes
        tags = random.choice((100, min(20000, (most - 6) // 12)))
        length = 2 + 12 * tags + 4
        return directory(order, *[(40000 + i, 7, length, base) for i in range(tags)])
    if way == 2:  # pointers to themselves
        chosen = random.choice((EXIF_POINTER, GPS_POINTER, INTEROPERABILITY))
        return directory(order, (chosen, 4, 1, base), (GPS_POINTER, 4, 1, base), following=base)
    if way == 3:  # counts, types and offsets of no sense
        wild = [
            (random.getrandbits(16), random.randrange(20), number(random), number(random))
            for _ in range(random.randint(1, 30))
        ]
        return directory(order, *wild)
    if way == 4:  # more entries than bytes
        return struct.pack(order + "H", random.choice((0, 2, 65535))) + random.randbytes(20)
    if way == 5:  # resolutions of no sense
        at = base + 2 + 12 * 3 + 4
        whole = directory(order, (282, 5, 1, at), (283, 5, 1, at), (296, 3, 1, number(random)))
        return whole + struct.pack(order + "II", number(random), number(random))
    return random.randbytes(random.randint(0, 200))


def bad_exif(random: Random, most: int = 60000) -> bytes:
    """An EXIF block of at most *most* bytes whose directories are damaged or hostile."""
    order = random.choice("<>")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + bad_directories(random, order, 8, most - 8)


def exif() -> bytes:
    """A small sound EXIF block: orientation, resolution and a further directory."""
    at = 8 + 2 + 12 * 4 + 4
    entries = ((274, 3, 1, 6), (282, 5, 1, at), (283, 5, 1, at), (EXIF_POINTER, 4, 1, at + 8))
    further = directory("<", (37384, 3, 1, 1))
    body = directory("<", *entries) + struct.pack("<II", 300, 1) + further
    return b"II" + struct.pack("<HI", 42, 8) + body


XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>fuzz</x:xmpmeta>"


def profile() -> bytes:
    """The sRGB profile, without the time at which it is made."""
    from PIL import ImageCms

    made = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    return made[:24] + bytes(12) + made[36:]
