"""Many images through one engine: what is written, what is told, and what happens when it fails."""

from __future__ import annotations

import io
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cudafilter import images, pipeline
from cudafilter.borders import Border
from cudafilter.engines import Engine
from cudafilter.errors import LimitError
from cudafilter.filter import Filter, make
from cudafilter.pipeline import Record, Settings
from cudafilter.pixels import Pixels
from cudafilter.plan import Job, make_plan

BLUR = make("blur", sigma=1)


class StandIn:
    """An engine that does with the pixels what a test wants."""

    name = "cpu"
    title = "stand-in"
    note: str | None = None

    def __init__(self, do: Callable[[Pixels], Pixels]) -> None:
        self._do = do

    def run(
        self, pixels: Pixels, filter: Filter, border: Border = Border(), alpha: bool = False
    ) -> Pixels:
        return self._do(pixels)

    def close(self) -> None:
        pass


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
        jobs, engine, BLUR, Border(), settings, lambda r: records.update({r.source: r}), **extra
    )
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
        expected = cpu.run(np.asarray(Image.open(path)), BLUR)
        assert np.array_equal(np.asarray(Image.open(Path("out") / path.name)), expected)


def test_a_record_tells_all_of_an_image(photos: Path, cpu: Engine) -> None:
    record = run(folder_jobs()[:1], cpu, Settings(check=True))["in/0.png"]
    assert record.destination == "out/0.png"
    assert (record.width, record.height, record.channels, record.dtype) == (30, 20, 3, "uint8")
    assert record.bytes_in == Path("in/0.png").stat().st_size
    assert record.bytes_out == Path("out/0.png").stat().st_size
    assert list(record.seconds) == ["load", "run", "check", "save"]
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
    ("raised", "told"),
    [
        (LimitError("1 GiB asked, 1 MiB there", hint="less"), "1 GiB asked, 1 MiB there"),
        (MemoryError(), "not enough memory for this image"),
        (ZeroDivisionError("by\nzero"), "ZeroDivisionError: by zero"),
    ],
)
def test_an_engine_that_fails_fails_one_image(photos: Path, raised: Exception, told: str) -> None:
    calls = iter(range(100))

    def fail_once(pixels: Pixels) -> Pixels:
        if next(calls) == 0:
            raise raised
        return pixels

    records = run(folder_jobs(), StandIn(fail_once), threads=1)
    failed = [r for r in records.values() if r.status == "failed"]
    assert [(r.error, r.hint) for r in failed] == [(told, getattr(raised, "hint", None))]
    assert type(raised).__name__ in str(failed[0].traceback)
    assert "traceback" not in failed[0].as_json()
    assert not Path(failed[0].destination).exists()
    assert len(list(Path("out").iterdir())) == 5


@pytest.mark.parametrize("lie", ["one sample", "all", "nothing done", "another shape"])
def test_a_result_that_disagrees_is_not_written(photos: Path, cpu: Engine, lie: str) -> None:
    def run_wrongly(pixels: Pixels) -> Pixels:
        out = cpu.run(pixels, BLUR)
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
        jobs, cpu, BLUR, Border(), settings, lambda r: notes.update({r.destination: r.notes})
    )
    assert notes == {"0.png": ("the quality is not used: PNG is lossless",), "0.jpeg": ()}


def test_memory_is_bounded_by_the_threads(photos: Path) -> None:
    held, most = 0, 0
    lock = threading.Lock()

    def load(path: Path) -> Any:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.005)
        return original(path)

    def let_go(pixels: Pixels) -> Pixels:
        nonlocal held
        with lock:
            held -= 1
        return pixels

    original = images.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load", load)
        jobs = [Job(photos / f"{n % 6}.png", Path(f"{n}.png"), "png") for n in range(40)]
        run(jobs, StandIn(let_go), threads=3)
    assert 1 < most <= 3


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
                folder_jobs(), StandIn(hold_the_third), BLUR, Border(), Settings(),
                interrupt_after_two, threads=1,
            )  # fmt: skip
        assert time.monotonic() - started < 5, "it does not wait for the engine"
        released.set()
        time.sleep(0.2)
        assert sorted(p.name for p in Path("out").iterdir()) == ["0.png", "1.png"]

    def test_a_write_in_progress_is_finished(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = images.write_atomically
        begun = threading.Event()

        def write_slowly(path: Path, data: bytes) -> None:
            begun.set()
            time.sleep(0.3)
            original(path, data)

        def look_slowly(image: Any, format: str) -> tuple[str, ...]:
            time.sleep(0.05)
            return ()

        monkeypatch.setattr(images, "write_atomically", write_slowly)
        monkeypatch.setattr(images, "lost_metadata", look_slowly)
        seen: list[Record] = []

        def interrupt(record: Record) -> None:
            seen.append(record)
            if record.status == "skipped":
                begun.wait(5)
                raise KeyboardInterrupt

        jobs = [Job(photos / "0.png", Path("x.png"), "png", skip=True), *folder_jobs()[1:2]]
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(
                jobs, StandIn(lambda p: p), BLUR, Border(), Settings(), interrupt, threads=2
            )
        Image.open("out/1.png").load()
        assert [record.status for record in seen] == ["skipped", "done"]
        assert not list(Path("out").glob(".*"))

    def test_a_second_ctrl_c_cuts_no_write_short(self) -> None:
        saves = pipeline._Saves()
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
            pipeline.run(
                folder_jobs(), StandIn(lambda p: p), BLUR, Border(), Settings(), full, threads=1
            )
