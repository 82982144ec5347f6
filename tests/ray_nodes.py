"""Two nodes of Ray on this machine, and what their workers are made to do in tests."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from command_line import HOME

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

NO_RAY = "Ray is not installed: pip install 'cudafilter[cluster]'"
HAS_RAY = importlib.util.find_spec("ray") is not None

KILLER, UNSHARED = "killer", "unshared"
"""In a file's name: who filters it is killed; no node has it. GPUs are made up, too: they are the
CPU engine."""

_WORKERS = f"""
import os, sys
if any("default_worker.py" in word for word in sys.orig_argv):
    from cudafilter.jobs.worker import Worker
    do, stat = Worker.do, os.stat

    def dies(self, job, held):
        if {KILLER!r} in str(job.source):
            os.kill(os.getpid(), 9)
        return do(self, job, held)

    def unseen(path, *more, **named):
        if {UNSHARED!r} in str(path):
            raise FileNotFoundError(path)
        return stat(path, *more, **named)

    def opened(name, **choices):
        from cudafilter.engines.cpu import CpuEngine
        engine = CpuEngine()
        if name == "cuda":
            engine.title = "a GPU that is made up: " + os.environ["CUDA_VISIBLE_DEVICES"]
        return engine

    Worker.do, os.stat = dies, unseen
    from cudafilter.engines import open
    open.open_engine = opened
"""


@contextmanager
def two_nodes(place: Path) -> Iterator[Any]:
    """A cluster of two nodes with a core each; *place* is a folder for what it needs."""
    (place / "sitecustomize.py").write_text(_WORKERS)
    import kills_cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(place), HOME])
    try:
        with kills_cluster.nodes(1, num_cpus=1) as cluster:
            yield cluster
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
