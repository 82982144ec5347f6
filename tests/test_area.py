"""Where a filter works: rectangles and masks as weights, and the blend by these."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from agreement import random_pixels
from cudafilter.errors import ImageError, ParameterError
from cudafilter.operations.area import FULL, Area, Placed, mask_of, product, ramp
from cudafilter.operations.blend import blend, flattened
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.region import Rectangle, Region
from cudafilter.proof.ends import wrong_blend


def placed(*regions: str, width: int = 100, height: int = 50, feather: int = 0) -> Placed:
    area = Area(None, tuple(map(Region.parsed, regions)), feather)
    return area.within(width, height)


def weights(*regions: str, width: int = 8, height: int = 6, feather: int = 0) -> Pixels:
    area = placed(*regions, width=width, height=height, feather=feather)
    return area.weights(Rectangle(0, 0, width, height))


class TestRegion:
    @pytest.mark.parametrize(
        ("text", "sides"),
        [
            ("10,20,30,5", (10, 20, 40, 25)),
            ("10%,20%,30%,50%", (10, 10, 40, 35)),
            ("12.5%,0,25%,10", (12, 0, 38, 10)),  # 12.5 and 37.5: half to even
            ("-5,-5,20,20", (-5, -5, 15, 15)),
            (" 1 , 2 , 3 , 4 ", (1, 2, 4, 6)),
            ("50%,0,10,100%", (50, 0, 60, 50)),
        ],
    )
    def test_pixels_and_percent(self, text: str, sides: tuple[int, ...]) -> None:
        assert Region.parsed(text).within(100, 50) == Rectangle(*sides)

    @pytest.mark.parametrize("width", [1, 3, 7, 99, 100, 4001])
    def test_percents_that_touch_leave_no_gap(self, width: int) -> None:
        for share in range(1, 100):
            one = Region.parsed(f"0,0,{share}%,1")
            other = Region.parsed(f"{share}%,0,{100 - share}%,1")
            ends = []
            for part in (one, other):
                try:
                    place = part.within(width, 1)
                    ends += [place.left, place.right]
                except ImageError:  # less than a pixel
                    continue
            assert ends[0] == 0
            assert ends[-1] == width
            assert len(ends) == 2 or ends[1] == ends[2]

    @pytest.mark.parametrize(
        "text",
        ["", "1,2,3", "1,2,3,4,5", "a,0,1,1", "1.5,0,1,1", "1,1,0,5", "1,1,5,-1", "1,1,0%,1"],
    )
    def test_what_is_none_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ParameterError) as error:
            Region.parsed(text)
        assert error.value.parameter == "region"
        assert "such as 10,20,300,200" in str(error.value.hint)

    def test_one_outside_tells_both_sizes(self) -> None:
        with pytest.raises(ImageError) as error:
            placed("200,0,10,20")
        assert str(error.value) == (
            "region 200,0,10,20 is outside: it is 10x20 pixels from 200,0 on, and the picture has"
            " 100x50"
        )

    def test_less_than_a_pixel_is_refused(self) -> None:
        with pytest.raises(ImageError, match="less than a pixel of its 100x50"):
            placed("0,0,0.1%,100%")

    def test_one_that_reaches_out_is_cut_and_told(self) -> None:
        area = placed("90,40,20,20")
        assert area.box() == Rectangle(90, 40, 100, 50)
        assert area.notes == (
            "region 90,40,20,20 is cut at the edge of the picture, which has 100x50 pixels",
        )
        assert placed("90,40,10,10").notes == ()


class TestWeights:
    def test_a_region_is_full_inside_and_nothing_outside(self) -> None:
        expected = np.zeros((6, 8), np.uint16)
        expected[2:5, 1:4] = FULL
        np.testing.assert_array_equal(weights("1,2,3,3"), expected)

    def test_regions_count_together(self) -> None:
        both = np.maximum(weights("0,0,4,4"), weights("2,2,4,4"))
        np.testing.assert_array_equal(weights("0,0,4,4", "2,2,4,4"), both)

    def test_a_part_of_the_weights_is_that_part(self) -> None:
        whole = weights("1,1,5,5", "3,2,4,3", feather=2)
        part = placed("1,1,5,5", "3,2,4,3", width=8, height=6, feather=2)
        np.testing.assert_array_equal(part.weights(Rectangle(2, 1, 7, 5)), whole[1:5, 2:7])

    def test_the_ramp_is_smoothstep_inside_the_side(self) -> None:
        t = (np.arange(4) + 0.5) / 4
        rising = t * t * (3 - 2 * t)
        expected = np.concatenate([np.zeros(3), rising, np.ones(2), rising[::-1], np.zeros(2)])
        np.testing.assert_allclose(ramp(3, 13, 15, 4), expected, atol=1e-15)

    def test_the_edge_of_the_image_has_no_ramp(self) -> None:
        assert (ramp(0, 20, 20, 5) == 1).all()
        assert (ramp(-3, 10, 20, 5)[:5] == 1).all()
        assert ramp(-3, 10, 20, 5)[9] < 0.1

    def test_corners_are_the_product_of_both_ramps(self) -> None:
        across = ramp(10, 60, 100, 8)
        down = ramp(5, 40, 50, 8)
        got = placed("10,5,50,35", feather=8).weights(Rectangle(0, 0, 100, 50))
        np.testing.assert_array_equal(got, np.rint(down[:, None] * across * FULL))

    def test_mask_and_region_both_count(self) -> None:
        mask = np.full((6, 8), 20000, np.uint16)
        area = Area(mask, (Region.parsed("2,2,3,3"),)).within(8, 6)
        got = area.weights(Rectangle(0, 0, 8, 6))
        expected = np.zeros((6, 8))
        expected[2:5, 2:5] = 20000
        np.testing.assert_array_equal(got, expected)

    def test_the_box_is_as_small_as_the_mask_lets_it(self) -> None:
        mask = np.zeros((6, 8), np.uint16)
        assert not Area(mask).within(8, 6).box().size
        mask[2, 3] = mask[4, 6] = 1
        assert Area(mask).within(8, 6).box() == Rectangle(3, 2, 7, 5)

    def test_a_mask_of_another_size_tells_both(self) -> None:
        with pytest.raises(ImageError, match="the mask has 8x6 pixels, and the picture 9x6"):
            Area(np.zeros((6, 8), np.uint16)).within(9, 6)


class TestMask:
    def test_all_bits_of_a_sample_count(self) -> None:
        samples = np.array([[[0], [1], [128], [255]]], np.uint8)
        assert mask_of(samples, False).tolist() == [[0, 257, 32896, 65535]]
        samples = np.array([[[0], [1], [32768], [65535]]], np.uint16)
        assert mask_of(samples, False).tolist() == [[0, 1, 32768, 65535]]
        samples = np.array([[[0], [0.25], [1]]], np.float32)
        assert mask_of(samples, False).tolist() == [[0, 16384, 65535]]

    def test_alpha_is_a_factor(self) -> None:
        samples = np.array([[[255, 0], [255, 128], [100, 255], [0, 255]]], np.uint8)
        assert mask_of(samples, True).tolist() == [[0, 32896, 25700, 0]]

    def test_gray_in_three_channels_is_gray_and_a_colour_is_refused(self) -> None:
        gray = np.full((2, 2, 3), 90, np.uint8)
        assert (mask_of(gray, False) == 90 * 257).all()
        gray[1, 1, 2] = 91
        with pytest.raises(ParameterError, match="it has colours"):
            mask_of(gray, False)

    @pytest.mark.parametrize("wrong", [-0.1, 1.5, np.nan, np.inf])
    def test_floats_are_from_0_to_1(self, wrong: float) -> None:
        with pytest.raises(ParameterError, match="from 0 to 1"):
            mask_of(np.array([[[0.5], [wrong]]], np.float32), False)

    def test_products_are_rounded(self) -> None:
        one = np.arange(65536, dtype=np.uint16)
        for other in (0, 1, 2, 32767, 32768, 65534, 65535):
            got = product(one, np.full_like(one, other))
            expected = [round(Fraction(n * other, FULL)) for n in range(0, 65536, 97)]
            assert got[::97].tolist() == expected


CASES = [(dtype, c, c in (2, 4)) for dtype in ("uint8", "uint16", "float32") for c in (1, 2, 3, 4)]


def some_weights(shape: tuple[int, ...]) -> Pixels:
    found = np.random.default_rng(3).integers(0, FULL, shape, np.uint16, endpoint=True)
    found[::3], found[1::3, ::2] = 0, FULL
    return found


class TestBlend:
    @pytest.mark.parametrize(("dtype", "channels", "alpha"), CASES)
    def test_it_is_the_exact_quotient_rounded_half_to_even(
        self, dtype: str, channels: int, alpha: bool
    ) -> None:
        source = random_pixels((9, 11, channels), dtype)
        filtered = random_pixels((9, 11, channels), dtype, seed=1)
        mask = some_weights((9, 11))
        got = blend(source, filtered, mask, alpha)
        for (y, x), weight in np.ndenumerate(mask):
            for c in range(channels):
                a, b = FULL - int(weight), int(weight)
                if alpha and c < channels - 1:
                    first = Fraction(float(source[y, x, -1])) * a
                    second = Fraction(float(filtered[y, x, -1])) * b
                    if first + second:
                        a, b = first, second  # type: ignore[assignment]
                one, other = Fraction(float(source[y, x, c])), Fraction(float(filtered[y, x, c]))
                exact = (one * a + other * b) / (a + b)
                if dtype == "float32":
                    # The quotient is float64's before it is rounded.
                    assert abs(got[y, x, c] - float(exact)) <= 2.0**-23 * abs(float(exact))
                else:
                    assert got[y, x, c] == round(exact)

    @pytest.mark.parametrize(("dtype", "channels", "alpha"), CASES)
    def test_black_is_the_source_and_white_the_result_bit_for_bit(
        self, dtype: str, channels: int, alpha: bool
    ) -> None:
        source = random_pixels((9, 11, channels), dtype)
        filtered = random_pixels((9, 11, channels), dtype, seed=1)
        if dtype == "float32":
            source[4], filtered[5] = np.nan, np.inf
        mask = some_weights((9, 11))
        got = blend(source, filtered, mask, alpha)
        assert got[mask == 0].tobytes() == source[mask == 0].tobytes()
        assert got[mask == FULL].tobytes() == filtered[mask == FULL].tobytes()

    @pytest.mark.parametrize(
        ("dtype", "weight", "alphas"), [("uint8", FULL // 5, (1, 4)), ("uint16", 1, (1, FULL - 1))]
    )
    def test_a_tie_goes_to_even(self, dtype: str, weight: int, alphas: tuple[int, int]) -> None:
        """By their alphas and the weight, both pixels count the same."""
        colours = np.arange(10)
        source, filtered = (
            np.stack([side, np.full(10, alpha)], axis=1)[None].astype(dtype)
            for side, alpha in zip((colours, colours + 1), alphas, strict=True)
        )
        got = blend(source, filtered, np.full((1, 10), weight, np.uint16), True)
        np.testing.assert_array_equal(got[0, :, 0], np.rint(colours + 0.5))

    def test_what_a_transparent_pixel_hides_does_not_show(self) -> None:
        source = np.array([[[255, 0, 0, 0]]], np.uint8)  # red, unseen
        filtered = np.array([[[0, 0, 200, 128]]], np.uint8)
        got = blend(source, filtered, np.full((1, 1), FULL // 2 + 1, np.uint16), True)
        assert got.tolist() == [[[0, 0, 200, 64]]]

    @pytest.mark.parametrize(("dtype", "channels", "alpha"), CASES)
    def test_the_proof_finds_one_wrong_sample(self, dtype: str, channels: int, alpha: bool) -> None:
        source = random_pixels((9, 11, channels), dtype)
        filtered = random_pixels((9, 11, channels), dtype, seed=1)
        mask = some_weights((9, 11))
        right = blend(source, filtered, mask, alpha)
        assert wrong_blend(right, source, filtered, mask, alpha) is None
        for y, x in ((0, 0), (1, 0), (2, 3), (8, 10)):
            for c in range(channels):
                wrong = right.copy()
                bits = wrong.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[wrong.itemsize])
                bits[y, x, c] ^= 1
                assert wrong_blend(wrong, source, filtered, mask, alpha) == (x, y, c)


class TestFlattened:
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_each_sample_is_the_exact_mean_rounded(self, dtype: str) -> None:
        pixels = random_pixels((7, 9, 4), dtype)
        full = np.iinfo(dtype).max
        under = [each * (full // 255) for each in (255, 99, 3)]
        got = flattened(pixels, (255, 99, 3))
        for y, x, c in np.ndindex(got.shape):
            alpha = int(pixels[y, x, 3])
            above = int(pixels[y, x, c]) * alpha + under[c] * (full - alpha)
            assert got[y, x, c] == round(Fraction(above, full))

    def test_opaque_stays_and_transparent_is_the_colour(self) -> None:
        pixels = random_pixels((7, 9, 2), "float32")
        pixels[0, :, 1], pixels[1, :, 1] = 1, 0
        got = flattened(pixels, (51,))
        assert got[0].tobytes() == np.ascontiguousarray(pixels[0, :, :1]).tobytes()
        np.testing.assert_array_equal(got[1], np.float32(0.2))
