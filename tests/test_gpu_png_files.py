"""PNG files whose pixels stay on the device: the same bytes as by way of the host, or none."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import PngImagePlugin

from agreement import random_pixels
from cudafilter import images
from cudafilter.check import compare
from cudafilter.engines.codecs import FileResult
from cudafilter.engines.cuda import deflate, screen, slots
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import Mended
from cudafilter.errors import DeviceLost, EngineError
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.proof.screened import Unsettled
from fake_cuda import FakeCuda, Fault, MemoryError
from fake_nvjpeg import fake
from png_engines import BLUR, ROWS, Run, by_host, compiled, engine, png_of, raw_png, through
from stand_in_gpus import StandIn

__all__ = ["compiled", "engine", "fake"]

FILTERS: dict[str, Operation] = {
    "one step": BLUR,
    "a magnitude": make("sobel"),
    "a rank": make("median"),
    "point by point": make("levels", gamma=2),
    "the whole picture": make("threshold", otsu=True),
    "a chain": Chain((Link(BLUR), Link(make("sobel"), Border("wrap")))),
    "ranks in a chain": make("open", radius=2),
}


@pytest.mark.parametrize("shape", [(1, 1), (33, 70), (70, 33)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("filter", FILTERS.values(), ids=FILTERS)
def test_the_bytes_are_those_of_the_other_way(
    filter: Operation, dtype: str, shape: tuple[int, int], engine: CudaEngine
) -> None:
    for channels in (1, 2, 3, 4):
        data = png_of(random_pixels((*shape, channels), dtype))
        done = through(engine, data, filter)
        assert done is not None
        assert bytes(done.data) == by_host(engine, data, filter), channels
        told = done.width, done.height, done.channels, done.dtype, done.alpha
        assert told == (*shape[::-1], channels, dtype, channels in (2, 4))
        assert done.notes == ()


@pytest.mark.parametrize("border", ["wrap", "constant", "reflect"])
def test_borders_are_those_asked_for(border: str, engine: CudaEngine) -> None:
    edge = Border(border, 0.3 if border == "constant" else 0.0)
    data = png_of(random_pixels((40, 50, 3), "uint8"))
    done = through(engine, data, BLUR, edge)
    assert done is not None
    assert bytes(done.data) == by_host(engine, data, BLUR, edge)


def test_rows_come_in_any_pieces(compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    data = png_of(random_pixels((90, 31, 3), "uint8"))
    expected = by_host(compiled, data, BLUR)
    monkeypatch.setattr(slots, "CHUNK_BYTES", 2900)
    monkeypatch.setattr(deflate, "BAND", 1000)
    cut = through(compiled, data)
    assert cut is not None
    stored = images.load(bytes(cut.data)).pixels
    assert np.array_equal(stored, images.load(expected).pixels)
    assert bytes(cut.data) == by_host(compiled, data, BLUR)


def test_what_stands_in_the_file_is_kept(compiled: CudaEngine) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "a cat")
    file = io.BytesIO()
    picture = PillowImage.fromarray(random_pixels((40, 50, 3), "uint8"))
    picture.save(file, "png", pnginfo=info, dpi=(300, 300))
    data = file.getvalue() + b"more"
    done = through(compiled, data)
    assert done is not None
    assert bytes(done.data) == by_host(compiled, data, BLUR)
    assert done.notes == images.load(data).notes == ("4 bytes after its end are not kept",)
    assert PillowImage.open(io.BytesIO(bytes(done.data))).info["Title"] == "a cat"


@pytest.mark.parametrize("filter", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("proving", [False, True])
def test_pixels_of_both_sides_come_for_a_check(
    proving: bool, filter: Operation, engine: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "LEAST_SAMPLES", 0)
    for dtype, channels in (("uint8", 3), ("uint16", 4)):
        pixels = random_pixels((60, 50, channels), dtype)
        data, alpha = png_of(pixels), channels == 4
        done = through(engine, data, filter, keep=True, screen=proving)
        assert done is not None
        assert bytes(done.data) == by_host(engine, data, filter)
        assert done.kept is not None
        source, result = done.kept
        if done.screened is None:
            assert np.array_equal(source, pixels)
            assert np.array_equal(result, images.load(bytes(done.data)).pixels)
        found = compare(result, source, filter, Border(), alpha, screen=done.screened)
        assert found.ok
        assert proving or done.screened is None
        if done.screened is not None:
            result[done.screened.rows[0][0]] ^= 128
            with pytest.raises(Unsettled):
                compare(result, source, filter, Border(), alpha, screen=done.screened)
        else:
            result[0] ^= 128
            assert not compare(result, source, filter, Border(), alpha).ok


def test_the_device_proves_what_one_step_makes(
    engine: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "LEAST_SAMPLES", 0)
    data = png_of(random_pixels((60, 50, 3), "uint8"))
    done = through(engine, data, keep=True, screen=True)
    assert done is not None
    assert done.screened is not None
    assert "prove" in done.seconds


def palette(colours: int = 9) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(random_pixels((40, 50, 3), "uint8")).quantize(colours).save(file, "png")
    return file.getvalue()


def bits() -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(random_pixels((40, 50, 1), "uint8")[..., 0] > 99).save(file, "png")
    return file.getvalue()


def clear() -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(random_pixels((40, 50, 3), "uint8")).save(
        file, "png", transparency=(1, 2, 3)
    )
    return file.getvalue()


def moving() -> bytes:
    file = io.BytesIO()
    frames = [PillowImage.fromarray(random_pixels((40, 50, 3), "uint8", n)) for n in range(2)]
    frames[0].save(file, "png", save_all=True, append_images=frames[1:])
    return file.getvalue()


LEFT: dict[str, Callable[[], bytes]] = {
    "a palette": palette,
    "a palette of 8 bits": lambda: palette(200),
    "bits": bits,
    "a clear colour": clear,
    "frames": moving,
    "interlaced": lambda: raw_png(bytes(79), 1),
    "cut": lambda: png_of(random_pixels((40, 50, 3), "uint8"))[:3000],
    "no such filter": lambda: raw_png(bytes([5]) + ROWS[1:]),
    "rows are missing": lambda: raw_png(ROWS[:-9]),
    "more rows": lambda: raw_png(ROWS + ROWS[:9]),
}


@pytest.mark.parametrize("make", LEFT.values(), ids=LEFT)
def test_what_it_leaves_to_the_host(
    make: Callable[[], bytes], compiled: CudaEngine, fake: FakeCuda
) -> None:
    before = fake.calls["launch"]
    assert through(compiled, make()) is None
    assert fake.calls["launch"] == before
    assert through(compiled, raw_png(ROWS)) is not None


def test_small_pictures_and_other_wishes_are_left_to_the_host(
    compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = png_of(random_pixels((40, 50, 3), "uint8"))
    assert through(compiled, data, gray=True) is None
    assert through(compiled, png_of(random_pixels((40, 50, 2), "uint8")), gray=True) is not None
    assert through(compiled, data, make("outline")) is None  # the difference of two results
    monkeypatch.setattr(deflate, "LEAST", 40 * 50 * 3)
    assert through(compiled, data) is not None
    monkeypatch.setattr(deflate, "LEAST", 40 * 50 * 3 + 1)
    assert through(compiled, data) is None


def test_a_drawing_is_compressed_by_the_host(
    engine: CudaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deflate, "LOST", -1.0)
    data = png_of(random_pixels((40, 50, 3), "uint16"))
    done = through(engine, data)
    assert done is not None
    filtered = engine.run(images.load(data).pixels, BLUR).pixels
    assert bytes(done.data) == png_of(filtered)


@pytest.mark.parametrize("at", range(1, 5))
def test_memory_that_lacks_leaves_it_to_the_host(
    at: int, compiled: CudaEngine, fake: FakeCuda
) -> None:
    """The rows' own, the pixels', the result's and what is at work beside them."""
    data = png_of(random_pixels((40, 50, 3), "uint8"))
    fake.faults.append(Fault("mem_alloc", MemoryError, "out of memory", at))
    assert through(compiled, data) is None
    assert through(compiled, data) is not None


