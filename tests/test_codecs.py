"""The codecs behind the formats: each fast one is taken, exact, and leaves the odd to Pillow."""

from __future__ import annotations

import functools
import io
import itertools
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from cudafilter import cores
from cudafilter.errors import ImageError
from cudafilter.formats import (
    deflate,
    jpeg,
    jpeg_head,
    pillow,
    png,
    png_filters,
    table,
)
from cudafilter.formats.buffers import Buffer, joined
from cudafilter.formats.metadata import JpegCoding, Metadata
from cudafilter.images import FORMATS, READ_ONLY, Image, load
from cudafilter.pixels import Pixels
from image_files import ICC, chunk, encode, from_opencv, pil_bytes, random_pixels

Patch = pytest.MonkeyPatch


@functools.cache
def photo(height: int = 600, width: int = 803) -> Pixels:
    """RGB like a photo: smooth structure, an edge and a sensor's noise."""
    rng = np.random.default_rng(5)
    rough = rng.normal(0, 1, (7, 9, 3)).astype(np.float32)
    scene = 110 + 45 * cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(scene, (width // 3, height // 2), height // 4, (200, 120, 40), -1)
    noisy = scene + rng.normal(0, 2, scene.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


@functools.cache
def drawing(height: int = 600, width: int = 803) -> Pixels:
    """RGB of flat areas and text."""
    rng = np.random.default_rng(6)
    canvas = np.full((height, width, 3), 240, np.uint8)
    for _ in range(40):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        colour = [int(value) for value in rng.integers(0, 255, 3)]
        cv2.rectangle(canvas, (x, y), (x + 90, y + 60), colour, -1)
        cv2.putText(canvas, "cudafilter", (x, y), 0, 1, (0, 0, 0), 2)
    return canvas


def forbid(monkeypatch: Patch, owner: Any, *names: str) -> None:
    """Let the test fail if the functions *names* of *owner* are called."""
    for name in names:

        def called(*_: Any, _name: str = name, **__: Any) -> Any:
            pytest.fail(f"{_name} was called")

        monkeypatch.setattr(owner, name, called)


@pytest.fixture
def no_pillow(monkeypatch: Patch) -> None:
    forbid(monkeypatch, pillow, "open_pillow", "save_pillow")


def from_pillow(data: bytes) -> Pixels:
    with Pil.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def outside(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run another program, or skip where it is not installed."""
    if not shutil.which(str(command[0])):
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=False)


# The table


def test_every_format_names_functions_that_there_are() -> None:
    for format in table.FORMATS.values():
        assert callable(table._named(format.reader))
        assert format.writer is None or callable(table._named(format.writer))
    assert FORMATS.keys() == table.FORMATS.keys()
    assert {"gif", "pbm"} == READ_ONLY


LOADED = """
import sys
from pathlib import Path
import cudafilter.images as images
before = set(sys.modules)
image = images.load(Path(sys.argv[1]))
if sys.argv[2]:
    images.encode(image, sys.argv[2])
heavy = {"PIL", "cv2", "isal", "simplejpeg", "imagecodecs", "concurrent.futures"}
print(sorted(heavy & before), sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("source", "target", "loaded"),
    [
        ("jpeg", "", ["simplejpeg"]),
        ("jpeg", "jpeg", ["cv2", "simplejpeg"]),
        ("png", "", ["imagecodecs", "isal"]),
        ("png", "png", ["imagecodecs", "isal"]),
        ("ppm", "ppm", []),
    ],
)
def test_nothing_is_imported_that_the_files_do_not_need(
    source: str, target: str, loaded: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encode(Image(random_pixels("uint8", 3)), source))
    command = [sys.executable, "-c", LOADED, str(path), target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[] {loaded}"


# Deflate


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


# PNG

SIZES = [(1, 1), (1, 40), (40, 1), (7, 5), (33, 31), (64, 200)]
KINDS = [(dtype, channels) for dtype in ("uint8", "uint16") for channels in (1, 2, 3, 4)]


@pytest.mark.parametrize("strip", [1, 257, 1 << 20])
@pytest.mark.parametrize("level", [0, 1, 2, 9])
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_png_is_exact_whatever_the_strips(
    strip: int, level: int, dtype: str, channels: int, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(png, "STRIP", strip)
    for size in SIZES:
        pixels = random_pixels(dtype, channels, *size)
        pixels[size[0] // 2 :] //= 16  # so that rows take different filters
        data = encode(Image(pixels, channels in (2, 4)), "png", compress_level=level)
        np.testing.assert_array_equal(load(data).pixels, pixels)
        if channels != 2:
            np.testing.assert_array_equal(from_opencv(data), pixels)
        if dtype == "uint8" or channels == 1:
            np.testing.assert_array_equal(from_pillow(data), pixels)


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_pngcheck_finds_nothing(
    level: int, dtype: str, channels: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(png, "STRIP", 300)
    text = (b"tEXt", b"Title\0a picture")
    image = Image(
        random_pixels(dtype, channels),
        channels in (2, 4),
        Metadata(icc=ICC if channels > 2 else None, png_chunks=(text,)),
    )
    path = tmp_path / "a.png"
    path.write_bytes(encode(image, "png", compress_level=level))
    done = outside("pngcheck", "-v", path)
    assert done.returncode == 0, done.stdout
    assert "No errors" in done.stdout


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_vips_reads_the_same(dtype: str, channels: int, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(png, "STRIP", 300)
    pixels = random_pixels(dtype, channels)
    source, target = tmp_path / "a.png", tmp_path / "a.raw"
    source.write_bytes(encode(Image(pixels, channels in (2, 4)), "png"))
    done = outside("vips", "rawsave", source, target)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == pixels.tobytes()


@pytest.mark.parametrize("picture", [photo, drawing])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_higher_levels_give_smaller_files(picture: Callable[[], Pixels], format: str) -> None:
    image = Image(picture())
    sizes = [len(encode(image, format, compress_level=level)) for level in range(10)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes == sorted(sizes, reverse=True)
    assert len(encode(image, format)) == sizes[1]


@pytest.mark.parametrize("picture", [photo, drawing])
def test_png_sizes_are_about_pillows(picture: Callable[[], Pixels]) -> None:
    image = Pil.fromarray(picture())
    for level, most in ((1, 1.15), (6, 1.05), (9, 1.05)):
        ours = encode(Image(picture()), "png", compress_level=level)
        theirs = pil_bytes(image, "PNG", compress_level=level)
        assert len(ours) <= most * len(theirs)


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_rows_are_filtered_the_same_wherever_a_strip_begins(
    level: int, dtype: str, channels: int
) -> None:
    pixels = random_pixels(dtype, channels)
    whole = png_filters.filtered(pixels, 0, len(pixels), level)
    for start in range(len(pixels)):
        part = png_filters.filtered(pixels, start, len(pixels), level)
        np.testing.assert_array_equal(part, whole[start:])


def test_each_row_takes_the_filter_that_serves_it() -> None:
    row = np.arange(60, dtype=np.uint8)
    noise = np.random.default_rng(3).integers(0, 256, 60, dtype=np.uint8)
    still = np.zeros(60, np.uint8)
    ramp = np.stack([row * 3, noise, noise, still, still + 1])[..., None]
    kinds = png_filters.filtered(ramp, 0, 5, 6)[:, 0]
    assert kinds[0] == png_filters.SUB
    assert kinds[2] == png_filters.UP
    assert kinds[3] == png_filters.NONE


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_png_is_read_without_pillow(dtype: str, channels: int, no_pillow: None) -> None:
    pixels = random_pixels(dtype, channels)
    data = encode(Image(pixels, channels in (2, 4)), "png")
    np.testing.assert_array_equal(load(data).pixels, pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_interlaced_png_is_read_the_same(mode: str, no_pillow: None) -> None:
    channels = len(Pil.new(mode, (1, 1)).getbands())
    pixels = random_pixels("uint8", channels, 21, 18)
    body = b""
    for y, x, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):  # fmt: skip
        rows = pixels[y::down, x::across]
        body += b"".join(b"\0" + row.tobytes() for row in rows)
    ihdr = struct.pack(">IIBBBBB", 18, 21, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 1)
    parts = chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(load(png.SIGNATURE + parts).pixels, pixels)


def png_of(body: bytes, bits: int = 8) -> bytes:
    """A 64x64 RGB PNG with the zlib stream *body*, its checksums right."""
    ihdr = struct.pack(">IIBBBBB", 64, 64, bits, 2, 0, 0, 0)
    parts = chunk(b"IHDR", ihdr) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return png.SIGNATURE + parts


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("harm", ["cut", "empty", "short", "flipped", "filter", "header"])
def test_png_of_broken_pixels_is_refused(bits: int, harm: str) -> None:
    rows = np.random.default_rng(4).integers(0, 5, (64, 1 + 64 * 3 * bits // 8), dtype=np.uint8)
    rows[:, 0] = 0
    raw = rows.tobytes()
    whole = zlib.compress(raw)
    assert load(png_of(whole, bits)).pixels.shape == (64, 64, 3)
    half = len(whole) // 2
    body = {
        "cut": whole[:half],
        "empty": b"",
        "short": zlib.compress(raw[:-500]),
        "flipped": whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :],
        "filter": zlib.compress(b"\x09" + raw[1:]),
        "header": b"\0" + whole[1:],
    }[harm]
    with pytest.raises(ImageError, match=r"^input: "):
        load(png_of(body, bits))


@pytest.mark.parametrize("chunks", [(), ((b"tEXt", b"Title\0a picture"),)])
def test_png_of_a_wrong_checksum_is_refused(chunks: tuple[tuple[bytes, bytes], ...]) -> None:
    image = Image(random_pixels("uint8", 3), False, Metadata(png_chunks=chunks))
    data = bytearray(encode(image, "png", compress_level=0))
    data[data.index(b"IDAT") + 100] ^= 1
    with pytest.raises(ImageError, match="chunk IDAT fails its checksum"):
        load(bytes(data))


@pytest.mark.parametrize("wrong", [lambda x: (x >> 8).astype(np.uint8), lambda x: x[..., :1]])
def test_pixels_of_the_wrong_kind_are_not_believed(
    wrong: Callable[[Pixels], Pixels], monkeypatch: Patch
) -> None:
    deep = random_pixels("uint16", 3)
    data = encode(Image(deep), "png")
    monkeypatch.setattr("imagecodecs.png_decode", lambda _: wrong(deep))
    with pytest.raises(ImageError, match="damaged"):
        load(data)


# JPEG, reading


SAMPLINGS = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


FACTORS = ((1, 1), (2, 1), (2, 2))
"""Of Pillow's codes of subsampling: luma samples for one of chroma."""


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 3), (97, 131)])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [3, 75, 100])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_jpeg_is_decoded_to_pillows_bits(
    sampling: str, quality: int, progressive: bool, size: tuple[int, int], no_pillow: None
) -> None:
    ways = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    ways += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
    data = cv2.imencode(".jpg", photo()[: size[0], : size[1]], ways)[1].tobytes()
    np.testing.assert_array_equal(load(data).pixels, from_pillow(data))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options",
    [{"optimize": True}, {"restart_marker_blocks": 3}, {"keep_rgb": True}, {"progressive": True}],
)
def test_other_jpegs_are_decoded_to_pillows_bits(
    mode: str, options: dict[str, Any], no_pillow: None
) -> None:
    data = pil_bytes(Pil.fromarray(photo()).convert(mode), "JPEG", **options)
    np.testing.assert_array_equal(load(data).pixels, from_pillow(data))


def test_arithmetic_coding_is_read_as_pillow_does(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ppm", tmp_path / "a.jpg"
    source.write_bytes(encode(Image(photo()), "ppm"))
    done = outside("cjpeg", "-arithmetic", "-outfile", target, source)
    assert done.returncode == 0, done.stderr
    data = target.read_bytes()
    np.testing.assert_array_equal(load(data).pixels, from_pillow(data))


def test_the_head_is_what_pillow_says_of_the_coding() -> None:
    for subsampling in (0, 1, 2):
        for quality in (5, 50, 93):
            data = pil_bytes(
                Pil.fromarray(photo()), "JPEG", quality=quality, subsampling=subsampling
            )
            with Pil.open(io.BytesIO(data)) as image:
                tables = tuple(tuple(t) for t in image.quantization.values())  # type: ignore[attr-defined]
            segments, _ = jpeg_head.segments_of(data[:700])
            head = jpeg_head.head_of(segments, jpeg_head.frame_of(segments))
            of_channels = (tables[0], tables[1], tables[1])
            assert head.metadata.jpeg_coding == JpegCoding(of_channels, FACTORS[subsampling], False)


@pytest.mark.parametrize("missing", [False, True])
def test_a_profile_in_parts_is_put_together(missing: bool) -> None:
    profile = ICC * 300
    data = encode(Image(random_pixels("uint8", 3), False, Metadata(icc=profile)), "jpeg")
    segments, rest = jpeg_head.segments_of(data)
    parts = [segment for segment in segments if segment[0] == 0xE2]
    assert len(parts) > 2
    others = [segment for segment in segments if segment[0] != 0xE2]
    mixed = parts[1:] if missing else parts[::-1]
    image = load(b"\xff\xd8" + jpeg_head.written([*mixed, *others]) + rest)
    assert image.metadata.icc == (None if missing else profile)


# JPEG, writing


def coded(quality: int, subsampling: int, progressive: bool = False) -> Metadata:
    """The metadata of a JPEG of RGB that was coded like this."""
    luma, chroma = jpeg._standard(quality)
    coding = JpegCoding((luma, chroma, chroma), FACTORS[subsampling], progressive)
    return Metadata(jpeg_coding=coding)


@pytest.mark.parametrize("quality", [1, 30, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_encoded_to_pillows_bytes(
    quality: int, subsampling: int, progressive: bool, no_pillow: None
) -> None:
    pixels = np.ascontiguousarray(photo()[:201, :303])
    written = encode(Image(pixels, False, coded(quality, subsampling, progressive)), "jpeg")
    theirs = pil_bytes(
        Pil.fromarray(pixels), "JPEG", quality=quality, subsampling=subsampling,
        progressive=progressive,
    )  # fmt: skip
    assert jpeg_head.with_head([theirs], Metadata()) == written


@pytest.mark.parametrize("quality", [1, 50, 95, 100])
def test_gray_jpeg_is_encoded_to_pillows_bytes(quality: int, no_pillow: None) -> None:
    pixels = np.ascontiguousarray(photo()[..., :1])
    written = encode(Image(pixels), "jpeg", quality=quality)
    theirs = pil_bytes(Pil.fromarray(pixels[..., 0]), "JPEG", quality=quality)
    assert jpeg_head.with_head([theirs], Metadata()) == written


def test_every_standard_quality_is_recognised() -> None:
    for quality in range(1, 101):
        luma, chroma = jpeg._standard(quality)
        assert jpeg.standard_quality((luma, chroma, chroma)) == quality
        assert jpeg.standard_quality((luma,)) == quality
        assert jpeg.standard_quality((luma, chroma)) is None
        other = (*chroma[:-1], chroma[-1] + 1)
        for tables in ((luma, other, other), (luma, chroma, other), (luma, luma, luma)):
            expected = quality if luma == chroma and tables == (luma,) * 3 else None
            assert jpeg.standard_quality(tables) == expected


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_tables_of_no_standard_quality_are_kept(mode: str, monkeypatch: Patch) -> None:
    tables = [[2 + i // 3 for i in range(64)], [3 + i // 2 for i in range(64)]]
    tables = tables[:1] if mode == "L" else tables
    source = pil_bytes(Pil.fromarray(photo()).convert(mode), "JPEG", qtables=tables)
    forbid(monkeypatch, jpeg, "_encoded")
    written = encode(load(source), "jpeg")
    with Pil.open(io.BytesIO(written)) as image:
        assert list(image.quantization.values()) == tables  # type: ignore[attr-defined]
    difference = np.abs(from_pillow(written).astype(int) - from_pillow(source))
    assert difference.mean() < 2


@pytest.mark.parametrize("quality", [None, 1, 77])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_template_is_coded_as_a_picture_is(
    quality: int | None, channels: int, subsampling: int, odd: bool, progressive: bool
) -> None:
    luma, chroma = jpeg._standard(88)
    tables = (luma[::-1] if odd else luma, chroma, chroma)
    metadata = Metadata(jpeg_coding=JpegCoding(tables, FACTORS[subsampling], progressive))
    for known in (metadata, Metadata()):
        picture = encode(
            Image(photo()[:16, :16, :channels].copy(), False, known), "jpeg", quality=quality
        )
        small = jpeg.template(channels, known, table.Ways(quality=quality))
        assert _coding(small) == _coding(picture)
        assert from_pillow(small).shape[:2] == (16, 16)


def _coding(data: bytes) -> list[jpeg_head.Segment]:
    """Frame and quantisation tables of a JPEG."""
    segments, _ = jpeg_head.segments_of(data)
    return [segment for segment in segments if segment[0] in (0xC0, 0xC2, 0xDB)]


def test_a_template_does_not_wait_for_opencv() -> None:
    code = """
import sys
from cudafilter.formats import jpeg, metadata, table
luma, chroma = jpeg._standard(88)
coding = metadata.JpegCoding((luma, chroma, chroma), (2, 2), False)
known = metadata.Metadata(jpeg_coding=coding)
assert jpeg.template(3, known, table.Ways())
print([name for name in ("cv2", "PIL", "simplejpeg") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['simplejpeg']"


@pytest.mark.parametrize("subsampling", [0, 1, 2, None])
@pytest.mark.parametrize("strip", [1, 5000, 40_000])
@pytest.mark.parametrize("size", [(600, 803), (161, 16), (17, 803), (48, 48)])
def test_strips_decode_to_the_pixels_of_one_piece(
    subsampling: int | None, strip: int, size: tuple[int, int], monkeypatch: Patch
) -> None:
    pixels = np.ascontiguousarray(photo()[: size[0], : size[1], : 1 if subsampling is None else 3])
    metadata = Metadata() if subsampling is None else coded(88, subsampling)
    whole = encode(Image(pixels, False, metadata), "jpeg")
    monkeypatch.setattr(jpeg, "STRIP_PIXELS", strip)
    stripped = encode(Image(pixels, False, metadata), "jpeg")
    assert (b"\xff\xdd\x00\x04" in stripped) == (strip < pixels.shape[0] * pixels.shape[1])
    for decoded in (from_pillow, from_opencv, lambda data: load(data).pixels):
        np.testing.assert_array_equal(decoded(stripped), decoded(whole))
    # Coding loses but this.
    assert np.abs(load(stripped).pixels.astype(int) - pixels).mean() < 3


def test_a_large_jpeg_is_encoded_in_strips() -> None:
    pixels = np.ascontiguousarray(np.tile(photo(), (4, 2, 1)))
    data = encode(Image(pixels), "jpeg")
    segments, _ = jpeg_head.segments_of(data)
    assert 0xDD in dict(segments)
    assert struct.unpack(">H", dict(segments)[0xDD])[0] <= 65535
    np.testing.assert_array_equal(load(data).pixels, from_pillow(data))


def test_libjpeg_itself_finds_nothing_wrong_with_strips(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(jpeg, "STRIP_PIXELS", 20_000)
    source, target = tmp_path / "a.jpg", tmp_path / "a.ppm"
    source.write_bytes(encode(Image(photo(), False, coded(90, 2)), "jpeg"))
    done = outside("djpeg", "-strict", "-outfile", target, source)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(load(target).pixels, load(source).pixels)


def test_strips_of_any_width_fit_a_restart_interval() -> None:
    for width in (1, 8, 1000, jpeg.MAX_SIDE):
        pixels = np.zeros((64, width, 1), np.uint8)
        assert load(encode(Image(pixels), "jpeg")).pixels.shape == pixels.shape


# Threads


def encode_in_child(pixels: Pixels, found: Any) -> None:
    found.put(len(encode(Image(pixels), "png")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 2)
    pixels = np.tile(photo(), (2, 2, 1))
    size = len(encode(Image(pixels), "png"))
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    child = context.Process(target=encode_in_child, args=(pixels, found))
    child.start()
    try:
        assert found.get(timeout=60) == size
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
def test_files_do_not_depend_on_the_core_count(format: str, monkeypatch: Patch) -> None:
    image = Image(np.ascontiguousarray(np.tile(photo(), (3, 2, 1))))
    files = set()
    for count in (1, 2):
        monkeypatch.setattr(cores, "cores", lambda count=count: count)
        files.add(encode(image, format))
    assert len(files) == 1
