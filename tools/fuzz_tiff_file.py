"""TIFF seeds for the fuzzer: directories and strips laid out here, right or, if asked, wrong."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
from fuzz_cases import (
    SIZES,
    XMP,
    Seed,
    profile,
    samples,
)

from cudafilter.operations.pixels import Pixels

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
STRIP_OFFSETS, SAMPLES, ROWS, STRIP_BYTES, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
COLOUR_MAP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 320, 322, 323, 324, 325
EXTRA, FORMAT_OF_SAMPLES = 338, 339
SHORT, LONG, LONG8 = 3, 4, 16
CODES = {1: "B", SHORT: "H", LONG: "I", LONG8: "Q"}
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, ZSTD = 1, 5, 8, 32946, 32773, 50000
JPEG, SUBSAMPLING = 7, 530
CODERS: Mapping[int, Callable[[bytes], bytes]] = {
    NONE: bytes,
    LZW: lambda raw: bytes(imagecodecs.lzw_encode(raw)),
    DEFLATE: zlib.compress,
    OLD_DEFLATE: zlib.compress,
    PACKBITS: lambda raw: bytes(imagecodecs.packbits_encode(raw)),
    ZSTD: lambda raw: bytes(imagecodecs.zstd_encode(raw)),
}
ENDS_SURELY = frozenset({NONE, DEFLATE, OLD_DEFLATE, PACKBITS, ZSTD})
"""Codings of which the last byte counts; LZW ends with a code that may be its own byte."""
WHITE, BLACK, COLOUR, INDEXED, INKS, LUMA = 0, 1, 2, 3, 5, 6


@dataclass(frozen=True)
class Tag:
    """A tag: its type, and numbers or bytes; *count* and *where* only to tell an untruth."""

    type: int
    values: tuple[int, ...] | bytes
    count: int | None = None
    where: int | None = None
    """Where its value is said to lie."""

    def packed(self, order: str) -> bytes:
        if isinstance(self.values, bytes):
            return self.values
        return struct.pack(f"{order}{len(self.values)}{CODES[self.type]}", *self.values)


@dataclass(frozen=True)
class Tiff:
    """A TIFF of one picture, not laid out yet."""

    tags: Mapping[int, Tag]
    chunks: tuple[bytes, ...]
    """Strips or tiles as they are coded."""
    raw: tuple[bytes, ...]
    """The same, not coded."""
    code: int
    order: str = "<"
    big: bool = False
    early: bool = False
    """The directory stands before the pixels."""
    offsets: tuple[int, ...] | None = None
    lengths: tuple[int, ...] | None = None
    """What is said of the chunks; None for the truth."""
    following: int = 0
    """Offset of the next directory."""
    added: Mapping[int, Tag] = field(default_factory=dict)

    @property
    def tiled(self) -> bool:
        return TILE_WIDTH in self.tags


def file(tiff: Tiff) -> bytes:
    """The bytes of *tiff*."""
    head = 16 if tiff.big else 8
    total = sum(map(len, tiff.chunks))
    first = head if not tiff.early else head + len(_directory(tiff, head, head))
    starts = tuple(first + sum(map(len, tiff.chunks[:i])) for i in range(len(tiff.chunks)))
    at = head if tiff.early else head + total + total % 2
    table = _directory(tiff, at, *starts)
    mark = b"II" if tiff.order == "<" else b"MM"
    if tiff.big:
        start = mark + struct.pack(tiff.order + "HHHQ", 43, 8, 0, at)
    else:
        start = mark + struct.pack(tiff.order + "HI", 42, at)
    body = b"".join(tiff.chunks)
    return start + (table + body if tiff.early else body + b"\0" * (total % 2) + table)


def truth(tiff: Tiff) -> tuple[list[int], list[int]]:
    """Offsets and lengths of the chunks as they are."""
    head = 16 if tiff.big else 8
    if tiff.early:
        head = len(file(tiff)) - sum(map(len, tiff.chunks))
    lengths = [len(chunk) for chunk in tiff.chunks]
    return [head + sum(lengths[:i]) for i in range(len(lengths))], lengths


def _directory(tiff: Tiff, at: int, *starts: int) -> bytes:
    """The directory to stand at *at*, for chunks that begin at *starts*."""
    order, big = tiff.order, tiff.big
    kind, inline = (LONG8, 8) if big else (LONG, 4)
    places = starts if len(starts) == len(tiff.chunks) else tuple(at for _ in tiff.chunks)
    lengths = tuple(map(len, tiff.chunks))
    names = (TILE_OFFSETS, TILE_BYTES) if tiff.tiled else (STRIP_OFFSETS, STRIP_BYTES)
    told = (
        places if tiff.offsets is None else tiff.offsets,
        lengths if tiff.lengths is None else tiff.lengths,
    )
    tags = {**tiff.tags, **{n: Tag(kind, v) for n, v in zip(names, told, strict=True)}}
    tags |= tiff.added
    entry = "HHQ" if big else "HHI"
    size = (8 + 20 * len(tags) + 8) if big else (2 + 12 * len(tags) + 4)
    table, values = struct.pack(order + ("Q" if big else "H"), len(tags)), b""
    for name, tag in sorted(tags.items()):
        packed = tag.packed(order)
        count = {1: 1, 2: 1, 7: 1, SHORT: 2, LONG: 4, 5: 8, LONG8: 8}.get(tag.type, 1)
        told_count = len(packed) // count if tag.count is None else tag.count
        table += struct.pack(order + entry, name, tag.type, told_count)
        if len(packed) <= inline and tag.where is None:
            table += packed.ljust(inline, b"\0")
            continue
        where = at + size + len(values) if tag.where is None else tag.where
        table += struct.pack(order + ("Q" if big else "I"), where)
        if tag.where is None:
            values += packed + b"\0" * (len(packed) % 2)
    return table + struct.pack(order + ("Q" if big else "I"), tiff.following) + values


def shorts(*values: int) -> Tag:
    return Tag(SHORT, values)


@dataclass(frozen=True)
class Way:
    """How a seed is stored."""

    dtype: str = "uint8"
    channels: int = 3
    photometric: int = COLOUR
    extra: int | None = None
    code: int = NONE
    predictor: int = 1
    planar: bool = False
    tile: bool = False
    rows: int = 5
    layout: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        words = [
            f"{self.dtype} of {self.channels}, photometric {self.photometric}, code {self.code}",
            f"extra {self.extra}" * (self.extra is not None),
            f"predictor {self.predictor}" * (self.predictor > 1),
            "planar" * self.planar,
            "tiled" * self.tile,
            *(f"{key} {value}" for key, value in self.layout.items()),
        ]
        return ", ".join(filter(None, words))


def _ways() -> list[Way]:
    """Each sample type, channel count, coding and layout, with its neighbours in turn."""
    ways = []
    layouts: tuple[dict[str, Any], ...] = (
        {}, {"early": True}, {"order": ">"}, {"big": True}, {"big": True, "order": ">"},
    )  # fmt: skip
    codes = (NONE, DEFLATE, LZW, ZSTD, PACKBITS, OLD_DEFLATE)
    kinds = [
        (1, BLACK, None), (2, BLACK, 2), (3, COLOUR, None), (4, COLOUR, 2), (4, COLOUR, 1),
        (2, BLACK, 1),
    ]  # fmt: skip
    turn = 0
    for dtype in ("uint8", "uint16", "float32"):
        for channels, photometric, extra in kinds:
            for planar in (False, True)[: 1 if channels == 1 else 2]:
                if extra == 1 and dtype == "float32":
                    continue
                code = codes[turn % len(codes)]
                predictor = 2 if turn % 2 and code in (DEFLATE, LZW) and dtype != "float32" else 1
                layout = layouts[turn % len(layouts)]
                way = Way(dtype, channels, photometric, extra, code, predictor, planar)
                ways.append(replace(way, tile=turn % 3 == 2, layout=layout))
                turn += 1
    ways += [Way(code=code, layout={"early": True}) for code in codes]
    ways += [Way(channels=1, photometric=BLACK, code=code, rows=1) for code in codes]
    ways += [
        Way("float16", 3),
        Way("float16", 1, BLACK, code=DEFLATE),
        Way("float32", 1, BLACK, code=DEFLATE, rows=1000),
        Way("uint32", 1, BLACK),
        Way("uint8", 1, WHITE),
        Way("uint16", 1, WHITE, code=DEFLATE),
        Way("uint8", 4, INKS),
        Way("uint8", 4, INKS, code=LZW, planar=True),
        Way("uint8", 1, INDEXED, code=PACKBITS),
        Way(channels=1, photometric=BLACK, code=JPEG, rows=16),
        Way(photometric=LUMA, code=JPEG, rows=16, layout={"early": True}),
        Way("bits", 1, BLACK),
        Way("bits", 1, WHITE, code=PACKBITS),
    ]
    return ways


def seeds() -> list[Seed]:
    """Each way in two sizes, every fifth of one pixel too; metadata in turn."""
    made = []
    for turn, way in enumerate(_ways()):
        for size in SIZES[0 if turn % 5 == 0 else 1 :]:
            tiff, pixels = _stored(way, size, turn % 2 == 0)
            made.append(Seed(f"{size[0]}x{size[1]} {way.name}", file(tiff), pixels, tiff))
    return made


def _stored(way: Way, size: tuple[int, int], metadata: bool) -> tuple[Tiff, Pixels]:
    """A picture laid out by *way*, and its pixels as they must be read."""
    bits = way.dtype == "bits"
    most = {"uint32": 65535, "bits": 1}.get(way.dtype)
    stored = samples((*size, way.channels), "uint8" if bits else way.dtype, most)
    if way.extra == 1:  # no colour is more than its alpha
        stored[..., :-1] = np.minimum(stored[..., :-1], stored[..., -1:])
    depth = 1 if bits else stored.itemsize * 8
    kind = 3 if stored.dtype.kind == "f" else 1
    tags = {
        WIDTH: shorts(size[1]),
        HEIGHT: shorts(size[0]),
        BITS: shorts(*[depth] * way.channels),
        COMPRESSION: shorts(way.code),
        PHOTOMETRIC: shorts(way.photometric),
        SAMPLES: shorts(way.channels),
        PLANAR: shorts(2 if way.planar else 1),
        FORMAT_OF_SAMPLES: shorts(*[kind] * way.channels),
    }
    if way.predictor > 1:
        tags[PREDICTOR] = shorts(way.predictor)
    if way.extra is not None:
        tags[EXTRA] = shorts(way.extra)
    pixels = _meant(way, stored)
    if way.photometric == INDEXED:
        palette = samples((256, 3))
        tags[COLOUR_MAP] = shorts(*(palette.T.astype(int).ravel() * 257).tolist())
        pixels = palette[stored[..., 0]]
    if metadata:
        tags |= {
            ORIENTATION: shorts(6),
            270: Tag(2, b"A picture\0"),
            282: Tag(5, struct.pack(way.layout.get("order", "<") + "II", 300, 1)),
            700: Tag(1, XMP),
        }
        if way.photometric == COLOUR:
            tags[34675] = Tag(7, profile())
    order = way.layout.get("order", "<")
    planes = np.split(stored, way.channels, axis=2) if way.planar else [stored]
    if way.tile:
        tags |= {TILE_WIDTH: shorts(16), TILE_LENGTH: shorts(32)}
        parts = [tile for plane in planes for tile in _tiles(plane)]
    else:
        tags[ROWS] = shorts(way.rows)
        parts = [p[y : y + way.rows] for p in planes for y in range(0, size[0], way.rows)]
    raw = tuple(_raw(part, way.predictor, order, bits) for part in parts)
    if way.code == JPEG:
        chunks, pixels = _as_jpeg(parts)
        if way.photometric == LUMA:
            tags[SUBSAMPLING] = shorts(1, 1)
    else:
        chunks = tuple(CODERS[way.code](one) for one in raw)
    return Tiff(tags, chunks, raw, way.code, **way.layout), pixels


def _as_jpeg(parts: list[Pixels]) -> tuple[tuple[bytes, ...], Pixels]:
    """Each strip as a JPEG of its own, and the pixels that they hold."""
    ways = ("GRAY", "Gray") if parts[0].shape[2] == 1 else ("RGB", "444")
    chunks = tuple(
        bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(part), 90, *ways)) for part in parts
    )
    return chunks, np.concatenate([simplejpeg.decode_jpeg(one, ways[0]) for one in chunks])


def _tiles(plane: Pixels) -> list[Pixels]:
    height, width, channels = plane.shape
    whole = np.zeros((-(-height // 32) * 32, -(-width // 16) * 16, channels), plane.dtype)
    whole[:height, :width] = plane
    return [
        whole[y : y + 32, x : x + 16]
        for y in range(0, len(whole), 32)
        for x in range(0, whole.shape[1], 16)
    ]


def _raw(part: Pixels, predictor: int, order: str, bits: bool) -> bytes:
    if bits:
        return np.packbits(part[..., 0], axis=1).tobytes()
    if predictor == 2:
        part = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1]))
    return part.astype(part.dtype.newbyteorder(">" if order == ">" else "<")).tobytes()


def _meant(way: Way, stored: Pixels) -> Pixels:
    if way.dtype == "bits":
        return np.asarray((stored if way.photometric == BLACK else 1 - stored) * np.uint8(255))
    if way.photometric == WHITE:
        return np.asarray(np.iinfo(stored.dtype).max - stored)
    if way.dtype in ("float16", "uint32"):
        return stored.astype("float32" if way.dtype == "float16" else "uint16")
    if way.extra == 1:
        full, exact = float(np.iinfo(stored.dtype).max), stored.astype(np.float64)
        alpha = exact[..., -1:]
        colour = np.where(alpha > 0, exact[..., :-1] * full / np.maximum(alpha, 1), 0)
        return np.concatenate([np.rint(colour), alpha], axis=2).astype(stored.dtype)
    return stored
