"""EXIF that is laid out anew still leads to what it led to, or the user is told."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from cudafilter.formats import ifd
from cudafilter.formats.metadata import Metadata
from cudafilter.images import Image, encode, load, lost_metadata

GRAY = np.zeros((8, 8, 1), np.uint8)
TEXT = b"Firmware Version 1.0.3\0\0"


def note(at: int) -> bytes:
    """A maker note, to stand at *at*, whose one text lies by an offset from the TIFF header."""
    return struct.pack("<HHHIII", 1, 7, 2, len(TEXT), at + 18, 0) + TEXT


def exif(at: int, *, pad: int = 0, more: dict[int, ifd.Entry] | None = None) -> bytes:
    """EXIF with a maker note at *at*."""
    value = note(at)
    inner = {37500: ifd.Entry(7, len(value), value, at)}
    outer = {
        271: ifd.Entry(2, 4 + pad, b"ABC" + bytes(1 + pad)), 34665: ifd.Entry(4, 1, inner)
    }  # fmt: skip
    space = ifd.space_around(inner[37500])
    start = ifd.write(outer | (more or {}), "<", space)
    return b"".join([b"II*\0", struct.pack("<I", start), *space.pieces()])


def text_of(structure: bytes) -> bytes:
    """What the maker note's offset leads to, in a TIFF or EXIF structure."""
    found = ifd.note_of(ifd.parse(structure)[1])
    assert found is not None
    _, _, _, length, where, _ = struct.unpack_from("<HHHIII", structure, found.at)
    return structure[where : where + length]


@pytest.mark.parametrize("at", [60, 230, 5000, 60_000])
def test_a_maker_note_keeps_its_place(at: int) -> None:
    image = Image(np.zeros((300, 300, 3), np.uint8), metadata=Metadata(exif=exif(at)))
    for source in ("jpeg", "png", "webp"):
        tiff = encode(load(encode(image, source)), "tiff")
        assert text_of(bytes(tiff)) == TEXT
        again = load(encode(load(tiff), "tiff"))
        assert again.metadata.exif is not None
        assert text_of(again.metadata.exif) == TEXT
        assert again.notes == ()
        assert text_of(load(encode(again, "jpeg")).metadata.exif or b"") == TEXT


def test_the_pixels_around_a_maker_note_are_whole() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    for at in (60, 3000, 60_000):
        data = encode(Image(noise, metadata=Metadata(exif=exif(at))), "tiff")
        np.testing.assert_array_equal(load(data).pixels, noise)


def test_a_maker_note_that_must_move_is_named() -> None:
    far = encode(Image(GRAY, metadata=Metadata(exif=exif(200_000))), "tiff")
    assert any("maker note may not be readable" in told for told in load(far).notes)


def test_a_maker_note_that_counts_from_itself_may_move() -> None:
    value = note(0)
    inner = {37500: ifd.Entry(7, len(value), value, 200_000)}
    space = ifd.space_around(inner[37500])
    start = ifd.write({34665: ifd.Entry(4, 1, inner)}, "<", space)
    own = b"".join([b"II*\0", struct.pack("<I", start), *space.pieces()])
    assert load(encode(Image(GRAY, metadata=Metadata(exif=own)), "tiff")).notes == ()


def test_private_directories_are_kept_or_named() -> None:
    inner = {1: ifd.shorts("<", 7), 2: ifd.Entry(2, len(TEXT), TEXT)}
    for kind in (ifd.IFD, ifd.LONG):
        tags = ifd.blob({271: ifd.Entry(2, 4, b"ABC\0"), 50740: ifd.Entry(ifd.IFD, 1, inner)}, "<")
        at = tags.index(struct.pack("<HHI", 50740, ifd.IFD, 1))
        tags = tags[: at + 2] + struct.pack("<H", kind) + tags[at + 4 :]
        image = Image(GRAY, metadata=Metadata(exif=tags))
        lost = lost_metadata(image, "tiff")
        _, found, _ = ifd.parse(bytes(encode(image, "tiff")))
        if kind == ifd.IFD:
            assert lost == ()
            assert found[50740].type == ifd.IFD
            assert found[50740].value == inner
        else:
            assert lost == ("what EXIF's tags 50740 point at",)


def test_photoshop_layers_are_named() -> None:
    data = bytes(encode(Image(GRAY), "tiff"))
    order, tags, _ = ifd.parse(data)
    start, length = ifd.numbers(tags, 273, order)[0], ifd.numbers(tags, 279, order)[0]
    assert start == 8
    space = ifd.space_around(None)
    space.add(data[8 : 8 + length])
    layers = b"Adobe Photoshop Document Data Block\0"
    at = ifd.write(tags | {37724: ifd.Entry(7, len(layers), layers)}, order, space)
    layered = b"".join([b"II*\0", struct.pack("<I", at), *space.pieces()])
    assert load(layered).notes == ("its Photoshop layers are not kept",)


def test_directories_that_point_at_each_other_cost_nothing() -> None:
    width = 70
    size = 2 + 12 * width + 4
    tree = b"II*\0" + struct.pack("<I", 8)
    for level in range(1, 4):
        tree += struct.pack("<H", width)
        tree += struct.pack("<HHII", 34665, 4, 1, 8 + size * level) * width + bytes(4)
    tree += struct.pack("<HHHII", 1, 40_000, 3, 1, 0) + bytes(4)
    start = time.process_time()
    image = Image(GRAY, metadata=Metadata(exif=tree))
    assert load(encode(image, "jpeg")).metadata.exif == tree
    assert lost_metadata(image, "tiff") == ("EXIF (damaged)",)
    assert time.process_time() - start < 1
