"""Deflate in parts, which are one stream."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

from cudafilter.errors import ImageError
from cudafilter.formats import (
    deflate,
)
from cudafilter.stores.buffers import Buffer, joined


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("cuts", [[], [0], [1, 2], [70_000], [5, 40_000, 40_001, 99_999]])
def test_parts_are_one_zlib_stream(level: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(1)
    data = np.repeat(rng.integers(0, 9, 33_334, dtype=np.uint8), 3)[:100_000].tobytes()
    edges = [0, *cuts, len(data)]
    view = memoryview(data)
    parts = [
        deflate.part(view[a:b], view[max(0, a - deflate.WINDOW) : a], level, b == len(data))
        for a, b in itertools.pairwise(edges)
    ]
    stream = b"".join(deflate.pieces(parts))
    inflater = zlib.decompressobj()
    assert inflater.decompress(stream) == data
    assert inflater.eof  # and so the checksum holds
    assert inflater.unused_data == b""
    assert stream[-4:] == zlib.adler32(data).to_bytes(4, "big")


@pytest.mark.parametrize("size", [0, 1, 5551, 65521, 1 << 20])
@pytest.mark.parametrize("value", [0, 255])
def test_checksums_are_joined_at_any_size(size: int, value: int) -> None:
    data = bytes([value]) * size
    empty = memoryview(b"")
    parts = [deflate.part(memoryview(data), empty, 1, False), deflate.part(empty, empty, 1, True)]
    assert zlib.decompress(b"".join(deflate.pieces(parts))) == data
    assert zlib.decompress(deflate.stream(memoryview(data), 1)) == data


def test_a_part_refers_back_to_the_one_before() -> None:
    noise = memoryview(np.random.default_rng(2).bytes(20_000))
    for level in (1, 6):
        alone = deflate.part(noise, memoryview(b""), level, True)
        known = deflate.part(noise, noise, level, True)
        assert len(known.body) < len(alone.body) / 10


@pytest.mark.parametrize("sizes", [[0], [1], [3, 0, 2], [100_000, 1, 65_536]])
def test_pieces_are_joined_in_order(sizes: list[int]) -> None:
    rng = np.random.default_rng(3)
    pieces = [rng.bytes(size) for size in sizes]
    mixed: list[Buffer] = [memoryview(p) if i % 2 else p for i, p in enumerate(pieces)]
    assert joined(mixed) == b"".join(pieces)


def inflated(stream: bytes, size: int, at_once: int) -> tuple[bytes, int]:
    """*size* bytes of *stream*, so many *at_once*, and how many bytes follow it."""
    left = memoryview(stream)

    def feed(count: int) -> Buffer:
        nonlocal left
        given, left = left[:count], left[count:]
        return given

    inflater = deflate.Inflater(feed, size)
    counts = [at_once] * (size // at_once) + [size % at_once] * (size % at_once > 0)
    return b"".join(inflater.take(count) for count in counts), inflater.surplus + len(left)


class Unused:
    """The inflater by pieces, which fails."""

    unused_data = b""


DATA = np.random.default_rng(2).integers(0, 3, 100_000, dtype=np.uint8).tobytes()
FLAT = bytes(1_000_000)


@pytest.mark.parametrize("at_once", [100_000, 30_000])
@pytest.mark.parametrize(
    ("stream", "surplus"),
    [(zlib.compress(DATA), 0), (zlib.compress(DATA, 0), 0), (zlib.compress(DATA) + b"more", 4)],
)
def test_a_stream_gives_its_bytes_and_tells_what_follows(
    stream: bytes, surplus: int, at_once: int
) -> None:
    assert inflated(stream, len(DATA), at_once) == (DATA, surplus)


def test_the_shortest_stream_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = zlib.compress(FLAT, 9)
    monkeypatch.setattr("isal.isal_zlib.decompressobj", Unused)
    assert inflated(stream, len(FLAT), len(FLAT)) == (FLAT, 0)


@pytest.mark.parametrize("at_once", [100_000, 30_000])
@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (zlib.compress(DATA[:-1]), "cut short"),
        (zlib.compress(DATA)[:-1], "cut short"),
        (b"", "cut short"),
        (zlib.compress(DATA + b"x"), "more data than its size"),
        (zlib.compress(DATA)[:-1] + b"x", "cannot be read"),
        (b"?" + zlib.compress(DATA)[1:], "cannot be read"),
    ],
)
def test_a_damaged_stream_is_an_error(stream: bytes, words: str, at_once: int) -> None:
    with pytest.raises(ImageError, match=words):
        inflated(stream, len(DATA), at_once)


def test_a_size_that_the_stream_cannot_hold_takes_no_memory() -> None:
    size = 1 << 50
    with pytest.raises(ImageError, match="cut short"):
        inflated(zlib.compress(DATA), size, size)
