"""Pixels in a GPU's memory, on a stand-in for the driver: where they lie, in order, given back."""

from __future__ import annotations

import ctypes
import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cudafilter
from agreement import random_pixels
from cudafilter.engines import Engine
from cudafilter.engines.cuda import dlpack
from cudafilter.engines.cuda.engine import CudaEngine
from cudafilter.engines.fleet import Fleet
from cudafilter.engines.mended import Mended
from cudafilter.errors import EngineUnavailable, LimitError, ParameterError
from cudafilter.nvidia.driver import LEGACY
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make
from fake_cuda import FakeCuda
from fake_driver import FakeDriver, WithCapsule, WithInterface

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")

KINDS: list[Any] = [WithInterface, WithCapsule]
BLUR = make("blur", sigma=1)
WIDE = random_pixels((20, 64, 1), "uint8")[..., 0]
"""Its rows are whole."""
TWICE = Chain((Link(make("sharpen")), Link(make("blur")), Link(make("sharpen"))), "twice")
ODD = random_pixels((20, 37, 3), "uint8")


@pytest.fixture
def driver(built: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    cuda = FakeCuda(built)
    cuda.install(monkeypatch)
    made = FakeDriver(cuda)
    made.install(monkeypatch)
    return made


@pytest.fixture
def engine(driver: FakeDriver) -> Iterator[CudaEngine]:
    """The CUDA engine; once it is closed and no array is left, nothing is."""
    opened = CudaEngine(variant="constant", codec="cpu")
    yield opened
    opened.close()
    gc.collect()
    with driver.current(77):
        driver.synchronize()
    assert driver.left == driver.retained[0] == driver.events == 0


def on_host(driver: FakeDriver, array: Any, stream: int = LEGACY) -> Any:
    """*array* as somebody sees it who waits for *stream* only."""
    driver.of(stream).run()
    return seen(array)


def seen(array: Any) -> Any:
    """*array* as it is now."""
    (address, _), shape = array.__cuda_array_interface__["data"], array.shape
    nbytes = int(np.prod(shape)) * array.dtype.itemsize
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
    return raw.copy().view(array.dtype).reshape(shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "pixels", [WIDE, ODD, random_pixels((9, 16, 4), "uint16"), random_pixels((9, 5, 1), "float32")],
    ids=["whole", "odd", "uint16", "float32"],
)  # fmt: skip
@pytest.mark.parametrize(
    "filter",
    ["blur", "median", "open", "canny", "threshold", TWICE],
    ids=lambda filter: getattr(filter, "name", filter),
)
def test_the_bits_are_those_of_the_host_s(
    filter: Any, pixels: Any, kind: Any, driver: FakeDriver, engine: CudaEngine
) -> None:
    engine.variant = "auto"
    right = cudafilter.apply(pixels, filter, engine=engine)
    out = cudafilter.apply(kind(driver, pixels), filter, engine=engine)
    assert (out.shape, out.dtype) == (pixels.shape, pixels.dtype)
    assert on_host(driver, out).tobytes() == right.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_whole_rows_are_filtered_where_they_lie(
    kind: Any, driver: FakeDriver, engine: CudaEngine
) -> None:
    source, out = kind(driver, WIDE), kind(driver, 0 * WIDE)
    driver.calls.clear()
    assert cudafilter.apply(source, BLUR, engine=engine, out=out) is out
    assert "copy" not in driver.calls
    assert "alloc" not in driver.calls
    assert "synchronize" not in driver.calls
    assert driver.cuda.calls["Context.synchronize"] <= 1  # as the kernel is loaded
    driver.of(LEGACY).run()
    np.testing.assert_array_equal(out.pixels, cudafilter.apply(WIDE, BLUR, engine=engine))


@pytest.mark.parametrize(
    ("pixels", "more", "copies"),
    [(WIDE, {}, 0), (WIDE, {"pitch": 160}, 0), (WIDE, {"pitch": 100}, 1),
     (WIDE, {"skip": 1}, 1), (ODD, {}, 2), (ODD, {"pitch": 128}, 2)],
)  # fmt: skip
def test_other_rows_are_copied_on_the_device(
    pixels: Any, more: dict[str, int], copies: int, driver: FakeDriver, engine: CudaEngine
) -> None:
    source, right = (
        WithInterface(driver, pixels, **more),
        cudafilter.apply(pixels, BLUR, engine=engine),
    )
    driver.cuda.calls.clear()
    driver.calls.clear()
    out = cudafilter.apply(source, BLUR, engine=engine)
    assert driver.calls.count("copy") == copies
    assert not {"upload", "download"} & set(driver.cuda.calls)
    np.testing.assert_array_equal(on_host(driver, out), right)


@pytest.mark.parametrize("pitch", [128, 112])
def test_what_lies_between_the_rows_of_out_stays(
    pitch: int, driver: FakeDriver, engine: CudaEngine
) -> None:
    for pixels in (WIDE, ODD):
        out = WithInterface(driver, 0 * pixels, pitch=pitch)
        driver.of(LEGACY).run()
        out.padding[:] = 9
        cudafilter.apply(WithInterface(driver, pixels), BLUR, engine=engine, out=out)
        driver.of(LEGACY).run()
        assert (out.padding == 9).all()
        np.testing.assert_array_equal(out.pixels, cudafilter.apply(pixels, BLUR, engine=engine))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [True, False], ids=["stream=", "theirs"])
