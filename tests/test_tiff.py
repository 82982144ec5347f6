"""TIFFs of other programs are read as they are: layouts, codecs, sample types, alpha, colours."""

from __future__ import annotations

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pil

from cudafilter.errors import ImageError
from cudafilter.images import Image, encode, load

SHAPE = (37, 45)


def random_samples(dtype: str, channels: int) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 200, (*SHAPE, channels)).astype(dtype)


def tiff(pixels: NDArray[Any], planar: str = "contig", **how: Any) -> bytes:
    """*pixels* (H, W, C) as tifffile writes them; 2 and 4 channels have alpha."""
    channels = pixels.shape[2]
    if channels in (2, 4):
        how = {"extrasamples": ["unassalpha"], **how}
    if channels == 1:
        pixels = pixels[..., 0]
    elif planar == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    if "tile" not in how:
        how = {"rowsperstrip": 10, **how}
    file = io.BytesIO()
    tifffile.imwrite(
        file, pixels, metadata=None, planarconfig=None if channels == 1 else planar,
        **{"photometric": "rgb" if channels > 2 else "minisblack", **how},
    )  # fmt: skip
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_every_layout_is_read_exactly(
    dtype: str, channels: int, planar: str, tile: tuple[int, int] | None
) -> None:
    pixels = random_samples(dtype, channels)
    how: dict[str, Any] = {"tile": tile} if tile else {}
    for order in "<>":
        for codec in ({}, {"compression": "lzw"}, {"compression": "deflate", "predictor": True}):
            image = load(tiff(pixels, planar, byteorder=order, **how, **codec))
            np.testing.assert_array_equal(image.pixels, pixels)
            assert image.alpha == (channels in (2, 4))
            assert image.pixels.dtype == ("float32" if dtype == "float16" else dtype)


@pytest.mark.parametrize("codec", ["lzw", "deflate", "zstd", "lzma", "packbits", "lerc"])
@pytest.mark.parametrize("predictor", [1, 2, 3])
def test_every_codec_and_predictor_is_read_exactly(codec: str, predictor: int) -> None:
    if predictor > 1 and codec in ("packbits", "lerc"):
        pytest.skip("it has no predictor")
    for dtype in ("float32",) if predictor == 3 else ("uint8", "uint16"):
        pixels = random_samples(dtype, 3)
        data = tiff(pixels, compression=codec, predictor=predictor)
        np.testing.assert_array_equal(load(data).pixels, pixels)


@pytest.mark.parametrize(
    ("codec", "number", "dtypes", "channels"),
    [
        ("jpeg2000", 34712, ("uint8", "uint16"), (1, 3)),
        ("jpeg2000", 33005, ("uint8",), (3,)),
        ("webp", 50001, ("uint8",), (3, 4)),
        ("png", 34933, ("uint8", "uint16"), (1, 3, 4)),
        ("jpegxl", 50002, ("uint8", "uint16", "float32"), (1, 3)),
    ],
)
def test_pictures_of_other_formats_are_read_exactly(
    codec: str, number: int, dtypes: tuple[str, ...], channels: tuple[int, ...]
) -> None:
    how: dict[str, Any] = {"compressionargs": {"lossless": True} if codec != "png" else {}}
    if codec == "jpeg2000":
        how = {}
    layouts: list[dict[str, Any]] = [{"tile": (32, 48)}, {"rowsperstrip": 10}]
    for dtype, count, layout in itertools.product(dtypes, channels, layouts):
        pixels = random_samples(dtype, count)
        data = bytearray(tiff(pixels, compression=codec, **how, **layout))
        with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
            tags: Any = file.pages[0].tags  # type: ignore[union-attr]
            lengths = tags[325 if "tile" in layout else 279]
            struct.pack_into("<H", data, tags[259].valueoffset, number)
        np.testing.assert_array_equal(load(bytes(data)).pixels, pixels)
        first = lengths.value[0]
        struct.pack_into(
            "<H" if lengths.dtype == 3 else "<I", data, lengths.valueoffset, first * 2 // 3
        )
        with pytest.raises(ImageError, match=r"damaged in (strip|tile) 1: its picture"):
            load(bytes(data))


@pytest.mark.parametrize("sampling", [(1, 1), (2, 1), (2, 2)])
def test_jpeg_inside_is_rgb_to_pillows_bits(sampling: tuple[int, int]) -> None:
    y, x = np.mgrid[:70, :93]
    smooth = np.stack([2 * x, 3 * y, x + y], axis=-1).astype(np.uint8)
    data = tiff(
        smooth,
        compression="jpeg",
        subsampling=sampling,
        compressionargs={"level": 90},
        tile=(32, 48),
    )
    with Pil.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(load(data).pixels, np.asarray(image))


def test_a_jpeg_inside_that_is_cut_is_refused() -> None:
    data = bytearray(tiff(random_samples("uint8", 3), compression="jpeg", rowsperstrip=40))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        start, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    middle = start + length * 2 // 3
    data[middle : start + length - 2] = bytes(start + length - 2 - middle)
    with pytest.raises(ImageError, match="it is damaged in strip 1"):
        load(bytes(data))


