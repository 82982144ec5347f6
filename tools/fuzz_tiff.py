"""TIFF for the fuzzer: directories that lie, strips that are missing, cut or damaged."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from random import Random

from fuzz_cases import (
    EXIF_POINTER,
    GPS_POINTER,
    HUGE,
    Format,
    Mutation,
    Seed,
    bad_directories,
    flips,
    hole,
    noise,
    number,
    trailing,
)
from fuzz_tiff_file import (
    BITS,
    CODERS,
    CODES,
    DEFLATE,
    ENDS_SURELY,
    HEIGHT,
    INDEXED,
    JPEG,
    LONG,
    LONG8,
    LZW,
    NONE,
    OLD_DEFLATE,
    PHOTOMETRIC,
    ROWS,
    SAMPLES,
    SHORT,
    STRIP_BYTES,
    STRIP_OFFSETS,
    TILE_BYTES,
    TILE_OFFSETS,
    WIDTH,
    ZSTD,
    Tag,
    Tiff,
    file,
    seeds,
    shorts,
    truth,
)

CHECKED = frozenset({DEFLATE, OLD_DEFLATE})
"""Codings with a checksum."""


def _with(tiff: Tiff, at: int, chunk: bytes) -> bytes:
    """The file with another chunk in place *at*."""
    return file(replace(tiff, chunks=(*tiff.chunks[:at], chunk, *tiff.chunks[at + 1 :])))


def _any(random: Random, tiff: Tiff) -> int:
    return random.randrange(len(tiff.chunks))


def _cut(random: Random, seed: Seed) -> bytes:
    """Cut at any byte of the pixels: the directory stands before them."""
    tiff = replace(seed.parts, early=True)
    length = sum(map(len, tiff.chunks))
    return file(tiff)[: -random.randint(1, length)]


def _cut_late(random: Random, seed: Seed) -> bytes:
    """Pixels that are cut out, from the end on, before a directory that stands last."""
    tiff = replace(seed.parts, early=False)
    offsets, lengths = truth(tiff)
    first = random.randrange(len(lengths))
    told = replace(
        tiff, chunks=tiff.chunks[:first], offsets=tuple(offsets), lengths=tuple(lengths)
    )  # fmt: skip
    data = file(told)
    return data if offsets[-1] + lengths[-1] > len(data) else data[: offsets[first]]


def _offsets_dropped(random: Random, seed: Seed) -> bytes | None:
    """The list of chunks shorter than the picture."""
    tiff: Tiff = seed.parts
    if len(tiff.chunks) < 2:
        return None
    offsets, lengths = truth(tiff)
    kept = random.randrange(1, len(offsets))
    both = random.random() < 0.5
    if tiff.early:  # the directory's length counts
        tiff = replace(tiff, early=False)
        offsets, lengths = truth(tiff)
    return file(
        replace(
            tiff, offsets=tuple(offsets[:kept]), lengths=tuple(lengths[:kept] if both else lengths)
        )
    )


def _offset_outside(random: Random, seed: Seed) -> bytes:
    """A chunk that is said to lie past the end, partly or whole, or nowhere."""
    tiff: Tiff = seed.parts
    offsets, lengths = truth(tiff)
    at = _any(random, tiff)
    end = len(seed.data)
    offsets[at] = random.choice((0, end - lengths[at] + 1, end, end + 1, end + 1000, *HUGE))
    told = replace(tiff, offsets=tuple(offsets), lengths=tuple(lengths))
    if offsets[at] == 0 and random.random() < 0.5:  # as sparse files say
        told = replace(told, lengths=(*lengths[:at], 0, *lengths[at + 1 :]))
    elif offsets[at] == 0:
        told = replace(told, lengths=(*lengths[:at], 1 << 30, *lengths[at + 1 :]))
    return file(told)


def _shorter(random: Random, seed: Seed) -> bytes | None:
    """A chunk that is said to be shorter than it is."""
    tiff: Tiff = seed.parts
    at = _any(random, tiff)
    offsets, lengths = truth(tiff)
    if tiff.code not in ENDS_SURELY and lengths[at] < 4:
        return None
    most = lengths[at] - (0 if tiff.code in ENDS_SURELY else 2)
    lengths[at] = random.randrange(most)
    if tiff.code == NONE and (tiff.tiled or lengths[at] == 0):
        lengths[at] = 0 if lengths[at] == 0 else lengths[at] // 2
    if tiff.code == LZW and lengths[at] > most // 2:
        lengths[at] = most // 2
    return file(replace(tiff, offsets=tuple(offsets), lengths=tuple(lengths)))


def _fewer_samples(random: Random, seed: Seed) -> bytes | None:
    """A chunk whose sound coding holds too few bytes."""
    tiff: Tiff = seed.parts
    if tiff.code == JPEG:
        return None
    at = _any(random, tiff)
    raw = tiff.raw[at]
    kept = random.choice((len(raw) - 1, len(raw) * 4 // 5, len(raw) // 2, 0))
    return _with(tiff, at, CODERS[tiff.code](raw[:kept]) if kept else b"")


def _taller(random: Random, seed: Seed) -> bytes:
    """More rows declared than the chunks hold."""
    tiff: Tiff = seed.parts
    height = tiff.tags[HEIGHT].values[0]
    more = random.choice((32, 64, 1000, 40_000))
    tags = {**tiff.tags, HEIGHT: Tag(LONG, (height + more,))}
    return file(replace(tiff, tags=tags))


def _rows_of_all(random: Random, seed: Seed) -> bytes | None:
    """One strip is said to hold the whole picture, and there are several."""
    tiff: Tiff = seed.parts
    if tiff.tiled or len(tiff.chunks) < 2:
        return None
    offsets, lengths = truth(replace(tiff, early=False))
    planes = 1
    if tiff.tags[284].values == (2,):
        planes = int(tiff.tags[SAMPLES].values[0])
    step = len(offsets) // planes
    if step < 2:
        return None
    told = replace(
        tiff, early=False, offsets=tuple(offsets[::step]), lengths=tuple(lengths[::step]),
        tags={**tiff.tags, ROWS: Tag(LONG, ((1 << 32) - 1,))},
    )  # fmt: skip
    return file(told)


def _checksum(random: Random, seed: Seed) -> bytes | None:
    tiff: Tiff = seed.parts
    if tiff.code not in CHECKED:
        return None
    at = _any(random, tiff)
    chunk = tiff.chunks[at]
    return _with(tiff, at, chunk[:-4] + flips(random, chunk[-4:]))


def _damaged(random: Random, seed: Seed) -> bytes | None:
    """Zeros or changed bytes where a checksum tells."""
    tiff: Tiff = seed.parts
    if tiff.code not in CHECKED:
        return None
    at = _any(random, tiff)
    chunk = tiff.chunks[at]
    body, check = chunk[:-4], chunk[-4:]
    body = hole(random, body) if random.random() < 0.5 else flips(random, body, 2)
    try:
        if zlib.decompress(body + check) == tiff.raw[at]:
            return None
    except zlib.error:
        return _with(tiff, at, body + check)
    return None


def _undecodable(random: Random, seed: Seed) -> bytes | None:
    """A chunk of zeros, or cut within its coding, where the coding has to end."""
    tiff: Tiff = seed.parts
    at = _any(random, tiff)
    chunk = tiff.chunks[at]
    if tiff.code == JPEG:  # cut by one byte of its scan or more, and ended as it has to be
        return _with(tiff, at, chunk[: random.randrange(2, len(chunk) - 4)] + b"\xff\xd9")
    if tiff.code not in (*CHECKED, ZSTD):
        return None
    kept = random.randrange(len(chunk))
    return _with(tiff, at, chunk[:kept] + bytes(random.choice((0, len(chunk) - kept + 5)) or 0))


def _longer(random: Random, seed: Seed) -> bytes:
    """More bytes than needed in a chunk, coded or after its coding."""
    tiff: Tiff = seed.parts
    at = _any(random, tiff)
    more = random.choice((b"\0", random.randbytes(50), bytes(5000)))
    if random.random() < 0.5 and tiff.code != JPEG:
        return _with(tiff, at, CODERS[tiff.code](tiff.raw[at] + more))
    return _with(tiff, at, tiff.chunks[at] + more)


def _surplus(random: Random, seed: Seed) -> bytes:
    """More chunks than the picture has."""
    tiff: Tiff = seed.parts
    offsets, lengths = truth(replace(tiff, early=False))
    more = random.choice((1, 3, 1000))
    told = replace(
        tiff, early=False,
        offsets=(*offsets, *[random.choice(offsets) for _ in range(more)]),
        lengths=(*lengths, *[random.choice(lengths) for _ in range(more)]),
    )  # fmt: skip
    return file(told)


def _tags_added(random: Random, seed: Seed) -> bytes:
    """Tags that do not concern the pixels, damaged or unknown."""
    tiff: Tiff = seed.parts
    added = {}
    for _ in range(random.randint(1, 4)):
        name = random.choice((
            270, 271, 272, 282, 283, 296, 305, 306, 315, 700, 33432, 33723, 34377, 34675, 34853,
            34665, 37724, 42112, 42113, random.randrange(40_000, 65_535),
        ))  # fmt: skip
        body = random.randbytes(random.choice((0, 1, 4, 8, 100)))
        count = random.choice((None, None, 0, number(random)))
        where = random.choice((None, None, None, number(random)))
        added[name] = Tag(random.randrange(19), body, count, where)
    return file(replace(tiff, added={**tiff.added, **added}))


def _directories(random: Random, seed: Seed) -> bytes:
    """An EXIF or GPS directory that is hostile."""
    tiff: Tiff = seed.parts
    name = random.choice((EXIF_POINTER, GPS_POINTER))
    base = len(file(replace(tiff, added={name: Tag(LONG, (0,))})))
    base += base % 2
    data = file(replace(tiff, added={name: Tag(LONG, (base,))}))
    return data.ljust(base, b"\0") + bad_directories(random, tiff.order, base, 300_000)


def _tag(random: Random, seed: Seed) -> bytes:
    """A tag of the layout with another type, count or value, or dropped, or doubled."""
    tiff: Tiff = seed.parts
    tags = dict(tiff.tags)
    for _ in range(random.randint(1, 2)):
        name = random.choice([*tags.keys() - {34675, 700}])
        way = random.randrange(5)
        if way == 0:
            del tags[name]
        elif way == 1:
            count = random.choice((0, 1, 2, 5, 1 << 16, 1 << 31, (1 << 32) - 1))
            tags[name] = replace(tags[name], count=count)
        elif way == 2:
            tags[name] = replace(tags[name], where=number(random))
        else:
            kind = random.choice((SHORT, LONG, LONG8)[: 3 if tiff.big else 2])
            most = (1 << 8 * struct.calcsize("=" + CODES[kind])) - 1
            values = tuple(number(random) & most for _ in range(random.choice((1, 1, 3, 50))))
            tags[name] = Tag(kind, values)
    return file(replace(tiff, tags=tags))


def _bomb(random: Random, seed: Seed) -> bytes:
    """Sizes, sample counts and depths of no sense."""
    tiff: Tiff = seed.parts
    tags = dict(tiff.tags)
    sizes = (1, 1000, 5000, 30_000, 1 << 16, 1 << 25, (1 << 31) - 1, (1 << 32) - 1)
    tags[WIDTH], tags[HEIGHT] = (Tag(LONG, (random.choice(sizes),)) for _ in range(2))
    if random.random() < 0.5:
        count = random.choice((1, 2, 3, 4, 5, 255, 65535))
        tags[SAMPLES] = shorts(count)
        tags[BITS] = shorts(*[random.choice((1, 8, 16, 32, 64))] * min(count, 300))
    tags[ROWS] = Tag(LONG, (random.choice((1, 100, 1 << 16, (1 << 32) - 1)),))
    if random.random() < 0.5:
        count = random.choice((1, 1000, 60_000))
        length = len(tiff.chunks[0])
        told = replace(tiff, tags=tags, early=False)
        return file(replace(told, offsets=(8,) * count, lengths=(length,) * count))
    return file(replace(tiff, tags=tags))


def _inflating(random: Random, seed: Seed) -> bytes:
    """A strip that is far longer when inflated."""
    tiff: Tiff = seed.parts
    code = random.choice((DEFLATE, LZW, ZSTD, OLD_DEFLATE))
    raw = bytes(random.choice((1 << 20, 1 << 24, 1 << 26)))
    chunks = (CODERS[code](raw),) * len(tiff.chunks)
    tags = {**tiff.tags, 259: shorts(code)}
    return file(replace(tiff, tags=tags, chunks=chunks[:20]))


def _loops(random: Random, seed: Seed) -> bytes:
    """A next directory that is this one, none, or anywhere."""
    tiff: Tiff = seed.parts
    head = 16 if tiff.big else 8
    length = sum(map(len, tiff.chunks))
    own = head if tiff.early else head + length + length % 2
    return file(replace(tiff, following=random.choice((own, 1, len(seed.data), number(random)))))


def _many_directories(random: Random, seed: Seed) -> bytes:
    """Tens of thousands of directories in a row."""
    tiff: Tiff = replace(seed.parts, big=False)
    base = len(file(tiff))
    base += base % 2
    data = file(replace(tiff, following=base)).ljust(base, b"\0")
    empty = [struct.pack(tiff.order + "HI", 0, base + 6 * (i + 1)) for i in range(100_000)]
    return data + b"".join(empty)


def _many_tags(random: Random, seed: Seed) -> bytes:
    """Tens of thousands of tags, each with the whole file as its value, or none."""
    tiff: Tiff = seed.parts
    where = random.choice((0, 8))
    count = random.choice((4, 2000, len(seed.data) - 8))
    tag = Tag(7, b"", count, where)
    names = range(35_000, 35_000 + random.choice((100, 20_000)))
    return file(replace(tiff, added=dict.fromkeys(names, tag)))


def _kind(random: Random, seed: Seed) -> bytes:
    """Coding, colour and predictor that are rare or of no sense."""
    tiff: Tiff = seed.parts
    tags = dict(tiff.tags)
    name, values = random.choice((
        (259, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 34712, 34887, 34925, 50001, 32773, 32946, 65535)),
        (PHOTOMETRIC, (0, 1, 2, INDEXED, 4, 5, 6, 8, 9, 10, 32803, 34892, 65535)),
        (317, (0, 1, 2, 3, 34892, 65535)),
        (284, (0, 1, 2, 3)),
        (266, (0, 1, 2)),
        (339, (0, 1, 2, 3, 4, 5, 6)),
        (338, (0, 1, 2, 3)),
    ))  # fmt: skip
    tags[name] = shorts(random.choice(values))
    if random.random() < 0.2:
        del tags[random.choice([n for n in tags if n != name])]
    return file(replace(tiff, tags=tags))


def _two_lists(random: Random, seed: Seed) -> bytes:
    """Strips and tiles at once, told otherwise."""
    tiff: Tiff = seed.parts
    names = (STRIP_OFFSETS, STRIP_BYTES) if tiff.tiled else (TILE_OFFSETS, TILE_BYTES)
    added = {name: Tag(LONG, (random.choice((0, 8, number(random))),)) for name in names}
    return file(replace(tiff, added=added))


FORMAT = Format(
    seeds,
    (
        Mutation("cut", "refuse", _cut),
        Mutation("cut before the directory", "refuse", _cut_late, 4),
        Mutation("chunks dropped", "refuse", _offsets_dropped),
        Mutation("chunk outside", "refuse", _offset_outside),
        Mutation("chunk said shorter", "refuse", _shorter),
        Mutation("samples missing", "refuse", _fewer_samples),
        Mutation("taller", "refuse", _taller),
        Mutation("one strip for all", "refuse", _rows_of_all, 2),
        Mutation("chunk's checksum", "refuse", _checksum),
        Mutation("chunk damaged", "refuse", _damaged),
        Mutation("chunk's coding cut", "refuse", _undecodable),
        Mutation("chunk longer", "same", _longer),
        Mutation("chunks to spare", "same", _surplus, 4),
        Mutation("trailing bytes", "same", trailing, 4),
        Mutation("tags added", "same", _tags_added),
        Mutation("hostile directories", "same", _directories, 4),
        Mutation("many tags", "same", _many_tags, 1),
        Mutation("tag of the layout", "any", _tag),
        Mutation("sizes", "any", _bomb, 4),
        Mutation("inflating", "any", _inflating, 1),
        Mutation("next directory", "any", _loops, 4),
        Mutation("many directories", "any", _many_directories, 1),
        Mutation("coding and colour", "any", _kind),
        Mutation("strips and tiles", "any", _two_lists, 2),
        Mutation("noise", "any", noise),
    ),
)