class TestAWorker:
    def test_tells_the_same_of_both_ways(self, here: Path, compiled: CudaEngine) -> None:
        Path("a.png").write_bytes(png_of(random_pixels((40, 50, 4), "uint16")))
        run = Run(compiled)
        for check in (None, "all", "quick"):
            (by_way, data), (by_host, host) = run(check=check), run(check=check, engine_codec=False)
            assert by_way.status == by_host.status == "done"
            assert data == host
            told = "width", "height", "channels", "colour", "dtype", "engine", "notes", "bytes_out"
            assert [getattr(by_way, name) for name in told] == [
                getattr(by_host, name) for name in told
            ]
            assert (by_way.agreement is None) == (by_host.agreement is None) == (check is None)
            assert "decode" not in by_way.seconds
            assert "unfilter" in by_way.engine_seconds

    @pytest.mark.parametrize(
        "settings",
        [{"compress_level": 6}, {"background": (0, 0, 0)}, {"frames": (range(1),)}, {"gray": True}],
        ids=lambda settings: next(iter(settings)),
    )
    def test_leaves_other_wishes_to_the_host(
        self, settings: dict[str, Any], here: Path, compiled: CudaEngine
    ) -> None:
        Path("a.png").write_bytes(png_of(random_pixels((40, 50, 4), "uint8")))
        run = Run(compiled)
        (record, data), (_, host) = run(**settings), run(engine_codec=False, **settings)
        assert record.status == "done"
        assert data == host
        assert "decode" in record.seconds

    @pytest.mark.parametrize("what", ["cut", "no such filter", "rows are missing", "more rows"])
    def test_tells_damage_as_the_host_does(
        self, what: str, here: Path, compiled: CudaEngine
    ) -> None:
        Path("a.png").write_bytes(LEFT[what]())
        run = Run(compiled)
        (record, data), (by_host, _) = run(), run(engine_codec=False)
        assert (record.status, data) == ("failed", None)
        assert (record.error, record.hint) == (by_host.error, by_host.hint)

    def test_tells_of_settings_without_use(self, here: Path, compiled: CudaEngine) -> None:
        Path("a.png").write_bytes(png_of(random_pixels((40, 50, 3), "uint8")))
        record, _ = Run(compiled)(quality=50, dither=True)
        assert "unfilter" in record.engine_seconds
        assert len(record.notes) == 2

    def test_refuses_a_result_that_disagrees(
        self, here: Path, compiled: CudaEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("a.png").write_bytes(png_of(random_pixels((40, 50, 3), "uint8")))
        assert compiled.png is not None
        right = compiled.png.filter

        def wrong(*given: Any, **named: Any) -> FileResult | None:
            done = right(*given, **named)
            assert done is not None
            assert done.kept is not None
            done.kept[1][3, 4, 1] ^= 1
            return done

        monkeypatch.setattr(compiled.png, "filter", wrong)
        record, data = Run(compiled)(check="all")
        assert (record.status, data) == ("failed", None)

    def test_goes_by_the_host_where_the_device_fails(
        self, here: Path, compiled: CudaEngine, fake: FakeCuda
    ) -> None:
        Path("a.png").write_bytes(png_of(random_pixels((40, 50, 3), "uint8")))
        run = Run(compiled)
        _, host = run(engine_codec=False)
        fake.faults.append(Fault("launch"))
        record, data = run()
        assert record.status == "done"
        assert data == host
        assert record.notes[0].startswith("filtered again by way of the host: the GPU failed")


class TestOtherEngines:
    def test_a_fleet_gives_it_to_a_member_that_can(self, compiled: CudaEngine) -> None:
        data = png_of(random_pixels((40, 50, 3), "uint8"))
        done = through(Fleet([StandIn(), compiled]), data)
        assert done is not None
        assert bytes(done.data) == by_host(compiled, data, BLUR)
        assert through(Fleet([StandIn(), compiled]), palette()) is None

    def test_one_that_is_mended_does_it_again(self, compiled: CudaEngine, fake: FakeCuda) -> None:
        data = png_of(random_pixels((40, 50, 3), "uint8"))
        expected = by_host(compiled, data, BLUR)
        losing = StandIn()
        losing.png = _Lost(0)  # type: ignore[assignment]
        mended = Mended(losing, lambda: compiled)
        done = through(mended, data)
        assert done is not None
        assert bytes(done.data) == expected
        assert "was lost" in done.notes[0]

    @pytest.mark.parametrize("spare", [False, True])
    def test_what_fails_again_is_the_spares_if_there_is_one(self, spare: bool) -> None:
        first, second = StandIn(), StandIn()
        first.png = second.png = _Lost(0)  # type: ignore[assignment]
        mended = Mended(first, lambda: second, StandIn if spare else None)
        with pytest.raises(EngineError) as caught:
            through(mended, raw_png(ROWS))
        assert isinstance(caught.value, DeviceLost) != spare, "a worker goes on by the host"


class _Lost:
    """A path whose device is lost."""

    def __init__(self, number: int) -> None:
        self.error = DeviceLost(f"device {number}")

    def filter(self, *_: Any, **__: Any) -> FileResult | None:
        raise self.error


def test_what_is_told_of_seconds(compiled: CudaEngine) -> None:
    done = through(compiled, png_of(random_pixels((40, 50, 3), "uint8")))
    assert done is not None
    assert set(done.seconds) == {"inflate", "unfilter", "kernel", "deflate"}
    kernels = replace(
        done, seconds={"inflate": 9.0, "unfilter": 1.0, "kernel": 2.0, "deflate": 4.0}
    )
    assert kernels.on_device == 7.0