@pytest.mark.parametrize("codec", ["group3", "group4", "tiff_ccitt"])
def test_fax_is_read_and_a_cut_one_refused(codec: str) -> None:
    bits = np.random.default_rng(2).random((50, 77)) < 0.3
    file = io.BytesIO()
    Pil.fromarray(bits).save(file, "TIFF", compression=codec)
    data = bytearray(file.getvalue())
    np.testing.assert_array_equal(load(bytes(data)).pixels[..., 0], bits * np.uint8(255))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tags:
        lengths = tags.pages[0].tags[279]  # type: ignore[union-attr]
        at, length = lengths.valueoffset, lengths.value[0]
    data[at : at + 2] = (length // 2).to_bytes(2, "little")
    with pytest.raises(ImageError, match="it is damaged in strip 1: it is cut short"):
        load(bytes(data))


def test_integers_are_taken_where_nothing_is_lost() -> None:
    for dtype, becomes in (
        ("int8", "uint8"), ("int16", "uint16"), ("int32", "uint16"), ("uint32", "uint16"),
        ("uint64", "uint16"), ("float64", "float32"),
    ):  # fmt: skip
        pixels = random_samples("uint8", 3) // 2
        image = load(tiff(pixels.astype(dtype)))
        assert image.pixels.dtype == becomes
        np.testing.assert_array_equal(image.pixels, pixels)
    assert load(tiff(random_samples("int16", 1))).notes


@pytest.mark.parametrize(
    ("dtype", "value", "reason"),
    [
        ("int8", -1, "8-bit integers below 0"),
        ("int16", -1, "16-bit integers below 0"),
        ("int32", 65536, "32-bit integers past 65535"),
        ("uint32", 1 << 31, "32-bit integers past 65535"),
        ("float64", 0.1, "64-bit floats that would lose precision"),
    ],
)
def test_integers_that_would_lose_something_are_refused(
    dtype: str, value: float, reason: str
) -> None:
    with pytest.raises(ImageError, match=reason):
        load(tiff(np.full((4, 4, 1), value, dtype)))


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_premultiplied_colour_is_divided_and_rounded(dtype: str, channels: int) -> None:
    colour, alpha = np.mgrid[0:256, 1:256]
    colour = np.minimum(colour, alpha)
    stored = np.stack([*[colour] * (channels - 1), alpha], axis=-1).astype(dtype)
    full = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    got = load(tiff(stored, extrasamples=["assocalpha"])).pixels[..., 0].astype(float)
    exact = np.minimum(colour * full / alpha, np.inf if dtype == "float32" else full)
    assert (np.abs(got - exact) <= (1e-6 * exact if dtype == "float32" else 0.5)).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_few_bits_are_spread_over_eight(bits: int, photometric: str) -> None:
    stored = np.random.default_rng(3).integers(0, 1 << bits, (*SHAPE, 1), dtype=np.uint8)
    full = (1 << bits) - 1
    data = tiff(stored, bitspersample=bits, photometric=photometric)
    seen = full - stored if photometric == "miniswhite" else stored
    np.testing.assert_array_equal(load(data).pixels, seen * (255 // full))


def test_a_palette_of_8_bit_values_is_not_black() -> None:
    indices = random_samples("uint8", 1)
    colours = np.random.default_rng(4).integers(0, 256, (3, 256)).astype(np.uint16)
    for palette in (colours, colours * 257):
        image = load(tiff(indices, photometric="palette", colormap=palette))
        np.testing.assert_array_equal(image.pixels, colours.T[indices[..., 0]])
        assert image.notes == ("palette expanded to RGB",)


def test_two_bands_that_are_no_alpha_are_refused() -> None:
    with pytest.raises(ImageError, match="extra channels that are no alpha"):
        load(tiff(random_samples("float32", 2), extrasamples=["unspecified"]))


def test_a_volume_is_not_called_damaged() -> None:
    """Its tiles have a depth, so it has fewer than its width and height tell."""
    slices = np.zeros((8, 32, 48), np.uint8)
    volume = tiff(slices, volumetric=True, tile=(4, 16, 16), photometric="minisblack")
    with pytest.raises(ImageError, match="it holds a volume of 8 slices"):
        load(volume)


def test_other_compressions_are_named() -> None:
    data = bytearray(encode(Image(random_samples("uint8", 3)), "tiff"))
    at = data.index(b"\x03\x01\x03\0\x01\0\0\0") + 8
    data[at : at + 2] = (34661).to_bytes(2, "little")
    with pytest.raises(ImageError, match=r"its compression \(JBIG\) is not supported"):
        load(bytes(data))


def with_copies(kind: int) -> bytes:
    """A picture with two smaller ones in directories below its own, which are of *kind*."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        pixels = random_samples("uint8", 3)
        writer.write(pixels, photometric="rgb", subifds=2, tile=(16, 16), metadata=None)
        for step in (2, 4):
            writer.write(pixels[::step, ::step], photometric="rgb", subfiletype=kind, metadata=None)
    return file.getvalue()


def test_a_pyramid_is_left_out_by_name() -> None:
    image = load(with_copies(1))
    np.testing.assert_array_equal(image.pixels, random_samples("uint8", 3))
    assert image.notes == ("smaller copies of its picture are not kept: 2",)
    with tifffile.TiffFile(io.BytesIO(bytes(encode(image, "tiff")))) as file:
        assert 330 not in file.pages[0].tags  # type: ignore[union-attr]


def test_other_pictures_below_the_main_one_are_refused() -> None:
    with pytest.raises(ImageError, match="it holds further pictures"):
        load(with_copies(0))
