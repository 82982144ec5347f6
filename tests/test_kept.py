"""Every format that is written, each kind of pixel that it holds, each piece of metadata: all comes
back as it was, or is named as lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import ImageCms

from cudafilter.formats import ifd, table
from cudafilter.formats.metadata import Metadata, Resolution
from cudafilter.images import Image, load, lost_metadata
from image_files import EXIF, ICC, XMP, encode, make_exif, random_pixels

CHANNELS = {"gray": 1, "gray+alpha": 2, "RGB": 3, "RGBA": 4}
GRAY_ICC: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_ICC = GRAY_ICC[:16] + b"GRAY" + GRAY_ICC[20:]
DPI = Resolution(Fraction(300), Fraction(300), "inch")
"""As EXIF has it too."""

PIECES: dict[str, Metadata] = {
    "icc": Metadata(icc=ICC),
    "gray icc": Metadata(icc=GRAY_ICC),
    "exif": Metadata(exif=EXIF, resolution=DPI),
    "xmp": Metadata(xmp=XMP),
    "resolution": Metadata(resolution=Resolution(Fraction(300), Fraction(240), "inch")),
    "comments": Metadata(comments=(b"a comment",)),
    "all": Metadata(ICC, EXIF, XMP, DPI, comments=(b"a comment",)),
}
"""Metadata, and what is asked of it."""


def kinds() -> Iterator[tuple[str, str, int]]:
    """Each written format with the samples and channels that it holds."""
    for format in table.written():
        known = table.FORMATS[format]
        if format == "gif":  # of 256 colours and no half transparency: test_animations.py
            continue
        for dtype in known.samples:
            for colour in known.colours:
                if colour in CHANNELS and known.holds(dtype, colour):
                    yield format, dtype, CHANNELS[colour]


def grayed(format: str, channels: int, back: Image) -> Image:
    """*back* with as many channels as were written, where the format stores gray as RGB."""
    if back.pixels.shape[2] == channels:
        return back
    assert format in ("webp", "qoi", "jpeg")
    pixels = back.pixels
    assert (pixels[..., :1] == pixels[..., :3]).all()
    return replace(back, pixels=np.concatenate([pixels[..., :1], pixels[..., 3:]], axis=2))


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("format", "dtype", "channels"), [*kinds()])
def test_all_comes_back_or_is_named(format: str, dtype: str, channels: int, piece: str) -> None:
    alpha, metadata = channels in (2, 4), PIECES[piece]
    image = Image(random_pixels(dtype, channels), alpha, metadata)
    if alpha:
        image.pixels[0, 0, -1] = 7  # some drop an alpha channel that is opaque throughout
    lost = ", ".join(lost_metadata(image, format))
    back = grayed(format, channels, load(encode(image, format)))
    assert back.notes == ()
    assert back.alpha == alpha
    if format != "jpeg":
        np.testing.assert_array_equal(back.pixels, image.pixels)
    kept = back.metadata
    assert ("ICC profile" in lost) == (kept.icc is None and metadata.icc is not None)
    assert kept.icc in (None, metadata.icc)
    assert ("XMP" in lost) == (kept.xmp is None and metadata.xmp is not None)
    assert kept.xmp in (None, metadata.xmp)
    assert ("EXIF" in lost) == (kept.exif is None and metadata.exif is not None)
    if kept.exif and format != "tiff":  # there the EXIF lies among the picture's own tags
        assert kept.exif == metadata.exif
    if metadata.exif and kept.exif:
        assert ifd.orientation(kept.exif) == ifd.orientation(metadata.exif)
    assert ("comment" in lost) == (not kept.comments and bool(metadata.comments))
    if metadata.resolution:
        assert ("DPI" in lost) == (kept.resolution is None)
    if kept.resolution:
        assert metadata.resolution is not None
        near = zip(kept.resolution.per("inch"), metadata.resolution[:2], strict=True)
        assert all(abs(got - wanted) < 0.05 for got, wanted in near)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", table.written())
def test_the_orientation_stays_and_pixels_are_not_turned(format: str, orientation: int) -> None:
    channels = 1 if format == "pgm" else 3
    pixels = np.repeat(np.repeat(random_pixels("uint8", channels, 2, 3), 8, 0), 8, 1)
    image = Image(pixels, False, Metadata(exif=make_exif(orientation)))
    lost = lost_metadata(image, format)
    back = load(encode(image, format))
    assert np.abs(back.pixels[..., :channels].astype(int) - pixels).max() < 30
    if any("EXIF" in name for name in lost):
        assert ("orientation" in lost[0]) == (orientation != 1)
    else:
        assert ifd.orientation(back.metadata.exif) == orientation
    again = load(encode(back, format))
    assert again.metadata.exif == back.metadata.exif


@pytest.mark.parametrize("format", table.written())
def test_settings_that_say_nothing_are_named_and_others_work(format: str) -> None:
    smooth: Any = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    image = Image(smooth[..., :1] if format == "pgm" else smooth)
    known = table.FORMATS[format].settings
    plain = encode(image, format)
    for name, value in (("quality", 30), ("compress_level", 9)):
        setting: Any = {name: value}
        told = table.unused_settings(format, **setting)
        assert bool(told) == (name not in known)
        if name not in known:
            assert encode(image, format, **{name: value}) == plain
    if "quality" in known:
        assert len(encode(image, format, quality=5)) < len(encode(image, format, quality=95))
