"""Linear light: curves of profiles, samples to light and back, and what has no way back."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import ImageCms

from cudafilter.errors import ImageError
from cudafilter.formats.icc import curves_of
from cudafilter.formats.metadata import Metadata
from cudafilter.operations.light import IDENTITY, SRGB, Curve, Light, Power, Table
from cudafilter.operations.pixels import Pixels, full_scale
from cudafilter.proof.ends import wrong_samples
from image_files import ICC

CURVES: dict[str, Curve] = {
    "sRGB": SRGB, "identity": IDENTITY, "1.8": Power(1.8), "2.2": Power(2.2), "2.8": Power(2.8),
    "0.5": Power(0.5), "table": Table(tuple(n * n // 20 + n for n in range(1024))),
}  # fmt: skip


@pytest.fixture(params=CURVES)
def curve(request: pytest.FixtureRequest) -> Curve:
    return CURVES[request.param]


def all_samples(dtype: str) -> Pixels:
    return np.arange(full_scale(dtype) + 1).astype(dtype)[None, :, None]


class TestLight:
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_every_sample_comes_back(self, curve: Curve, dtype: str) -> None:
        light = Light([curve], dtype, False)
        samples = all_samples(dtype)
        np.testing.assert_array_equal(light.encoded(light.decoded(samples)), samples)

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_light_is_the_nearest_float_to_the_curve(self, curve: Curve, dtype: str) -> None:
        light = Light([curve], dtype, False)
        samples = all_samples(dtype)
        exact = curve(samples.astype(np.float64) / full_scale(dtype))
        np.testing.assert_array_equal(light.decoded(samples), exact.astype(np.float32))

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_the_way_back_is_to_the_nearest_sample(self, curve: Curve, dtype: str) -> None:
        light, full = Light([curve], dtype, False), full_scale(dtype)
        rng = np.random.default_rng(0)
        values = np.concatenate(
            [rng.random(50_000), rng.random(50_000) ** 8, [0, 1, -0.0, -1, 2, np.inf, np.nan]]
        ).astype(np.float32)[None, :, None]
        got = light.encoded(values)
        samples = got.astype(np.float64)
        below = np.where(got > 0, curve(np.maximum(samples - 0.5, 0) / full), -np.inf)
        above = np.where(got < full, curve(np.minimum(samples + 0.5, full) / full), np.inf)
        inside = (values >= 0) & (values <= 1)
        assert (below <= values)[inside].all()
        assert (values <= above)[inside].all()
        assert got[0, -4:, 0].tolist() == [0, full, full, 0]
        assert wrong_samples(got, values, light) is None

    def test_a_tie_goes_to_even(self) -> None:
        # Of an identity only floats with few bits lie in the middle: of 256 levels none do.
        light = Light([Power(1.0, 255 / 256)], "uint8", False)
        middles = ((np.arange(255) + 0.5) / 256).astype(np.float32)[None, :, None]
        assert [Fraction(float(x)) * 256 for x in middles[0, :3, 0]] == [
            Fraction(1, 2), Fraction(3, 2), Fraction(5, 2),
        ]  # fmt: skip
        got = light.encoded(middles)[0, :, 0]
        np.testing.assert_array_equal(got, np.rint(np.arange(255) + 0.5))
        assert wrong_samples(light.encoded(middles), middles, light) is None
        odd = light.encoded(middles) ^ 1
        assert wrong_samples(odd, middles, light) is not None

    def test_alpha_is_no_light(self) -> None:
        light = Light([SRGB], "uint8", True)
        pixels = np.array([[[128, 128]]], np.uint8)
        assert light.decoded(pixels)[0, 0].tolist() == [
            pytest.approx(0.21586, abs=1e-5), pytest.approx(128 / 255),
        ]  # fmt: skip

    def test_the_proof_finds_a_wrong_sample(self) -> None:
        light = Light([SRGB] * 3, "uint8", False)
        values = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32)
        wrong = light.encoded(values)
        wrong[7, 9, 2] += 1
        assert wrong_samples(wrong, values, light) == (9, 7, 2)

    @pytest.mark.parametrize(
        ("curve", "first"),
        [
            (Table((0, 0, 0, 5, 65535)), 0),
            (Table((0, 9000, 4000, 65535)), 85),
            (Table((0, 65535, 65535)), 128),
            (Power(0.0), 0),
        ],
        ids=range(4),
    )
    def test_a_curve_that_does_not_rise_has_no_way_back(self, curve: Curve, first: int) -> None:
        with pytest.raises(ImageError, match=f"does not rise from sample {first} to {first + 1}:"):
            Light([curve], "uint8", False)

    @pytest.mark.parametrize("white", [0.99, 1.00005, 1.5])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_white_may_have_other_light_than_1(self, white: float, dtype: str) -> None:
        light = Light([Power(2.0, white)], dtype, False)
        samples = all_samples(dtype)
        np.testing.assert_array_equal(light.encoded(light.decoded(samples)), samples)
        brighter = np.full((1, 1, 1), 9, np.float32)
        assert light.encoded(brighter) == full_scale(dtype)
        assert wrong_samples(light.encoded(brighter), brighter, light) is None

    def test_a_curve_that_is_steep_is_searched_by_halves(self) -> None:
        steep = Table((65000, 65535))
        light = Light([steep], "uint16", False)
        np.testing.assert_array_equal(
            light.encoded(light.decoded(all_samples("uint16"))), all_samples("uint16")
        )


D50 = struct.pack(">3i", 63190, 65536, 54061)


def profile(
    *tags: tuple[bytes, bytes], space: bytes = b"RGB ", connection: bytes = b"XYZ "
) -> bytes:
    head = bytearray(128)
    head[8], head[12:16], head[36:40] = 4, b"mntr", b"acsp"
    head[16:20], head[20:24] = space, connection
    head[68:80] = D50
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head[:4] = struct.pack(">I", at + len(body))
    return bytes(head) + table + body


def curv(*values: int) -> bytes:
    return b"curv" + bytes(4) + struct.pack(f">I{len(values)}H", len(values), *values)


def para(kind: int, *numbers: float) -> bytes:
    fixed = [round(number * 65536) for number in numbers]
    return b"para" + bytes(4) + struct.pack(f">HH{len(fixed)}i", kind, 0, *fixed)


def of_three(tag: bytes) -> bytes:
    return profile(*((name, tag) for name in (b"rTRC", b"gTRC", b"bTRC")))


def curve_of(tag: bytes) -> Curve:
    curves, told = curves_of(Metadata(of_three(tag)), 3)
    assert told
    assert curves == (curves[0],) * 3
    return curves[0]


X = np.linspace(0, 1, 4001)


class TestProfiles:
    @pytest.mark.parametrize(
        "tag",
        [
            curv(), curv(0x1CD), curv(0, 20000, 65535),
            curv(*(round(65535 * (n / 255) ** 1.8) for n in range(256))),
            para(0, 2.2), para(1, 2.2, 0.9, 0.1), para(2, 2, 0.8, 0.1, 0.19),
            para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
            para(4, 2, 0.8, 0.1, 1.038, 0.2, 0.19, 0.05),
        ],
        ids=range(9),
    )  # fmt: skip
    def test_curves_are_those_of_little_cms(self, tag: bytes) -> None:
        """As a gray image that LittleCMS brings to linear light of 16 bits, in steps of 8 bits."""
        ours = curve_of(tag)(np.arange(256) / 255)
        white = b"XYZ " + bytes(4) + D50
        gray = profile((b"kTRC", tag), (b"wtpt", white), space=b"GRAY")
        linear = profile((b"kTRC", curv()), (b"wtpt", white), space=b"GRAY")
        theirs = by_little_cms(gray, linear)
        np.testing.assert_allclose(np.clip(ours, 0, 1) * 255, theirs, atol=1.5)

    def test_littlecms_own_srgb(self) -> None:
        curves, told = curves_of(Metadata(ICC), 3)
        assert told
        for curve in curves:
            np.testing.assert_allclose(curve(X), SRGB(X), atol=2e-5)

    def test_gray_has_a_curve_of_its_own(self) -> None:
        gray = profile((b"kTRC", para(0, 1.8)), space=b"GRAY")
        (curve,), _ = curves_of(Metadata(gray), 1)
        np.testing.assert_allclose(curve(X), X**1.8, atol=1e-4)

    def test_each_channel_may_have_another(self) -> None:
        data = profile(*zip((b"rTRC", b"gTRC", b"bTRC"), map(curv, (256, 512, 768)), strict=True))
        curves, _ = curves_of(Metadata(data), 3)
        assert curves == (Power(1), Power(2), Power(3))

    @pytest.mark.parametrize(
        ("metadata", "colours", "reason"),
        [
            (Metadata(cmyk=True), 4, "CMYK tells ink"),
            (Metadata(profile(space=b"CMYK")), 3, "its colour profile is for CMYK"),
            (Metadata(of_three(curv())), 1, "its colour profile is for RGB"),
            (Metadata(profile((b"kTRC", curv()), space=b"GRAY")), 3, "profile is for GRAY"),
            (
                Metadata(profile((b"kTRC", curv()), space=b"GRAY", connection=b"Lab ")), 1,
                "its colour profile has curves, but no light",
            ),
            (Metadata(profile((b"A2B0", b"mft2"))), 3, "tells colours by tables"),
            (Metadata(profile((b"rTRC", curv()))), 3, "tells colours by tables"),
            (Metadata(of_three(b"xxxx" + bytes(20))), 3, "a curve of the kind 'xxxx'"),
            (Metadata(of_three(para(5, 1))), 3, "parametric curve of kind 5"),
            (Metadata(of_three(curv(1, 2, 3)[:-3])), 3, "its colour profile is damaged"),
            (Metadata(of_three(b"curv" + bytes(4) + b"\xff" * 4)), 3, "is damaged"),
            (Metadata(ICC[:140]), 3, "its colour profile is damaged"),
            (Metadata(b"\0" * 20 + b"x"), 3, "its colour profile is"),
            (Metadata(cicp=(9, 16)), 3, "its transfer curve, CICP 16, is not read"),
        ],
        ids=range(14),
    )  # fmt: skip
    def test_what_is_no_curves_is_refused_with_the_reason(
        self, metadata: Metadata, colours: int, reason: str
    ) -> None:
        with pytest.raises(ImageError) as error:
            curves_of(metadata, colours)
        assert reason in str(error.value)
        assert "convert the picture to sRGB first" in str(error.value.hint)

    @pytest.mark.filterwarnings("error")
    def test_damaged_profiles_are_read_or_refused_and_nothing_else(self) -> None:
        rng = np.random.default_rng(0)
        seeds = [ICC, of_three(para(4, 2, 0.8, 0.1, 1.038, 0.2, 0.19, 0.05)), of_three(curv(0x1CD))]
        read = 0
        for n in range(3000):
            data = bytearray(seeds[n % 3])
            for _ in range(rng.integers(1, 4)):
                data[rng.integers(128, len(data))] = rng.integers(256)
            try:
                curves, _ = curves_of(Metadata(bytes(data[: rng.integers(100, 2000)])), 3)
                light = Light(curves, "uint8", False)
            except ImageError:
                continue
            read += 1
            samples = np.repeat(all_samples("uint8"), 3, axis=2)
            np.testing.assert_array_equal(light.encoded(light.decoded(samples)), samples)
        assert 300 < read < 2900

    @pytest.mark.parametrize(
        ("metadata", "curve", "told"),
        [
            (Metadata(), SRGB, False),
            (Metadata(cicp=(1, 13)), SRGB, True),
            (Metadata(cicp=(9, 8)), IDENTITY, True),
            (Metadata(cicp=(1, 4)), Power(2.2), True),
            (Metadata(png_chunks=((b"gAMA", b"\0\0\xb1\x8f"),)), Power(100000 / 45455), True),
            (Metadata(png_chunks=((b"gAMA", b"\0\0\xb1\x8f"), (b"sRGB", b"\0"))), SRGB, True),
            (Metadata(png_chunks=((b"gAMA", bytes(4)),)), SRGB, False),
            (Metadata(of_three(curv()), cicp=(1, 4)), IDENTITY, True),
        ],
        ids=range(8),
    )
    def test_what_tells_the_curve_where_there_is_no_profile(
        self, metadata: Metadata, curve: Curve, told: bool
    ) -> None:
        assert curves_of(metadata, 3) == ((curve,) * 3, told)

    def test_every_curve_by_number_has_a_way_back_and_its_parts_meet(self) -> None:
        for number in (1, 4, 5, 6, 8, 13, 14, 15):
            curves, _ = curves_of(Metadata(cicp=(9, number)), 1)
            for dtype in ("uint8", "uint16"):
                Light(curves, dtype, False)
            ends = curves[0](np.array([0.0, 1.0]))
            np.testing.assert_allclose(ends, [0, 1], atol=1e-12)


def by_little_cms(source: bytes, target: bytes) -> list[int]:
    import io

    from PIL import Image

    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    first, second = (ImageCms.ImageCmsProfile(io.BytesIO(data)) for data in (source, target))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    done = ImageCms.profileToProfile(ramp, first, second, intent, "L")
    assert done is not None
    return list(np.asarray(done)[0])
