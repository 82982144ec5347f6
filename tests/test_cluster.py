"""--cluster with real nodes of Ray: what one machine would do, whatever happens to workers."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from command_line import ENVIRONMENT, PROGRAM, cli, folder, picture, snapshot
from ray_nodes import HAS_RAY, KILLER, NO_RAY, UNSHARED, two_nodes

__all__ = ["folder"]

pytestmark = [
    pytest.mark.skipif(not HAS_RAY, reason=NO_RAY),
    pytest.mark.usefixtures("here"),
]

TOOL = Path(__file__).parents[1] / "tools" / "kills_cluster.py"
BLUR = ("blur", "-r", "in", "out", "--engine", "cpu")
TIMES = {"seconds", "engine_seconds", "elapsed", "start", "end", "job_start", "engine"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with two_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


def begun(cluster: Any, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *words, "--cluster", cluster.address], text=True,
        env={**os.environ, **ENVIRONMENT, "PYTHONSAFEPATH": "1"},  # not of those on the nodes
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def on(cluster: Any, *words: str) -> subprocess.CompletedProcess[str]:
    process = begun(cluster, *words)
    out, told = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, told)


def records(report: str) -> list[dict[str, Any]]:
    """The records of a *report* by their sources, without the times."""
    lines = [json.loads(line) for line in Path(report).read_text().splitlines()]
    told = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    return sorted(told, key=lambda line: str(line["source"]))


def wait_for(count: int, pattern: str = "out/*.png") -> None:
    ends = time.monotonic() + 30
    while len(list(Path().glob(pattern))) < count:
        assert time.monotonic() < ends
        time.sleep(0.01)


def workers(cluster: Any) -> list[int]:
    import kills_cluster

    return kills_cluster.workers(cluster)


def pictures(count: int, size: tuple[int, int] = (32, 24)) -> None:
    original = picture("in/0.png", size).read_bytes()
    for n in range(1, count):
        Path(f"in/{n}.png").write_bytes(original)


class TestARun:
    def test_does_and_tells_what_one_machine_does(self, cluster: Any, folder: Path) -> None:
        here = cli(*BLUR, "--check", "--report", "here.jsonl")
        made = snapshot("out")
        Path("out").rename("before")
        there = on(cluster, *BLUR, "--check", "--report", "there.jsonl")
        assert there.returncode == here.exit_code == 1  # one is broken
        assert snapshot("out") == made
        assert records("there.jsonl") == records("here.jsonl")
        told, own = there.stderr.splitlines(), here.stderr.splitlines()
        assert told[0] == "cluster, cpu: 2 nodes, 2 workers, 2 cores"
        error = next(line for line in own if line.startswith("error: "))
        assert error in told
        assert re.match("3 done, 0 skipped, 1 failed, 1 left alone; ", told[-1])
        assert there.stdout == ""
        ends = time.monotonic() + 30
        while workers(cluster):  # nothing stays on the nodes
            assert time.monotonic() < ends
            time.sleep(0.05)

    def test_takes_masks_chains_and_what_is_there(self, cluster: Any, folder: Path) -> None:
        picture("mask.png", mode="L")
        Path("cv2.py").write_text("raise SystemExit('a module among the pictures was imported')")
        words = ("chain", "blur | sharpen", "in/a.png", "in/s/c.png", "out", "--engine", "cpu",
                 "--mask", "mask.png", "--background", "white", "--linear", "-j", "2")  # fmt: skip
        cli(*words)
        made = snapshot("out")
        Path("out/a.png").unlink()
        done = on(cluster, *words, "--existing", "skip", "--report", "-")
        assert (done.returncode, snapshot("out")) == (0, made)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert Counter(line["status"] for line in told) == {"done": 1, "skipped": 1}

    @pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
    def test_is_interrupted_as_on_one_machine(self, stop: signal.Signals, cluster: Any) -> None:
        pictures(400, (300, 300))
        process = begun(cluster, *BLUR, "--report", "r.jsonl")
        wait_for(3)
        sent = time.monotonic()
        process.send_signal(stop)
        _, told = process.communicate(timeout=20)
        assert process.returncode == 130
        assert time.monotonic() - sent < 8
        written = sorted(snapshot("out"))
        assert f"interrupted: {len(written)} of 400 images done" in told
        assert sorted(line["destination"] for line in records("r.jsonl")) == written
        assert "Traceback" not in told

    def test_has_one_worker_for_each_gpu_and_no_other(self, cluster: Any) -> None:
        import kills_cluster

        pictures(80, (400, 400))
        node = kills_cluster.add(cluster, num_gpus=2)
        try:
            done = on(cluster, *BLUR[:-2], "--check", "--report", "r.jsonl")
        finally:
            cluster.remove_node(node)
        assert done.returncode == 0
        assert done.stderr.startswith("cluster, cuda: 1 node, 2 GPUs\n")
        engines = {json.loads(line)["engine"] for line in Path("r.jsonl").read_text().splitlines()}
        assert engines == {f"a GPU that is made up: {n}" for n in (0, 1)}


class TestWorkersThatAreLost:
    def test_are_replaced_and_their_images_are_done_again(self, cluster: Any) -> None:
        pictures(60, (150, 100))
        cli(*BLUR)
        made = snapshot("out")
        Path("out").rename("before")
        process = begun(cluster, *BLUR, "--check", "--report", "r.jsonl")
        wait_for(3)
        for pid in (killed := workers(cluster)):
            os.kill(pid, signal.SIGKILL)
        out, told = process.communicate(timeout=60)
        assert process.returncode == 0
        assert snapshot("out") == made  # and no temporary
        assert [line["source"] for line in records("r.jsonl")] == sorted(
            f"in/{n}.png" for n in range(60)
        )
        assert told.count(" was lost") == len(killed) > 0
        assert out == ""
        assert "ray" not in told.lower()

    def test_a_picture_that_kills_them_fails_and_the_others_are_done(self, cluster: Any) -> None:
        pictures(12)
        picture(f"in/{KILLER}.png")
        done = on(cluster, *BLUR, "--report", "r.jsonl")
        assert done.returncode == 1
        assert f"error: in/{KILLER}.png: 2 workers were lost while they did it" in done.stderr
        told = Counter(line["status"] for line in records("r.jsonl"))
        assert told == {"done": 12, "failed": 1}
        assert sorted(snapshot("out")) == sorted(f"out/{n}.png" for n in range(12))


class TestWhatIsRefused:
    def test_files_that_a_node_does_not_have(self, cluster: Any) -> None:
        picture(f"in/{UNSHARED}.png")
        done = on(cluster, *BLUR)
        assert done.returncode == 2
        assert f"does not see {Path.cwd()}/in/{UNSHARED}.png" in done.stderr
        assert list(Path().glob("*")) == [Path("in")]

    def test_an_output_folder_that_a_node_does_not_have(self, cluster: Any) -> None:
        picture("in/a.png")
        Path(UNSHARED).mkdir()
        done = on(cluster, "blur", "-r", "in", UNSHARED, "--engine", "cpu")
        assert done.returncode == 2
        assert "does not see" in done.stderr
        assert list(Path(UNSHARED).iterdir()) == []

    def test_a_gpu_that_no_node_has(self, cluster: Any) -> None:
        picture("in/a.png")
        done = on(cluster, *BLUR[:-2], "--engine", "cuda")
        assert done.returncode == 1
        assert done.stderr == "error: the cluster has no GPU to give\n"


def test_kills_of_workers_nodes_and_the_command_lose_and_repeat_nothing() -> None:
    """tools/kills_cluster.py does 20 kills during 1,000 pictures."""
    seed = str(random.randrange(1 << 30))  # other moments each time
    done = subprocess.run(
        [sys.executable, str(TOOL), "--kills", "4", "--pictures", "160", "--seed", seed],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    assert "the same bytes, one record a picture, no temporary" in done.stdout
