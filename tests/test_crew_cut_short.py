"""A run that Ctrl-C, a full disk or a report ends: what is there is whole."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cudafilter import images
from cudafilter.jobs import crew
from cudafilter.jobs.plan import Job, make_plan
from cudafilter.jobs.record import Record
from cudafilter.jobs.waiting import Gate
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.pixels import Pixels
from cudafilter.stores import local
from many_images import BLUR, StandIn, folder_jobs, photos, run

__all__ = ["photos"]


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
            crew.run(
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
        original = local.write_whole
        begun = threading.Event()

        def write_slowly(target: local.Target, data: bytes, **given: Any) -> tuple[str, ...]:
            begun.set()
            time.sleep(0.3)
            return original(target, data, **given)

        def look_slowly(image: Any, format: str) -> tuple[str, ...]:
            time.sleep(0.05)
            return ()

        monkeypatch.setattr(local, "write_whole", write_slowly)
        monkeypatch.setattr(images, "lost_metadata", look_slowly)
        seen: list[Record] = []

        def interrupt(record: Record) -> None:
            seen.append(record)
            if record.status == "skipped":
                begun.wait(5)
                raise KeyboardInterrupt

        jobs = [Job(photos / "0.png", Path("x.png"), "png", skip=True), *folder_jobs()[1:2]]
        with pytest.raises(KeyboardInterrupt):
            crew.run(jobs, StandIn, BLUR, Border(), Settings(), interrupt, threads=2)
        Image.open("out/1.png").load()
        assert [record.status for record in seen] == ["skipped", "done"]
        assert not list(Path("out").glob(".*"))

    def test_a_second_ctrl_c_cuts_no_write_short(self) -> None:
        gate = Gate()
        begun, ended = threading.Event(), threading.Event()

        def write() -> None:
            with gate.passing():
                begun.set()
                time.sleep(0.3)
                ended.set()

        writer = threading.Thread(target=write)
        writer.start()
        begun.wait(5)
        again = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
        again.start()
        gate.close()
        assert ended.is_set()
        writer.join()

    def test_a_report_that_fails_stops_the_run(self, photos: Path) -> None:
        def full(record: Record) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            crew.run(folder_jobs(), StandIn, BLUR, Border(), Settings(), full, threads=1)
