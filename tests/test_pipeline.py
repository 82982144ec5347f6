"""Many images through one engine: what is written, what is told, and what happens when it fails."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import agreement
from cudafilter import images, pipeline, workload
from cudafilter.borders import Border
from cudafilter.engines import Engine, Result
from cudafilter.engines.cuda.jpeg import JpegPath, JpegResult, NotTaken
from cudafilter.errors import UNEXPECTED, UNEXPECTED_HINT, EngineUnavailable, LimitError
from cudafilter.filter import Filter, make
from cudafilter.gates import Saves
from cudafilter.pipeline import Settings
from cudafilter.pixels import Pixels
from cudafilter.plan import Job, make_plan
from cudafilter.record import Record
from cudafilter.stores import local

BLUR = make("blur", sigma=1)


class StandIn(agreement.StandIn):
    """An engine that does with the pixels what a test wants."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        do: Callable[[Pixels], Pixels] = lambda pixels: pixels,
        parallel: int = 0,
        jpeg: JpegPath | None = None,
    ) -> None:
        self._do = do
        self.overwrites: list[bool] = []
        self.parallel = parallel
        self.jpeg = jpeg

    def run(
        self,
        pixels: Pixels,
        filter: Filter,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
    ) -> Result:
        self.overwrites.append(overwrite)
        return Result(self._do(pixels), {"upload": 0.25, "kernel": 0.5}, self.notes)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pictures in a folder, which is the current one's ``in``."""
    monkeypatch.chdir(tmp_path)
    folder = Path("in")
    folder.mkdir()
    rng = np.random.default_rng(2)
    for n in range(6):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return folder


def run(
    jobs: Sequence[Job],
    engine: Engine,
    settings: Settings = Settings(),  # noqa: B008
    **extra: Any,
) -> dict[str, Record]:
    records: dict[str, Record] = {}
    pipeline.run(
        jobs, lambda: engine, BLUR, Border(), settings,
        lambda r: records.update({r.source: r}), **extra,
    )  # fmt: skip
    return records


def folder_jobs(**options: Any) -> Sequence[Job]:
    return make_plan(["in"], "out", recursive=True, **options).jobs


@pytest.mark.parametrize("threads", [1, 4])
def test_every_image_is_what_the_engine_makes_of_it(
    photos: Path, cpu: Engine, threads: int
) -> None:
    records = run(folder_jobs(), cpu, threads=threads)
    assert {r.status for r in records.values()} == {"done"}
    for path in photos.iterdir():
        expected = cpu.run(np.asarray(Image.open(path)), BLUR).pixels
        assert np.array_equal(np.asarray(Image.open(Path("out") / path.name)), expected)


def test_a_record_tells_all_of_an_image(photos: Path, cpu: Engine) -> None:
    record = run(folder_jobs()[:1], cpu, Settings(check=True))["in/0.png"]
    assert record.destination == "out/0.png"
    assert (record.width, record.height, record.channels, record.dtype) == (30, 20, 3, "uint8")
    assert record.bytes_in == Path("in/0.png").stat().st_size
    assert record.bytes_out == Path("out/0.png").stat().st_size
    assert list(record.seconds) == ["read", "decode", "run", "check", "encode", "write"]
    assert record.engine == cpu.title
    assert record.agreement is not None
    assert record.agreement.ok
    data = json.loads(json.dumps(record.as_json(), allow_nan=False))
    assert data["agreement"]["exact_share"] == record.agreement.exact_share
    assert data["error"] is None


def test_gray_is_made_before_the_filter(photos: Path, cpu: Engine) -> None:
    record = run(folder_jobs()[:1], cpu, Settings(gray=True))["in/0.png"]
    assert record.channels == 1
    assert Image.open("out/0.png").mode == "L"


def test_existing_outputs_are_skipped_untouched(photos: Path, cpu: Engine) -> None:
    Path("out").mkdir()
    Path("out/2.png").write_bytes(b"mine")
    records = run(folder_jobs(existing="skip"), cpu)
    assert records["in/2.png"].status == "skipped"
    assert Path("out/2.png").read_bytes() == b"mine"
    assert sum(r.status == "done" for r in records.values()) == 5


