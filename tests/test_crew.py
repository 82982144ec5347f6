"""Many images through one engine: what is written, and what is told."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cudafilter import images
from cudafilter.engines import Engine
from cudafilter.engines.codecs import FileJob, FileResult, NotTaken
from cudafilter.errors import UNEXPECTED, UNEXPECTED_HINT, EngineUnavailable, LimitError
from cudafilter.jobs import crew
from cudafilter.jobs.plan import Job, make_plan
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.area import Area
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.region import Region
from many_images import BLUR, StandIn, folder_jobs, photos, run

__all__ = ["photos"]


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
    record = run(folder_jobs()[:1], cpu, Settings(check="all"))["in/0.png"]
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
    record = run(jobs, StandIn(run_wrongly), Settings(check="all"))["in/0.png"]
    assert record.status == "failed"
    assert not Path("out").exists()
    if lie == "one sample":
        assert record.agreement is not None
        assert record.agreement.worst == (5, 7, 1)
        assert "x=5 y=7 channel=1" in str(record.error)
    if lie == "all":
        Path("out").mkdir()
        Path("out/0.png").write_bytes(b"mine")
        run(jobs, StandIn(run_wrongly), Settings(check="all"))
        assert Path("out/0.png").read_bytes() == b"mine"


@pytest.mark.parametrize("check", [None, "all", "quick"])
def test_pixels_may_be_overwritten_unless_they_are_compared(
    photos: Path, cpu: Engine, check: str | None
) -> None:
    engine = StandIn(lambda pixels: cpu.run(pixels, BLUR).pixels)
    run(folder_jobs(), engine, Settings(check=check))
    assert engine.overwrites == [check is None] * 6


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
    crew.run(
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
        original = images.frame_of

        def load(*arguments: Any, **options: Any) -> images.Image:
            image = original(*arguments, **options)
            decoded.set()
            return image

        def open_slowly() -> Engine:
            assert decoded.wait(5), "an image waits for the engine before it is decoded"
            return StandIn()

        monkeypatch.setattr(images, "frame_of", load)
        seen: list[Record] = []
        crew.run(folder_jobs(), open_slowly, BLUR, Border(), Settings(), seen.append)
        assert [record.status for record in seen] == ["done"] * 6

    def test_no_record_comes_before_the_engine(self, photos: Path) -> None:
        for path in photos.iterdir():
            path.write_bytes(b"no image")
        seen: list[Record] = []

        def open_slowly() -> Engine:
            time.sleep(0.1)
            assert not seen
            return StandIn()

        crew.run(folder_jobs(), open_slowly, BLUR, Border(), Settings(), seen.append)
        assert [record.status for record in seen] == ["failed"] * 6

    def test_an_engine_that_does_not_open_ends_the_run(self, photos: Path) -> None:
        def fail() -> Engine:
            time.sleep(0.05)
            raise EngineUnavailable("no driver")

        seen: list[Record] = []
        with pytest.raises(EngineUnavailable, match="no driver"):
            crew.run(folder_jobs(), fail, BLUR, Border(), Settings(), seen.append)
        assert_no_thread_left()
        assert not seen
        assert not Path("out").exists()


def assert_no_thread_left() -> None:
    for thread in threading.enumerate():
        if thread.name == "image":
            thread.join(5)
            assert not thread.is_alive()


class TestEngineCodec:
    """JPEGs that become JPEGs are offered to the engine; the host does those it does not take."""

    class Codec:
        parallel = 1

        def __init__(self) -> None:
            self.offered: list[bytes] = []

        def filter(self, job: FileJob) -> FileResult:
            self.offered.append(job.data)
            if b"Adobe" in job.data:
                raise NotTaken("CMYK")
            return FileResult(b"filtered", 30, 20, 3, "RGB", ("a note",), {"kernel": 0.5})

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

    @pytest.mark.parametrize(
        "settings",
        [
            Settings(),
            Settings(engine_codec=True, linear=True),
            Settings(engine_codec=True, area=Area(None, (Region.parsed("0,0,9,9"),))),
        ],
        ids=["unasked", "light", "area"],
    )
    def test_is_not_asked_where_it_may_not_be(
        self, mixed: Sequence[Job], cpu: Engine, settings: Settings
    ) -> None:
        codec = self.Codec()
        jobs = [job for job in mixed if job.source == Path("in/rgb.jpg")]
        engine = StandIn(lambda pixels: cpu.run(pixels, BLUR).pixels, jpeg=codec)
        records = run(jobs, engine, settings)
        assert [record.error for record in records.values()] == [None]
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