def test_work_is_in_order_on_the_caller_s_stream(
    kind: Any, given: bool, driver: FakeDriver, engine: CudaEngine
) -> None:
    """The pixels are written on one stream, and used on another: each waits for the one before."""
    theirs = driver.stream()
    mine = driver.stream() if given else theirs
    source = kind(driver, WIDE, stream=theirs)
    out = cudafilter.apply(source, BLUR, engine=engine, stream=mine if given else None)
    right = cudafilter.apply(WIDE, BLUR, engine=engine)
    stream = mine if given else (theirs if kind is WithInterface else LEGACY)
    assert out.__cuda_array_interface__["stream"] == stream
    np.testing.assert_array_equal(on_host(driver, out, stream), right)


def test_the_host_waits_for_nothing(driver: FakeDriver, engine: CudaEngine) -> None:
    source = WithInterface(driver, WIDE)
    cudafilter.apply(source, BLUR, engine=engine)
    waits = driver.cuda.calls["Stream.synchronize"], driver.synchronized
    reached: list[bool] = []
    driver.of(LEGACY).put(lambda: reached.append(True))
    held = [cudafilter.apply(source, BLUR, engine=engine) for _ in range(3)]
    assert (driver.cuda.calls["Stream.synchronize"], driver.synchronized) == waits
    assert not reached
    assert len(held) == 3


@pytest.mark.parametrize("versions", [True, False])
def test_a_library_without_a_known_stream_has_its_pixels_back_when_they_were_read(
    versions: bool, driver: FakeDriver, engine: CudaEngine
) -> None:
    source: Any = WithCapsule(driver, WIDE, stream=driver.stream())
    source.versions = versions
    right = cudafilter.apply(WIDE, BLUR, engine=engine)
    out = cudafilter.apply(source, BLUR, engine=engine)
    assert source.asked == LEGACY
    assert not dlpack._lent
    np.testing.assert_array_equal(seen(out), right)  # it was read: nothing is waited for here


def test_memory_is_given_back_behind_its_use(driver: FakeDriver, engine: CudaEngine) -> None:
    source = WithInterface(driver, WIDE)
    out = cudafilter.apply(source, BLUR, engine=engine)
    driver.calls.clear()
    address = out.__cuda_array_interface__["data"][0]
    used: list[bool] = []
    driver.of(LEGACY).put(lambda: used.append(driver.device_of(address) == 0), address)
    del out
    gc.collect()
    assert driver.calls.count("free") == 1
    assert "synchronize" not in driver.calls
    driver.of(LEGACY).run()
    assert used == [True]
    assert driver.device_of(address) is None


