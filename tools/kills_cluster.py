"""A run on two nodes of Ray, whose workers and nodes are killed (SIGKILL) at random moments.

    python tools/kills_cluster.py                            20 kills during 1,000 pictures
    python tools/kills_cluster.py --kills 5 --pictures 100 --seed 7

Both nodes are on this machine. A third one, without cores, has the cluster's head and the command.
The bytes must be those of a run without a cluster, the report must have one record a picture, and
no temporary may be left. Then the command itself is killed, and run again with --existing skip: it
must do only what is missing. Exits 1 where any of that is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import cudafilter

NODES = 2
NODE_KILLS = 0.25
"""Share of the kills that end all processes of a node; the others end one worker."""
LONGEST = 300.0
"""Seconds after which a run that does not end is a fault."""
QUICK = {"health_check_period_ms": 300, "health_check_failure_threshold": 3}
"""How soon the head sees that a node is gone. Ray's own values take half a minute a kill."""
WORKER = b"ray::Hand"
COMMAND = (sys.executable, "-m", "cudafilter", "blur", "--engine", "cpu", "--check", "-q", "-r")


class Fault(Exception):
    """What kills left wrong."""


@contextmanager
def nodes(count: int = NODES, **head: Any) -> Iterator[Any]:
    """A cluster on this machine: a head without cores, and *count* nodes of one core."""
    package = str(Path(cudafilter.__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={**_node(0), "include_dashboard": False, "_system_config": QUICK, **head},
    )
    try:
        for _ in range(count):
            add(cluster)
        yield cluster
    finally:
        cluster.shutdown()


def add(cluster: Any, **more: Any) -> Any:
    """One more node of one core."""
    return cluster.add_node(**{**_node(1), **more})


def _node(cores: int) -> dict[str, Any]:
    return {"num_cpus": cores, "num_gpus": 0, "object_store_memory": 80 << 20}


def workers(cluster: Any) -> list[int]:
    """The processes on nodes of *cluster* that hold an engine, in the order of their numbers."""
    parents = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(WORKER):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(status[1]) in parents:
                    found.append(int(entry.name))
    return sorted(found)


def kill_one(cluster: Any, chance: random.Random) -> str:
    """Kill a worker or a node, which another one takes the place of. Returns which."""
    if chance.random() < NODE_KILLS:
        node = chance.choice(sorted(cluster.worker_nodes, key=lambda node: node.unique_id))
        cluster.remove_node(node, allow_graceful=False)
        add(cluster)
        return "node"
    alive = workers(cluster)
    if not alive:
        return ""
    with suppress(ProcessLookupError):
        os.kill(chance.choice(alive), signal.SIGKILL)
    return "worker"


def content(folder: Path) -> dict[str, bytes]:
    """The files in *folder* by their names, temporaries too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def lines(report: Path) -> list[dict[str, Any]]:
    """The report's records."""
    return [json.loads(line) for line in report.read_text().splitlines()]


def run(
    cluster: Any, place: Path, pictures: int, kills: int, chance: random.Random
) -> Counter[str]:
    """Kill *kills* times during a run, or fewer where it ends first. Returns what was killed.

    Raises Fault.
    """
    out, report = place / "out", place / "report"
    command = subprocess.Popen(
        [*COMMAND, place / "in", out, "--cluster", cluster.address, "--report", report],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    killed: Counter[str] = Counter()
    ends = time.monotonic() + LONGEST
    while sum(killed.values()) < kills and command.poll() is None:
        due = pictures * (sum(killed.values()) + chance.random()) / (kills + 1)
        while len(content_names(out)) < due and command.poll() is None:
            if time.monotonic() > ends:
                command.kill()
                raise Fault("the run does not end")
            time.sleep(0.002)
        if command.poll() is None and (what := kill_one(cluster, chance)):
            killed[what] += 1
    try:
        _, told = command.communicate(timeout=max(1.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        command.kill()
        raise Fault("the run does not end") from None
    if command.returncode != 0:
        raise Fault(f"the run ended with {command.returncode}: {told[-2000:]}")
    records = lines(report)
    once = Counter(record["source"] for record in records)
    if len(once) != pictures or set(once.values()) != {1}:
        raise Fault(f"{len(records)} records of {len(once)} pictures")
    if any(record["status"] != "done" for record in records):
        raise Fault("a picture was not done")
    return killed


def content_names(folder: Path) -> list[str]:
    """The names of whole files in *folder*."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def kill_command(cluster: Any, place: Path, pictures: int, chance: random.Random) -> int:
    """Kill the command itself, run it again with --existing skip, and return how many pictures the
    first one had done. Raises Fault."""
    out, report = place / "out", place / "report"
    words = [*COMMAND, place / "in", out, "--cluster", cluster.address, "--existing", "skip"]
    command = subprocess.Popen(words)
    due = chance.uniform(0.1, 0.9) * pictures
    while len(content_names(out)) < due and command.poll() is None:
        time.sleep(0.002)
    command.kill()
    command.wait()
    ends = time.monotonic() + 30
    while workers(cluster) and time.monotonic() < ends:  # the cluster ends them
        time.sleep(0.01)
    done = {name: (out / name).stat().st_mtime_ns for name in content_names(out)}
    again = subprocess.run([*words, "--report", report], timeout=LONGEST, check=False)
    if again.returncode != 0:
        raise Fault(f"the second run ended with {again.returncode}")
    told = Counter(record["status"] for record in lines(report))
    if told != {"skipped": len(done), "done": pictures - len(done)}:
        raise Fault(f"of {pictures} pictures {len(done)} were done, and the second run has {told}")
    if any((out / name).stat().st_mtime_ns != time for name, time in done.items()):
        raise Fault("a picture was done twice")
    return len(done)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill as *arguments* say; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="cudafilter-kills-") as folder, nodes() as cluster:
        place = Path(folder)
        (place / "in").mkdir()
        noise = np.random.default_rng(0)
        for n in range(given.pictures):
            pixels = noise.integers(0, 256, (200, 300, 3), np.uint8)
            Image.fromarray(pixels).save(place / "in" / f"{n}.bmp")
        subprocess.run([*COMMAND, place / "in", place / "calm"], check=True)
        expected = content(place / "calm")
        try:
            killed: Counter[str] = Counter()
            runs, started = 0, time.monotonic()
            while (left := given.kills - sum(killed.values())) > 0:
                runs += 1
                killed += run(cluster, place, given.pictures, left, chance)
                if content(place / "out") != expected:
                    raise Fault("the outputs are not those of a calm run, or a temporary is left")
                shutil.rmtree(place / "out")
                (place / "report").unlink()
            seconds = time.monotonic() - started
            first = kill_command(cluster, place, given.pictures, chance)
            if content(place / "out") != expected:
                raise Fault("after the command was killed, the outputs are not those of a calm run")
        except Fault as fault:
            print(f"cluster: FAULT: {fault}", flush=True)
            return 1
    print(
        f"cluster: {killed['worker']} workers and {killed['node']} nodes killed during"
        f" {runs} x {given.pictures:,} pictures, {seconds:.1f} s: the same bytes, one record"
        f" a picture, no temporary; the command killed after {first}: the rest done by the next one"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