def test_a_broken_image_fails_alone(photos: Path, cpu: Engine) -> None:
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
    (photos / "3.png").write_bytes(b"")
    records = run(folder_jobs(), cpu)
    assert {s for s, r in records.items() if r.status == "failed"} == {"in/1.png", "in/3.png"}
    for name in ("1.png", "3.png"):
        error = records[f"in/{name}"].error
        assert error
        assert "in/" not in error, "the path is told once, by the reporter"
        assert not Path("out", name).exists()
    assert len(list(Path("out").iterdir())) == 4


@pytest.mark.parametrize(
    ("raised", "told", "hint"),
    [
        (LimitError("1 GiB asked, 1 MiB there", hint="less"), "1 GiB asked, 1 MiB there", "less"),
        (MemoryError(), "not enough memory for this image", None),
        (OSError(28, "No space left on device"), "No space left on device", None),
        (ZeroDivisionError("by\nzero"), UNEXPECTED, UNEXPECTED_HINT),
    ],
)
def test_an_engine_that_fails_fails_one_image(
    photos: Path, raised: Exception, told: str, hint: str | None
) -> None:
    calls = iter(range(100))

    def fail_once(pixels: Pixels) -> Pixels:
        if next(calls) == 0:
            raise raised
        return pixels

    records = run(folder_jobs(), StandIn(fail_once), threads=1)
    failed = [r for r in records.values() if r.status == "failed"]
    assert [(r.error, r.hint) for r in failed] == [(told, hint)]
    assert type(raised).__name__ in str(failed[0].traceback)
    assert "traceback" not in failed[0].as_json()
    assert not Path(failed[0].destination).exists()
    assert len(list(Path("out").iterdir())) == 5


@pytest.mark.parametrize("lie", ["one sample", "all", "nothing done", "another shape"])
def test_a_result_that_disagrees_is_not_written(photos: Path, cpu: Engine, lie: str) -> None:
    def run_wrongly(pixels: Pixels) -> Pixels:
        out = cpu.run(pixels, BLUR).pixels
        if lie == "one sample":
            out[7, 5, 1] ^= 64
        elif lie == "all":
            out = 255 - out
        elif lie == "nothing done":
            out = pixels
        else:
            out = out[:-1]
        return out

    jobs = folder_jobs()[:1]
    record = run(jobs, StandIn(run_wrongly), Settings(check=True))["in/0.png"]
    assert record.status == "failed"
    assert not Path("out").exists()
    if lie == "one sample":
        assert record.agreement is not None
        assert record.agreement.worst == (5, 7, 1)
        assert "x=5 y=7 channel=1" in str(record.error)
    if lie == "all":
        Path("out").mkdir()
        Path("out/0.png").write_bytes(b"mine")
        run(jobs, StandIn(run_wrongly), Settings(check=True))
        assert Path("out/0.png").read_bytes() == b"mine"


@pytest.mark.parametrize("check", [False, True])
def test_pixels_may_be_overwritten_unless_they_are_compared(
    photos: Path, cpu: Engine, check: bool
) -> None:
    engine = StandIn(lambda pixels: cpu.run(pixels, BLUR).pixels)
    run(folder_jobs(), engine, Settings(check=check))
    assert engine.overwrites == [not check] * 6


def test_metadata_that_the_format_cannot_hold_is_told(photos: Path, cpu: Engine) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    Image.fromarray(pixels).save("in/exif.jpg", exif=exif)
    record = run([Job(Path("in/exif.jpg"), Path("exif.bmp"), "bmp")], cpu)["in/exif.jpg"]
    assert record.status == "done"
    assert any(note.startswith("BMP does not hold") for note in record.notes)


def test_an_extension_that_holds_less_than_its_format_is_minded(photos: Path, cpu: Engine) -> None:
    jobs = make_plan(["in/0.png"], "x.pgm").jobs
    assert "PGM holds no colour" in str(run(jobs, cpu)["in/0.png"].error)
    assert not Path("x.pgm").exists()


def test_settings_that_say_nothing_to_a_format_are_told_of_it_alone(
    photos: Path, cpu: Engine
) -> None:
    jobs = [Job(photos / "0.png", Path(f"0.{ext}"), ext) for ext in ("png", "jpeg")]
    notes = {}
    settings = Settings(quality=80)
    pipeline.run(
        jobs, lambda: cpu, BLUR, Border(), settings,
        lambda r: notes.update({r.destination: r.notes}),
    )  # fmt: skip
    assert notes == {"0.png": ("the quality is not used: PNG is lossless",), "0.jpeg": ()}


