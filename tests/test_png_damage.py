"""PNG: what is damaged, cut or contradictory is refused; what is kept holds, the rest is named."""

from __future__ import annotations

import itertools
import struct
import zlib

import numpy as np
import pytest

from cudafilter.errors import ImageError
from cudafilter.formats import deflate
from cudafilter.formats.limits import MAX_ENTRIES
from cudafilter.formats.metadata import Metadata
from cudafilter.formats.png_chunks import chunks_of
from cudafilter.images import Image, encode, load, lost_metadata, to_gray
from cudafilter.stores.buffers import Buffer
from image_files import chunk

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
SAMPLES = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
KINDS = [
    *[(GRAY, bits) for bits in (1, 2, 4, 8, 16)],
    *[(PALETTE, bits) for bits in (1, 2, 4, 8)],
    *[(colour, bits) for colour in (RGB, GRAY_ALPHA, RGBA) for bits in (8, 16)],
]
SIDE = 20


def ihdr(colour: int, bits: int, side: int = SIDE, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, interlaced))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def before(colour: int, bits: int) -> bytes:
    """The palette, where there is one."""
    size = 3 << bits
    return chunk(b"PLTE", bytes(at % 256 for at in range(size))) if colour == PALETTE else b""


def rows(colour: int, bits: int, side: int = SIDE) -> bytes:
    """Filtered rows of noise, each with another filter."""
    length = -(-side * SAMPLES[colour] * bits // 8)
    noise = np.random.default_rng(1).integers(0, 256, (side, 1 + length), np.uint8)
    noise[:, 0] = np.arange(side) % 5
    return noise.tobytes()


def interlaced_rows(colour: int, bits: int) -> bytes:
    """Unfiltered rows of the seven passes."""
    out = b""
    for x, y, across, down in [
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]:  # fmt: skip
        wide, high = len(range(x, SIDE, across)), len(range(y, SIDE, down))
        out += (b"\0" + bytes(-(-wide * SAMPLES[colour] * bits // 8))) * high
    return out


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load(data, "pic.png")
    return str(caught.value)


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_data_are_just_as_long_as_the_size_needs(colour: int, bits: int, interlaced: int) -> None:
    whole = interlaced_rows(colour, bits) if interlaced else rows(colour, bits)
    start = ihdr(colour, bits, SIDE, interlaced) + before(colour, bits)

    def file(packed: bytes) -> bytes:
        return png(start, chunk(b"IDAT", packed), chunk(b"IEND"))

    assert load(file(zlib.compress(whole))).pixels.shape[:2] == (SIDE, SIDE)
    packed = zlib.compress(whole)
    unended = zlib.compressobj()
    short = {
        "half of the rows": zlib.compress(whole[: len(whole) // 2]),
        "a byte less": zlib.compress(whole[:-1]),
        "no checksum": packed[:-4],
        "no end": unended.compress(whole) + unended.flush(zlib.Z_SYNC_FLUSH),
        "nothing": b"",
    }
    for what, data in short.items():
        assert "it is cut short" in reason(file(data)), what
    wrong = {
        "a byte more": zlib.compress(whole + b"\0"),
        "a wrong checksum": packed[:-1] + bytes([packed[-1] ^ 1]),
        "no stream": b"no stream at all",
    }
    for what, data in wrong.items():
        assert "it is damaged" in reason(file(data)), what


@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_a_filter_that_png_does_not_know_is_refused(colour: int, bits: int) -> None:
    broken = b"\7" + rows(colour, bits)[1:]
    data = png(
        ihdr(colour, bits), before(colour, bits), chunk(b"IDAT", zlib.compress(broken)),
        chunk(b"IEND"),
    )  # fmt: skip
    assert "it is damaged" in reason(data)


def test_pixels_are_the_same_however_they_are_cut_into_chunks() -> None:
    packed = zlib.compress(rows(RGB, 8))
    one = png(ihdr(RGB, 8), chunk(b"IDAT", packed), chunk(b"IEND"))
    bits = [chunk(b"IDAT", packed[at : at + 3]) + chunk(b"IDAT") for at in range(0, len(packed), 3)]
    many = png(ihdr(RGB, 8), *bits, chunk(b"IEND"))
    np.testing.assert_array_equal(load(one).pixels, load(many).pixels)


def test_small_chunks_do_not_give_the_interpreters_lock_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ISA-L does so for more than 5 KiB, and a file has thousands of chunks of 8 KiB."""
    sizes: list[int] = []
    find = deflate.crc32

    def told(data: Buffer, value: int = 0) -> int:
        sizes.append(len(data))
        return find(data, value)

    packed = zlib.compress(rows(RGB, 16, 100), 0)
    cuts = [chunk(b"IDAT", packed[at : at + 8192]) for at in range(0, len(packed), 8192)]
    monkeypatch.setattr(deflate, "crc32", told)
    chunks_of(png(ihdr(RGB, 16, 100), *cuts, chunk(b"IEND")))
    assert max(sizes) == 5 << 10


def test_bytes_after_the_data_and_after_the_end_are_named() -> None:
    packed = zlib.compress(rows(GRAY, 8))
    data = png(ihdr(GRAY, 8), chunk(b"IDAT", packed + b"junk"), chunk(b"IEND")) + b"trailer"
    assert load(data).notes == (
        "4 bytes after the end of its pixels are not kept",
        "7 bytes after its end are not kept",
    )


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_gives_each_pixel_its_colour(bits: int, interlaced: int) -> None:
    rng = np.random.default_rng(bits)
    count = 1 << bits
    side = 8  # a pass of one pixel has one pixel in a byte
    index = rng.integers(0, count, (side, side), np.uint8)
    colours = rng.integers(0, 256, (count, 3), np.uint8)
    clear = rng.integers(0, 256, count - 1, np.uint8)

    def packed(row: np.ndarray) -> bytes:
        places = np.zeros(-(-len(row) * bits // 8) * 8 // bits, np.uint8)
        places[: len(row)] = row
        parts = (places[:, None] >> np.arange(bits - 1, -1, -1)) & 1
        return b"\0" + np.packbits(parts.reshape(-1)).tobytes()

    grids = [index]
    if interlaced:
        grids = [
            index[0::8, 0::8], index[0::8, 4::8], index[4::8, 0::4], index[0::4, 2::4],
            index[2::4, 0::2], index[0::2, 1::2], index[1::2, 0::1],
        ]  # fmt: skip
    body = b"".join(packed(row) for grid in grids for row in grid)
    start = ihdr(PALETTE, bits, side, interlaced) + chunk(b"PLTE", colours.tobytes())
    end = chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND")
    opaque = load(png(start, end))
    np.testing.assert_array_equal(opaque.pixels, colours[index])
    assert opaque.notes == ("palette expanded to RGB",)
    seen = load(png(start, chunk(b"tRNS", clear.tobytes()), end))
    np.testing.assert_array_equal(seen.pixels[..., :3], colours[index])
    np.testing.assert_array_equal(seen.pixels[..., 3], np.append(clear, np.uint8(255))[index])
    assert seen.alpha


def test_a_palette_that_does_not_fit_is_refused() -> None:
    body = chunk(b"IDAT", zlib.compress(b"\0\0\1\2\3" * 4)) + chunk(b"IEND")
    start = ihdr(PALETTE, 8, 4)
    assert load(png(start, chunk(b"PLTE", bytes(12)), body)).pixels.shape == (4, 4, 3)
    assert "past the 3 colours" in reason(png(start, chunk(b"PLTE", bytes(9)), body))
    for palette in (b"", bytes(10), bytes(771)):
        assert "palette has a wrong length" in reason(png(start, chunk(b"PLTE", palette), body))
    clear = chunk(b"PLTE", bytes(12)) + chunk(b"tRNS", bytes(5))
    assert "palette has a wrong length" in reason(png(start, clear, body))
    assert "not in order" in reason(png(start, body))


@pytest.mark.parametrize(("colour", "bits"), [kind for kind in KINDS if kind[0] in (GRAY, RGB)])
def test_only_the_low_bits_of_a_transparent_colour_count(colour: int, bits: int) -> None:
    sample = 1
    row = bytes((0, sample)) if bits == 16 else bytes((sample << 8 - bits,))
    body = b"\0" + row * SAMPLES[colour]
    ends = chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND")
    above = (0xFFFF << bits) & 0xFFFF
    for key, alpha in ((sample, 0), (sample | above, 0), (above, None)):
        clear = chunk(b"tRNS", struct.pack(">H", key) * SAMPLES[colour])
        image = load(png(ihdr(colour, bits, 1), clear, ends))
        full = 65535 if bits == 16 else 255
        assert image.pixels[0, 0, -1] == (full if alpha is None else alpha)
    for size in (0, 1, 4 if colour == GRAY else 2, 7):
        clear = chunk(b"tRNS", bytes(size))
        assert "transparent colour has a wrong length" in reason(
            png(ihdr(colour, bits, 1), clear, ends)
        )


def test_chunks_out_of_order_and_unknown_critical_ones_are_refused() -> None:
    head, data, end = ihdr(GRAY, 8), chunk(b"IDAT", zlib.compress(rows(GRAY, 8))), chunk(b"IEND")
    text = chunk(b"tEXt", b"a\0b")
    half = [chunk(b"IDAT", part) for part in (zlib.compress(rows(GRAY, 8))[:9], b"")]
    for wrong in (
        [head, head, data], [head, data, chunk(b"tRNS", b"\0\1")],
        [head, half[0], text, half[1]], [head, data, head],
        [head, chunk(b"tRNS", b"\0\1"), chunk(b"tRNS", b"\0\1"), data],
    ):  # fmt: skip
        assert "not in order" in reason(png(*wrong, end))
    assert "it has no pixels" in reason(png(head, end))
    assert "needs chunk CgBI" in reason(png(head, chunk(b"CgBI", bytes(4)), data, end))
    assert "does not begin with its size" in reason(png(text, head, data, end))
    assert load(png(head, text, data, end)).notes == ()


@pytest.mark.parametrize(
    "fields", [(0, 1, 8, 0, 0, 0, 0), (1, 0, 8, 0, 0, 0, 0), (1, 1, 3, 0, 0, 0, 0),
               (1, 1, 4, 2, 0, 0, 0), (1, 1, 16, 3, 0, 0, 0), (1, 1, 8, 5, 0, 0, 0),
               (1, 1, 8, 0, 1, 0, 0), (1, 1, 8, 0, 0, 1, 0), (1, 1, 8, 0, 0, 0, 2)],
)  # fmt: skip
def test_a_header_of_no_sense_is_refused(fields: tuple[int, ...]) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))
    data = png(
        head, chunk(b"PLTE", bytes(3)), chunk(b"IDAT", zlib.compress(b"\0\0")), chunk(b"IEND")
    )
    assert "values that PNG does not know" in reason(data)


def with_chunks(*extra: bytes, colour: int = RGB) -> bytes:
    packed = zlib.compress(rows(colour, 8))
    return png(ihdr(colour, 8), before(colour, 8), *extra, chunk(b"IDAT", packed), chunk(b"IEND"))


HOLDING = {
    b"bKGD": bytes(6),
    b"sCAL": b"\x010.1\x000.1",
    b"pCAL": b"x\0" + struct.pack(">iiBB", 0, 255, 0, 2) + b"m\x000\x001",
    b"sTER": b"\1",
    b"oFFs": bytes(9),
    b"vpAg": bytes(9),
}
STALE = {
    b"tIME": bytes(7), b"sBIT": b"\5\6\5", b"hIST": bytes(2), b"sPLT": b"a\0\10", b"abCD": b"?",
    b"acTL": struct.pack(">II", 1, 0), b"fcTL": bytes(26), b"PLTE": bytes(3),
}  # fmt: skip


def test_chunks_that_hold_are_kept_and_all_others_named() -> None:
    extra = [chunk(kind, body) for kind, body in (STALE | HOLDING).items()]
    image = load(with_chunks(*extra))
    assert dict(image.metadata.png_chunks) == HOLDING
    written = bytes(encode(image, "png"))
    for kind, body in HOLDING.items():
        assert chunk(kind, body) in written
    assert lost_metadata(image, "png") == ()
    (note,) = image.notes
    assert note.startswith("not kept, ")
    assert sorted(note.rsplit("PNG ")[-1].split(", ")) == sorted(kind.decode() for kind in STALE)


def test_a_background_colour_is_kept_where_its_samples_fit() -> None:
    gray = to_gray(load(with_chunks(chunk(b"bKGD", bytes(6)))))
    assert lost_metadata(gray, "png") == ("bKGD (it is of other channels)",)
    assert b"bKGD" not in bytes(encode(gray, "png"))
    palette = load(with_chunks(chunk(b"bKGD", b"\0"), colour=PALETTE))
    assert any("bKGD" in note for note in palette.notes)


def test_a_profile_keeps_its_name() -> None:
    icc = bytes(16) + b"RGB " + bytes(108)
    source = with_chunks(chunk(b"iCCP", b"Wide\0\0" + zlib.compress(icc)))
    image = load(source)
    assert image.metadata.icc == icc
    assert load(encode(image, "png")).metadata.icc_name == b"Wide"
    named = Image(image.pixels, False, Metadata(icc=icc))
    assert b"ICC Profile\0\0" in bytes(encode(named, "png"))


def test_metadata_that_are_there_twice_are_named() -> None:
    icc = chunk(b"iCCP", b"one\0\0" + zlib.compress(bytes(128)))
    exif = chunk(b"eXIf", b"II*\0\10\0\0\0\0\0\0\0\0\0")
    dots = chunk(b"pHYs", struct.pack(">IIB", 1000, 1000, 1))
    image = load(with_chunks(icc, icc, exif, exif, dots, dots))
    assert image.notes[-1].endswith("PNG eXIf, iCCP, pHYs")
    assert image.metadata.icc == bytes(128)


def test_bombs_in_metadata_end_soon() -> None:
    bomb = zlib.compress(bytes(1 << 27), 9)
    image = load(with_chunks(*[chunk(b"iCCP", b"a\0\0" + bomb)] * 50))
    assert len(image.notes) == 2  # the first one is damaged, the others are one too many
    assert image.metadata.icc is None
    assert any("ICC profile is damaged" in note for note in image.notes)
    packet = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb)
    kept = load(with_chunks(packet, chunk(b"zTXt", b"a\0\0" + bomb)))
    assert kept.metadata.xmp is None
    assert len(kept.metadata.png_chunks) == 2  # as they are, never inflated
    many = itertools.repeat(chunk(b"tEXt", b"a\0"), MAX_ENTRIES + 1)
    assert "chunks beside its pixels, more than" in reason(with_chunks(*many))
