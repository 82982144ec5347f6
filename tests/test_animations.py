"""Animations: each frame as it shows is filtered, and shows so in what is written."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from animations import (
    CLEAR,
    MAKERS,
    PATCHES,
    apng,
    by_opencv,
    by_pillow,
    composed,
    features,
    patch,
    written,
)
from command_line import cli
from cudafilter import apply
from cudafilter.errors import ImageError
from cudafilter.formats.metadata import Metadata
from cudafilter.images import Frames, Image, Output, load
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Pieces
from image_files import EXIF, ICC, XMP

SOURCES = [(format, name) for format in MAKERS for name in features(format)]
IDENTITY = ("kernel", "-w", "1")


def straight(pixels: Pixels) -> Pixels:
    """*pixels* as RGBA of 8 bits."""
    if pixels.shape[2] in (1, 2):
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)
    if pixels.shape[2] == 3:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=2)
    return pixels


def assert_shows(got: Pixels, expected: Pixels, off: int = 0) -> None:
    """What is seen is the same: the colour of what is transparent is not.

    *off* is how far colours may be off that a reader blends in whole numbers.
    """
    np.testing.assert_array_equal(got[..., 3] > 0, expected[..., 3] > 0)
    seen = expected[..., 3] > 0
    difference = np.abs(got[seen].astype(int) - expected[seen])
    assert difference.max(initial=0) <= off


class TestReading:
    @pytest.mark.parametrize(("format", "name"), SOURCES)
    def test_frames_come_composed_with_their_times(self, format: str, name: str) -> None:
        patches = features(format)[name]
        data = MAKERS[format](patches, 3)
        images, shown = list(Frames(data, "anim")), composed(patches)
        if format == "webp" and name == "half transparent":  # libwebp blends in whole numbers
            for one, other in zip(by_pillow(data).frames, shown, strict=True):
                assert_shows(one, other, 4)
            shown = by_pillow(data).frames
        for image, frame, stored in zip(images, shown, patches, strict=True):
            assert_shows(straight(image.pixels), frame)
            assert image.seconds == Fraction(stored.ms, 1000)
            assert image.metadata.animation is not None
            assert image.metadata.animation.plays == 3

    @pytest.mark.parametrize("format", MAKERS)
    def test_opaque_frames_have_no_alpha(self, format: str) -> None:
        for name, channels in [("offsets", 3), ("background disposal", 4), ("transparency", 4)]:
            patches = PATCHES[name]
            if format == "png":  # whose pixels here all have alpha
                channels = 4
            (first, *_) = Frames(MAKERS[format](patches), "anim")
            assert first.pixels.shape[2] == channels
            assert first.alpha == (channels == 4)

    def test_half_transparent_patches_are_rounded_once(self) -> None:
        made = [patch(n, alphas=(1, 99, 200, 254), colours=40) for n in range(4)]
        for image, expected in zip(Frames(MAKERS["png"](made), "a"), composed(made), strict=True):
            np.testing.assert_array_equal(image.pixels, expected)

    def test_the_picture_of_an_apng_that_is_no_frame_is_named(self) -> None:
        patches, hidden = PATCHES["offsets"], patch(9).pixels
        frames = Frames(MAKERS["png"](patches, hidden=hidden), "anim")  # type: ignore[call-arg]
        images = list(frames)
        for image, expected in zip(images, composed(patches), strict=True):
            assert_shows(straight(image.pixels), expected)
        assert images[0].notes == ("its picture for viewers that show no animations is not kept",)

    @pytest.mark.parametrize("name", ["background disposal", "previous disposal at once"])
    def test_an_apng_without_alpha_gets_it_where_frames_are_cleared(self, name: str) -> None:
        patches = PATCHES[name]
        for image, expected in zip(
            Frames(apng(patches, colour=2), "a"), composed(patches), strict=True
        ):
            assert image.alpha
            assert_shows(image.pixels, expected)
        (image, *_) = Frames(apng(PATCHES["offsets"], colour=2), "a")
        assert image.pixels.shape[2] == 3

    def test_a_webp_that_does_not_tell_of_its_transparency_keeps_it(self) -> None:
        patches = PATCHES["transparency"]
        data = bytearray(MAKERS["webp"](patches))
        data[20] &= 0xEF
        for image, expected in zip(Frames(bytes(data), "a"), composed(patches), strict=True):
            assert_shows(straight(image.pixels), expected)

    def test_one_frame_is_a_still(self) -> None:
        for format, maker in MAKERS.items():
            image = load(maker(PATCHES["offsets"][:1]))
            assert_shows(straight(image.pixels), composed(PATCHES["offsets"])[0])
            assert image.metadata.animation is None, format
            assert image.seconds is None


class TestWriting:
    """What lossless files hold is exactly the filtered frames, for every reader."""

    @pytest.mark.usefixtures("here")
    @pytest.mark.parametrize("target", ["png", "webp"])
    @pytest.mark.parametrize(("format", "name"), SOURCES)
    def test_lossless_frames_are_those_filtered(self, format: str, name: str, target: str) -> None:
        patches = features(format)[name]
        Path(f"a.{format}").write_bytes(MAKERS[format](patches, 4))
        done = cli("blur", "--sigma", "1.5", "--check", f"a.{format}", f"b.{target}")
        assert done.exit_code == 0, done.stderr
        frames = list(Frames(Path(f"a.{format}").read_bytes(), "a"))
        expected = [
            straight(apply(f.pixels, "blur", sigma=1.5, alpha=f.alpha, engine="cpu"))
            for f in frames
        ]
        for read in (by_pillow, by_opencv):
            got = read(Path(f"b.{target}"))
            assert got.ms == [one.ms for one in patches]
            assert got.plays == 4
            assert len(got.frames) == len(expected)
            for one, other in zip(got.frames, expected, strict=True):
                np.testing.assert_array_equal(one, other)

    @pytest.mark.usefixtures("here")
    @pytest.mark.parametrize(("format", "name"), SOURCES)
    def test_gif_of_few_colours_is_exact(self, format: str, name: str) -> None:
        patches = features(format)[name]
        Path(f"a.{format}").write_bytes(MAKERS[format](patches, 4))
        done = cli(*IDENTITY, f"a.{format}", "b.gif")
        assert done.exit_code == 0, done.stderr
        got = by_pillow(Path("b.gif"))
        assert (got.ms, got.plays) == ([one.ms for one in patches], 4)
        frames = [straight(f.pixels) for f in Frames(Path(f"a.{format}").read_bytes(), "a")]
        again = [straight(f.pixels) for f in Frames(Path("b.gif").read_bytes(), "b")]
        for number, frame in enumerate(frames):
            visible = frame[..., 3:] > 127
            frame = np.where(visible, np.concatenate([frame[..., :3], visible * 255], 2), 0)
            assert_shows(got.frames[number], frame.astype(np.uint8))
            assert_shows(again[number], frame.astype(np.uint8))
        assert ("half transparency" in done.stderr) == (name == "half transparent")
        assert "256 colours a frame" not in done.stderr
        if not any((frame[..., 3] < 255).any() for frame in frames):
            for one, frame in zip(by_opencv(Path("b.gif")).frames, frames, strict=True):
                np.testing.assert_array_equal(one, frame)

    @pytest.mark.usefixtures("here")
    @pytest.mark.parametrize("dither", [False, True])
    def test_gif_says_what_few_colours_did(self, dither: bool) -> None:
        Path("a.gif").write_bytes(MAKERS["gif"]([patch(n, alphas=CLEAR) for n in range(4)]))
        done = cli("blur", "a.gif", "b.gif", *["--dither"] * dither)
        frames = list(Frames(Path("a.gif").read_bytes(), "a"))
        most = 0
        for frame, got in zip(frames, by_pillow(Path("b.gif")).frames, strict=True):
            expected = apply(frame.pixels, "blur", alpha=True, engine="cpu")
            visible = expected[..., 3] > 127
            np.testing.assert_array_equal(got[..., 3] == 255, visible)
            off = np.abs(got[visible].astype(int) - expected[visible])[..., :3].max()
            most = max(most, off)
        how = "mixed of near ones" if dither else "brought to near ones"
        told = rf"in [1-4] of 4 frames others were {how}, at most {most} of 255 away"
        assert re.search(told, done.stderr)

    def test_what_does_not_change_keeps_its_colours_in_gif(self) -> None:
        rng = np.random.default_rng(0)
        still = rng.integers(0, 256, (40, 40, 3), np.uint8)
        moving = [still.copy() for _ in range(3)]
        for n, frame in enumerate(moving):
            frame[4 * n : 4 * n + 4, 7:20] = n
        got = by_pillow(written("gif", moving))
        rest = np.s_[12:]
        for frame in got.frames[1:]:
            np.testing.assert_array_equal(frame[rest], got.frames[0][rest])

    @pytest.mark.parametrize("seed", range(40))
    def test_frames_of_any_size_and_change_come_back(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        height, width, alpha = *rng.integers(1, 14, 2), rng.random() < 0.7
        palette = rng.integers(0, 256, (rng.integers(1, 5), 4), np.uint8)
        palette[:, 3] = rng.choice([0, 255], len(palette)) if alpha else 255
        frames = [palette[rng.integers(0, len(palette), (height, width))]]
        for _ in range(rng.integers(1, 6)):
            top, left = rng.integers(0, height), rng.integers(0, width)
            part = frames[-1][top : top + rng.integers(9), left : left + rng.integers(9)].shape[:2]
            frames.append(frames[-1].copy())
            frames[-1][top : top + part[0], left : left + part[1]] = palette[
                rng.integers(0, len(palette), part)
            ]
        for format in MAKERS:
            file = written(format, [frame if alpha else frame[..., :3].copy() for frame in frames])
            for got in (by_pillow(file).frames, [straight(f.pixels) for f in Frames(file, "a")]):
                for one, expected in zip(got, frames, strict=True):
                    assert_shows(one, expected)

    @pytest.mark.parametrize("plays", [0, 1, 2, 6])
    @pytest.mark.parametrize("target", MAKERS)
    @pytest.mark.parametrize("format", MAKERS)
    def test_it_is_shown_as_often(self, format: str, target: str, plays: int) -> None:
        frames = list(Frames(MAKERS[format](PATCHES["offsets"], plays), "a"))
        file = Pieces()
        output = Output(target, file, len(frames))
        for frame in frames:
            output.add(frame)
        output.close()
        assert by_pillow(bytes(file.joined())).plays == plays

    @pytest.mark.parametrize(
        ("target", "kept"),
        [
            ("png", ("icc", "exif", "xmp")),
            ("webp", ("icc", "exif", "xmp")),
            ("gif", ("icc", "xmp")),
        ],
    )
    def test_metadata_are_kept(self, target: str, kept: tuple[str, ...]) -> None:
        metadata = Metadata(ICC, EXIF, XMP, comments=(b"hello",))
        frames = list(Frames(written(target, [patch(n).pixels for n in range(3)], metadata), "a"))
        for field in kept:
            assert getattr(frames[2].metadata, field) == getattr(metadata, field)
        assert (frames[0].metadata.comments == (b"hello",)) == (target == "gif")

    def test_sixteen_bits_stay_in_png(self) -> None:
        rng = np.random.default_rng(0)
        pixels = [rng.integers(0, 1 << 16, (9, 8, 4), np.uint16) for _ in range(3)]
        for frame, expected in zip(Frames(written("png", pixels), "a"), pixels, strict=True):
            np.testing.assert_array_equal(frame.pixels, expected)

    @pytest.mark.parametrize(
        ("target", "seconds", "kept"),
        [
            ("gif", Fraction(1, 30), Fraction(3, 100)),
            ("webp", Fraction(1, 30), Fraction(33, 1000)),
            ("png", Fraction(1, 30), Fraction(1, 30)),
            ("png", Fraction(70_001, 1000), Fraction(7000, 100)),
        ],
    )
    def test_times_are_rounded_to_what_is_held_with_a_note(
        self, target: str, seconds: Fraction, kept: Fraction
    ) -> None:
        file, animation = Pieces(), list(Frames(MAKERS["png"](PATCHES["offsets"]), "a"))
        output = Output(target, file, 3)
        for frame in animation:
            output.add(Image(frame.pixels, True, frame.metadata, seconds=seconds))
        notes = output.close()
        frames = list(Frames(bytes(file.joined()), "a"))
        assert [frame.seconds for frame in frames] == [kept] * 3
        assert any("durations are rounded" in note for note in notes) == (kept != seconds)

    @pytest.mark.parametrize(
        ("target", "plays"), [("gif", 65537), ("webp", 65536), ("png", 1 << 31)]
    )
    def test_more_plays_than_a_format_holds_are_refused(self, target: str, plays: int) -> None:
        with pytest.raises(ImageError, match=r"it is shown [\d,]+ times, and .* at most"):
            written(target, [patch(0).pixels] * 2, plays=plays)