def test_what_the_engine_tells_of_an_image_is_told(photos: Path) -> None:
    engine = StandIn()
    engine.notes = ("GPU 1 failed and is left out",)
    record = run(folder_jobs()[:1], engine)["in/0.png"]
    assert record.notes == engine.notes
    assert record.engine_seconds == {"upload": 0.25, "kernel": 0.5}
    assert record.as_json()["engine_seconds"] == {"upload": 0.25, "kernel": 0.5}


class TestOpening:
    def test_the_first_images_are_decoded_meanwhile(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded = threading.Event()
        original = images.load

        def load(*arguments: Any, **options: Any) -> images.Image:
            image = original(*arguments, **options)
            decoded.set()
            return image

        def open_slowly() -> Engine:
            assert decoded.wait(5), "an image waits for the engine before it is decoded"
            return StandIn()

        monkeypatch.setattr(images, "load", load)
        seen: list[Record] = []
        pipeline.run(folder_jobs(), open_slowly, BLUR, Border(), Settings(), seen.append)
        assert [record.status for record in seen] == ["done"] * 6

    def test_no_record_comes_before_the_engine(self, photos: Path) -> None:
        for path in photos.iterdir():
            path.write_bytes(b"no image")
        seen: list[Record] = []

        def open_slowly() -> Engine:
            time.sleep(0.1)
            assert not seen
            return StandIn()

        pipeline.run(folder_jobs(), open_slowly, BLUR, Border(), Settings(), seen.append)
        assert [record.status for record in seen] == ["failed"] * 6

    def test_an_engine_that_does_not_open_ends_the_run(self, photos: Path) -> None:
        def fail() -> Engine:
            time.sleep(0.05)
            raise EngineUnavailable("no driver")

        seen: list[Record] = []
        with pytest.raises(EngineUnavailable, match="no driver"):
            pipeline.run(folder_jobs(), fail, BLUR, Border(), Settings(), seen.append)
        assert_no_thread_left()
        assert not seen
        assert not Path("out").exists()


def assert_no_thread_left() -> None:
    for thread in threading.enumerate():
        if thread.name == "image":
            thread.join(5)
            assert not thread.is_alive()


class TestSideBySide:
    """Whatever stage is slow, images wait in it side by side, and come out the same."""

    @pytest.mark.parametrize("slow", ["load", "encode", "write", "engine"])
    def test_a_slow_stage_is_entered_by_as_many_as_there_are_threads(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, slow: str
    ) -> None:
        together = threading.Barrier(3, timeout=10)

        def slowed(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                together.wait()  # breaks unless three are in at once
                return original(*arguments, **named)

            return call

        engine = StandIn()
        if slow == "engine":
            engine = StandIn(slowed(lambda pixels: pixels))
        else:
            module = local if slow == "write" else images
            monkeypatch.setattr(module, slow, slowed(getattr(module, slow)))
        records = run(folder_jobs(), engine, threads=3)
        assert [record.error for record in records.values()] == [None] * 6

    @pytest.mark.parametrize(
        ("cores", "waiting", "together"),
        [(1, 0, 1), (2, 0, 2), (8, 0, 8), (1, 3, 3), (2, 4, 4), (8, 3, 8), (16, 4, 16)],
    )
    def test_images_in_work_are_as_many_as_keep_cores_and_engine_busy(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, cores: int, waiting: int, together: int
    ) -> None:
        monkeypatch.setattr(pipeline, "cores", lambda: cores)
        inside, most = 0, 0
        changed = threading.Condition()

        def wait(pixels: Pixels) -> Pixels:
            nonlocal inside, most
            with changed:
                inside += 1
                most = max(most, inside)
                changed.notify_all()
                assert changed.wait_for(lambda: most >= together, timeout=10)
            time.sleep(0.02)  # for one too many to come
            with changed:
                inside -= 1
            return pixels

        jobs = [Job(photos / f"{n % 6}.png", Path(f"{n}.png"), "png") for n in range(2 * together)]
        seen: list[Record] = []
        engine = StandIn(wait, parallel=waiting)
        pipeline.run(jobs, lambda: engine, BLUR, Border(), Settings(), seen.append)
        assert [record.error for record in seen] == [None] * len(jobs)
        assert most == together

    def test_outputs_do_not_depend_on_who_is_first(self, photos: Path) -> None:
        rng = np.random.default_rng(4)

        def dawdle(pixels: Pixels) -> Pixels:
            time.sleep(rng.uniform(0, 0.02))
            return 255 - pixels

        written = {}
        for threads in (1, 5):
            records = run(folder_jobs(), StandIn(dawdle), threads=threads)
            assert len(records) == 6
            written[threads] = [path.read_bytes() for path in sorted(Path("out").iterdir())]
        assert written[1] == written[5]

    def test_jobs_may_come_while_it_runs(self, photos: Path) -> None:
        seen: list[Record] = []
        arrived = threading.Event()

        def arriving() -> Iterator[Job]:
            yield Job(photos / "0.png", Path("0.png"), "png")
            assert arrived.wait(5), "the first image waits for the second one to come"
            yield Job(photos / "1.png", Path("1.png"), "png")

        def tell(record: Record) -> None:
            seen.append(record)
            arrived.set()

        pipeline.run(arriving(), StandIn, BLUR, Border(), Settings(), tell, threads=2)
        assert [record.destination for record in seen] == ["0.png", "1.png"]

    def test_a_source_of_jobs_that_fails_ends_the_run(self, photos: Path) -> None:
        def failing() -> Iterator[Job]:
            yield Job(photos / "0.png", Path("0.png"), "png")
            raise OSError("the folder has gone")

        with pytest.raises(OSError, match="has gone"):
            pipeline.run(failing(), StandIn, BLUR, Border(), Settings(), lambda r: None)


class TestMemory:
    def test_images_alive_are_as_many_as_threads(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alive, most = 0, 0
        lock = threading.RLock()

        def gone() -> None:
            nonlocal alive
            with lock:
                alive -= 1

        def load(*arguments: Any, **options: Any) -> images.Image:
            nonlocal alive, most
            image = original(*arguments, **options)
            with lock:
                alive += 1
                most = max(most, alive)
            weakref.finalize(image.pixels, gone)
            return image

        def copy_slowly(pixels: Pixels) -> Pixels:
            time.sleep(0.001)
            return pixels.copy()

        original = images.load
        monkeypatch.setattr(images, "load", load)
        jobs = [Job(photos / f"{n % 6}.png", Path(f"{n}.png"), "png") for n in range(300)]
        pipeline.run(
            jobs, lambda: StandIn(copy_slowly), BLUR, Border(), Settings(),
            lambda record: None, threads=3,
        )  # fmt: skip
        assert 1 < most <= 3
        assert alive == 0

    def test_does_not_grow_with_the_queue(self, photos: Path) -> None:
        def peak(count: int) -> int:
            jobs = (Job(Path("large.png"), Path("x.png"), "png") for _ in range(count))
            tracemalloc.start()
            pipeline.run(jobs, StandIn, BLUR, Border(), Settings(), lambda record: None, threads=1)
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return most

        Image.new("RGB", (400, 300)).save("large.png")
        peak(10)  # what is imported and cached on first use
        assert peak(400) < 1.5 * peak(20)

    def test_a_queue_of_ten_thousand_is_small(self, photos: Path) -> None:
        tracemalloc.start()
        jobs = [
            Job(Path(f"photographs/of/a/day/{n:08}.jpg"), Path(f"out/of/a/day/{n:08}.jpg"), "jpeg")
            for n in range(10_000)
        ]
        each = tracemalloc.get_traced_memory()[0] / len(jobs)
        tracemalloc.stop()
        assert each < 1000, "bytes a job: 10 MB at most, as one image in work takes"

    def test_large_images_wait_for_room(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = 20 * 30 * 3 * workload.COPIES
        inside, most = 0, 0
        lock = threading.Lock()

        def count(pixels: Pixels) -> Pixels:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1
            return pixels

        monkeypatch.setattr(workload, "memory_for_images", lambda: 2 * one)
        monkeypatch.setattr(pipeline, "cores", lambda: 6)
        assert [r.error for r in run(folder_jobs(), StandIn(count)).values()] == [None] * 6
        assert most == 2
        most = 0
        monkeypatch.setattr(workload, "memory_for_images", lambda: one // 2)
        assert [r.error for r in run(folder_jobs(), StandIn(count)).values()] == [None] * 6
        assert most == 1, "an image larger than all the room goes alone"


class TestFullDisk:
    """What does not fit is failed, whole or not at all; what does fit is there."""

    def assert_all_or_nothing(self, records: dict[str, Record], reason: str) -> None:
        assert {record.status for record in records.values()} == {"done", "failed"}
        for record in records.values():
            if record.status == "done":
                Image.open(record.destination).load()
            else:
                assert reason in str(record.error)
                assert not Path(record.destination).exists()
        folder = Path(next(iter(records.values())).destination).parent
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]

    def test_that_the_writer_meets(self, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        original = os.replace
        calls = iter(range(100))

        def replace(source: Path, target: Path) -> None:
            if next(calls) % 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(source, target)

        monkeypatch.setattr(os, "replace", replace)
        self.assert_all_or_nothing(run(folder_jobs(), StandIn()), "No space left on device")

    def test_that_the_system_has(self, photos: Path) -> None:
        Path("small").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", "small"]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a file system cannot be mounted here")
        try:
            jobs = make_plan(["in"], "small/", recursive=True).jobs
            self.assert_all_or_nothing(run(jobs, StandIn()), "No space left on device")
        finally:
            subprocess.run(["umount", "small"], check=True)


class TestEngineCodec:
    """JPEGs that become JPEGs are offered to the engine; the host does those it does not take."""

    class Codec:
        parallel = 1

        def __init__(self) -> None:
            self.offered: list[bytes] = []

        def filter(
            self, data: bytes, filter: Filter, border: Border, *, gray: bool, quality: int | None
        ) -> JpegResult:
            self.offered.append(data)
            if b"Adobe" in data:
                raise NotTaken("CMYK")
            return JpegResult(b"filtered", 30, 20, 3, "RGB", ("a note",), {"kernel": 0.5})

    @pytest.fixture
    def mixed(self, photos: Path) -> Sequence[Job]:
        Image.new("RGB", (30, 20), "teal").save(photos / "rgb.jpg")
        Image.new("CMYK", (30, 20)).save(photos / "cmyk.jpg")
        return folder_jobs()

    def test_takes_what_it_can_and_the_rest_is_noted(self, mixed: Sequence[Job]) -> None:
        codec = self.Codec()
        records = run(mixed, StandIn(jpeg=codec), Settings(engine_codec=True))
        assert {record.status for record in records.values()} == {"done"}
        assert sorted(codec.offered) == sorted(Path(f"in/{n}.jpg").read_bytes() for n in (
            "rgb", "cmyk"))  # fmt: skip
        taken, left = records["in/rgb.jpg"], records["in/cmyk.jpg"]
        assert Path("out/rgb.jpg").read_bytes() == b"filtered"
        assert (taken.width, taken.height, taken.channels, taken.colour) == (30, 20, 3, "RGB")
        assert (taken.engine_seconds, taken.notes) == ({"kernel": 0.5}, ("a note",))
        assert list(taken.seconds) == ["read", "run", "write"]
        assert Image.open("out/cmyk.jpg").mode == "CMYK"
        assert left.notes == ("decoded and encoded on the CPU: CMYK",)
        assert list(left.seconds) == ["read", "run", "decode", "encode", "write"]

    @pytest.mark.parametrize("settings", [Settings(), Settings(engine_codec=True, check=True)])
    def test_is_not_asked(self, mixed: Sequence[Job], cpu: Engine, settings: Settings) -> None:
        codec = self.Codec()
        jobs = [job for job in mixed if job.format == "jpeg"]
        engine = StandIn(lambda pixels: cpu.run(pixels, BLUR).pixels, jpeg=codec)
        records = run(jobs, engine, settings)
        assert [record.error for record in records.values()] == [None, None]
        assert not codec.offered


class TestStreams:
    @pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "PPM", "WEBP"])
    def test_keep_the_format_of_the_input(self, cpu: Engine, format: str) -> None:
        data = io.BytesIO()
        Image.new("RGB", (9, 7), "teal").save(data, format)
        out = io.BytesIO()
        data.seek(0)
        records = run([Job(None, None, None)], cpu, stdin=data, stdout=out)
        assert records["-"].error is None
        assert Image.open(out).format == format
        assert Image.open(out).size == (9, 7)

    def test_are_held_to_a_format_as_files_are(self, cpu: Engine) -> None:
        data = io.BytesIO()
        Image.new("RGB", (9, 7), "teal").save(data, "PNG")
        data.seek(0)
        out = io.BytesIO()
        jobs = make_plan(["-"], "-", format="pgm").jobs
        assert "PGM holds no colour" in str(run(jobs, cpu, stdin=data, stdout=out)["-"].error)
        assert out.getvalue() == b""

    @pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
    def test_rubbish_is_an_error_and_writes_nothing(self, cpu: Engine, data: bytes) -> None:
        out = io.BytesIO()
        record = run([Job(None, None, "png")], cpu, stdin=io.BytesIO(data), stdout=out)["-"]
        assert record.status == "failed"
        assert out.getvalue() == b""

    def test_a_pipe_that_takes_a_part_at_a_time_gets_all(self, cpu: Engine) -> None:
        class Narrow(io.BytesIO):
            def write(self, data: Any) -> int:
                return super().write(data[:100])

        data, out = io.BytesIO(), Narrow()
        Image.effect_noise((64, 64), 90).save(data, "PNG")
        data.seek(0)
        run([Job(None, None, None)], cpu, stdin=data, stdout=out)
        Image.open(io.BytesIO(out.getvalue())).load()

    def test_a_reader_that_has_gone_ends_the_run(self, cpu: Engine) -> None:
        class Gone(io.BytesIO):
            def write(self, data: Any) -> int:
                raise BrokenPipeError

        data = io.BytesIO()
        Image.new("L", (9, 7)).save(data, "PNG")
        data.seek(0)
        with pytest.raises(BrokenPipeError):
            run([Job(None, None, None)], cpu, stdin=data, stdout=Gone())


class TestInterruption:
    @pytest.fixture
    def released(self) -> Iterator[threading.Event]:
        """Lets an engine go on that the test holds up."""
        event = threading.Event()
        yield event
        event.set()

    def test_what_is_done_stays_and_nothing_more_is_written(
        self, photos: Path, released: threading.Event
    ) -> None:
        calls = iter(range(100))

        def hold_the_third(pixels: Pixels) -> Pixels:
            if next(calls) == 2:
                released.wait(20)
            return pixels

        seen: list[Record] = []

        def interrupt_after_two(record: Record) -> None:
            seen.append(record)
            if len(seen) == 2:
                raise KeyboardInterrupt

        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(
                folder_jobs(), lambda: StandIn(hold_the_third), BLUR, Border(), Settings(),
                interrupt_after_two, threads=1,
            )  # fmt: skip
        assert time.monotonic() - started < 5, "it does not wait for the engine"
        released.set()
        time.sleep(0.2)
        assert sorted(p.name for p in Path("out").iterdir()) == ["0.png", "1.png"]

    def test_a_write_in_progress_is_finished(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = local.write
        begun = threading.Event()

        def write_slowly(target: local.Target, data: bytes, **given: Any) -> tuple[str, ...]:
            begun.set()
            time.sleep(0.3)
            return original(target, data, **given)

        def look_slowly(image: Any, format: str) -> tuple[str, ...]:
            time.sleep(0.05)
            return ()

        monkeypatch.setattr(local, "write", write_slowly)
        monkeypatch.setattr(images, "lost_metadata", look_slowly)
        seen: list[Record] = []

        def interrupt(record: Record) -> None:
            seen.append(record)
            if record.status == "skipped":
                begun.wait(5)
                raise KeyboardInterrupt

        jobs = [Job(photos / "0.png", Path("x.png"), "png", skip=True), *folder_jobs()[1:2]]
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(jobs, StandIn, BLUR, Border(), Settings(), interrupt, threads=2)
        Image.open("out/1.png").load()
        assert [record.status for record in seen] == ["skipped", "done"]
        assert not list(Path("out").glob(".*"))

    def test_a_second_ctrl_c_cuts_no_write_short(self) -> None:
        saves = Saves()
        begun, ended = threading.Event(), threading.Event()

        def write() -> None:
            with saves.one():
                begun.set()
                time.sleep(0.3)
                ended.set()

        writer = threading.Thread(target=write)
        writer.start()
        begun.wait(5)
        again = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
        again.start()
        saves.shut()
        assert ended.is_set()
        writer.join()

    def test_a_report_that_fails_stops_the_run(self, photos: Path) -> None:
        def full(record: Record) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            pipeline.run(folder_jobs(), StandIn, BLUR, Border(), Settings(), full, threads=1)