def test_a_stream_that_nobody_keeps_is_not_asked_again(
    driver: FakeDriver, engine: CudaEngine
) -> None:
    """A handle says nothing of whether its stream is there still."""
    handle = driver.stream()
    out = cudafilter.apply(WithInterface(driver, WIDE, stream=handle), BLUR, engine=engine)
    driver.end(handle)
    driver.calls.clear()
    del out
    gc.collect()
    assert "synchronize" in driver.calls
    assert "free" in driver.calls


class TestOut:
    """DeviceArray."""

    @pytest.fixture
    def made(self, driver: FakeDriver, engine: CudaEngine) -> Callable[[], Any]:
        return lambda: cudafilter.apply(WithInterface(driver, ODD), BLUR, engine=engine)

    def test_interface(self, made: Callable[[], Any]) -> None:
        out = made()
        told = out.__cuda_array_interface__
        assert told["shape"] == ODD.shape
        assert told["typestr"] == "|u1"
        assert told["strides"] is None
        assert (told["stream"], told["version"]) == (LEGACY, 3)
        assert told["data"][1] is False

    @pytest.mark.parametrize("version", [None, (0, 8), (1, 1)])
    def test_capsule(self, version: tuple[int, int] | None, made: Callable[[], Any]) -> None:
        out = made()
        assert out.__dlpack_device__() == (2, 0)
        array, give_back = dlpack.taken(out.__dlpack__(stream=LEGACY, max_version=version))
        assert array.address == out.__cuda_array_interface__["data"][0]
        assert (array.shape, array.strides, array.kind) == (ODD.shape, (111, 3, 1), "u1")
        assert array.device == (2, 0)
        assert not array.read_only
        give_back()

    def test_it_lives_as_long_as_what_is_made_of_it(
        self, made: Callable[[], Any], driver: FakeDriver
    ) -> None:
        out = made()
        address = out.__cuda_array_interface__["data"][0]
        _, give_back = dlpack.taken(out.__dlpack__(stream=LEGACY))
        del out
        gc.collect()
        assert driver.device_of(address) == 0
        give_back()
        give_back()  # once is enough

    @pytest.mark.parametrize("stream", [None, 0])
    def test_another_stream_waits(
        self, stream: int | None, driver: FakeDriver, engine: CudaEngine
    ) -> None:
        mine, theirs = driver.stream(), driver.stream()
        source = WithInterface(driver, WIDE, stream=mine)
        out = cudafilter.apply(source, BLUR, engine=engine)
        _, give_back = dlpack.taken(out.__dlpack__(stream=LEGACY if stream is None else theirs))
        got = on_host(driver, out, LEGACY if stream is None else theirs)
        np.testing.assert_array_equal(got, cudafilter.apply(WIDE, BLUR, engine=engine))
        give_back()

    @pytest.mark.parametrize("more", [{"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 1)}])
    def test_refusals(self, more: dict[str, Any], made: Callable[[], Any]) -> None:
        out = made()
        with pytest.raises(BufferError, match="GPU 0"):
            out.__dlpack__(**more)

    def test_it_can_be_filtered_again(
        self, made: Callable[[], Any], driver: FakeDriver, engine: CudaEngine
    ) -> None:
        out = made()
        again = cudafilter.apply(out, BLUR, engine=engine)
        right = cudafilter.apply(cudafilter.apply(ODD, BLUR, engine=engine), BLUR, engine=engine)
        np.testing.assert_array_equal(on_host(driver, again), right)
        assert repr(again) == "<DeviceArray (20, 37, 3) uint8 on GPU 0>"


def test_the_memory_outlives_the_engine(driver: FakeDriver) -> None:
    engine = CudaEngine(variant="constant", codec="cpu")
    right = cudafilter.apply(WIDE, BLUR, engine=engine)
    out = cudafilter.apply(WithInterface(driver, WIDE), BLUR, engine=engine)
    engine.close()
    np.testing.assert_array_equal(on_host(driver, out), right)


def altered(**more: Any) -> Callable[[FakeDriver], Any]:
    """An array whose interface says *more*."""

    def make(driver: FakeDriver) -> Any:
        class Altered(WithInterface):
            @property
            def __cuda_array_interface__(self) -> dict[str, Any]:
                return super().__cuda_array_interface__ | more

        return Altered(driver, ODD)

    return make


def with_capsule(**more: Any) -> Callable[[FakeDriver], Any]:
    """An array that gives capsules, with *more* of it."""

    def make(driver: FakeDriver) -> Any:
        made = WithCapsule(driver, ODD)
        vars(made).update(more)
        return made

    return make


def refuses(*_: Any, **__: Any) -> Any:
    raise BufferError("not for you")


@pytest.mark.parametrize(
    ("array", "names", "says"),
    [
        (altered(typestr="<f8"), "pixels", "uint8, uint16, float32 in native order, not f8"),
        (altered(typestr=">u2"), "pixels", "not >u2"),
        (altered(typestr="|b1"), "pixels", "not b1"),
        (altered(shape=(20,), strides=None), "pixels", "not of shape (20,)"),
        (altered(shape=(20, 37, 5), strides=None), "pixels", "1 to 4 channels, not (20, 37, 5)"),
        (altered(shape=(0, 37, 3), strides=None), "pixels", "H >= 1"),
        (altered(strides=(-111, 3, 1)), "pixels", "only the rows may lie apart"),
        (altered(strides=(111, -3, 1)), "pixels", "strides (111, -3, 1) of the shape (20, 37, 3)"),
        (altered(strides=(111, 6, 2)), "pixels", "only the rows may lie apart"),
        (altered(strides=(0, 3, 1)), "pixels", "only the rows may lie apart"),
        (altered(mask=object()), "pixels", "with a mask"),
        (altered(data=(4096, False)), "pixels", "are said to be in a GPU's memory"),
        (with_capsule(number=1), "engine", "does not work on GPU 1, where the pixels are"),
        (with_capsule(__class__=type("Shy", (WithCapsule,), {"__dlpack__": refuses})), "pixels",
         "the memory of pixels is not to be had"),
    ],
)  # fmt: skip
def test_what_cannot_be_filtered_is_refused(
    array: Callable[[FakeDriver], Any],
    names: str,
    says: str,
    driver: FakeDriver,
    engine: CudaEngine,
) -> None:
    given = array(driver)
    if "__class__" in vars(given):
        given.__class__ = vars(given).pop("__class__")
    with pytest.raises(ParameterError) as caught:
        cudafilter.apply(given, BLUR, engine=engine)
    assert caught.value.parameter == names
    assert says in str(caught.value)
    assert not dlpack._lent


@pytest.mark.parametrize(
    ("given", "names", "says"),
    [
        ({"engine": "cpu"}, "engine", "cpu filters the host's memory; the pixels are in a GPU's"),
        ({"engine": "gpu"}, "engine", "must be one of"),
        ({"mask": WIDE}, "mask", "is for pixels in the host's memory"),
        ({"region": "0,0,2,2"}, "region", "is for pixels in the host's memory"),
        ({"feather": 1}, "feather", "is for pixels in the host's memory"),
        ({"linear": True}, "linear", "is for pixels in the host's memory"),
        ({"alpha": True}, "alpha", "alpha needs 2 or 4 channels, not 3"),
        ({"stream": "fast"}, "stream", "must be a CUDA stream or its handle"),
        ({"stream": True}, "stream", "must be a CUDA stream or its handle"),
        ({"out": ODD[:9]}, "out", "must be uint8 (20, 37, 3) as the pixels, not uint8 (9, 37, 3)"),
        ({"out": ODD.astype(np.uint16)}, "out", "not uint16 (20, 37, 3)"),
        ({"out": "read-only"}, "out", "out is read-only"),
        ({"out": "pixels"}, "out", "out overlaps the pixels"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(
    given: dict[str, Any], names: str, says: str, driver: FakeDriver, engine: CudaEngine
) -> None:
    source = WithInterface(driver, ODD)
    if isinstance(given.get("out"), str):
        out = source if given["out"] == "pixels" else WithInterface(driver, ODD)
        out.read_only = given["out"] == "read-only"
        given = {"out": out}
    elif "out" in given:
        given = {"out": WithInterface(driver, given["out"])}
    with pytest.raises(ParameterError) as caught:
        cudafilter.apply(source, BLUR, **{"engine": engine} | given)
    assert caught.value.parameter == names
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["out", "stream"])
def test_pixels_of_the_host_have_no(name: str, cpu: Engine) -> None:
    with pytest.raises(ParameterError, match="is for pixels in a GPU's memory"):
        cudafilter.apply(ODD, BLUR, engine=cpu, **{name: ODD})  # type: ignore[call-overload]


def test_differences_are_refused_by_name(driver: FakeDriver, engine: CudaEngine) -> None:
    with pytest.raises(LimitError, match="tophat takes the difference of two results on the host"):
        cudafilter.apply(WithInterface(driver, ODD), "tophat", engine=engine)


def test_an_image_that_stays_is_copied(driver: FakeDriver, engine: CudaEngine) -> None:
    out = cudafilter.apply(WithInterface(driver, ODD), "median", radius=0, engine=engine)
    np.testing.assert_array_equal(on_host(driver, out), ODD)


def test_by_name_one_engine_is_kept(driver: FakeDriver) -> None:
    from cudafilter.engines import open as opening

    source = WithInterface(driver, WIDE)
    for name in ("auto", "cuda", "auto"):
        cudafilter.apply(source, "blur", sigma=1, engine=name)
    assert len(opening._kept) == 1
    opening._kept[0].close()


def test_engines_that_hold_others_pass_it_on(driver: FakeDriver, engine: CudaEngine) -> None:
    def again() -> Engine:
        raise EngineUnavailable("no")

    source, right = WithInterface(driver, WIDE), cudafilter.apply(WIDE, BLUR, engine=engine)
    for holder in (Mended(engine, again), Fleet([engine]), Mended(Fleet([engine]), again)):
        np.testing.assert_array_equal(
            on_host(driver, cudafilter.apply(source, BLUR, engine=holder)), right
        )


def test_compare_downloads(driver: FakeDriver, engine: CudaEngine) -> None:
    source = WithInterface(driver, ODD)
    out = cudafilter.apply(source, BLUR, engine=engine)
    agreement = cudafilter.compare(out, source, BLUR)
    assert agreement.ok
    assert agreement.samples == ODD.size
    from cudafilter.engines import open as opening

    opening._kept[0].close()


def test_a_failure_leaves_nothing_at_work(driver: FakeDriver, engine: CudaEngine) -> None:
    source = WithInterface(driver, WIDE)
    driver.cuda.failing.add("launch")
    with pytest.raises(cudafilter.CudafilterError, match="launch failed"):
        cudafilter.apply(source, BLUR, engine=engine)
    driver.cuda.failing.clear()
    right = cudafilter.apply(WIDE, BLUR, engine=engine)
    np.testing.assert_array_equal(
        on_host(driver, cudafilter.apply(source, BLUR, engine=engine)), right
    )


def test_many_streams_leave_little_behind(driver: FakeDriver, engine: CudaEngine) -> None:
    right = cudafilter.apply(ODD, BLUR, engine=engine)
    for _ in range(20):
        stream = driver.stream()
        out = cudafilter.apply(WithInterface(driver, ODD, stream=stream), BLUR, engine=engine)
        np.testing.assert_array_equal(on_host(driver, out, stream), right)
        driver.end(stream)
