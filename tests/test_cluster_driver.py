"""What a run on a cluster tells and refuses, with nodes that are made up and need no Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from command_line import cli, picture
from cudafilter.engines.cpu import CpuEngine
from cudafilter.errors import EngineError, EngineUnavailable, ParameterError
from cudafilter.host import cores
from cudafilter.jobs import cluster, look
from cudafilter.jobs.hand import Hand, Opened, Task
from cudafilter.jobs.look import Sought
from cudafilter.jobs.nodes import CORES, differences, places, require_address, unavailable
from cudafilter.jobs.plan import Job, make_plan
from cudafilter.jobs.record import DONE, Record
from cudafilter.jobs.settings import Settings
from cudafilter.jobs.workers import AHEAD, MOST_STARTS, Call, Lost, Node, Place
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.start import gpus
from cudafilter.start.words import first_jpeg, needs_gpu

ONE, TWO = Node("1", "one", 1, 0), Node("2", "two", 1, 0)
TASK = Task(make("blur"), Border(), Settings(), "cpu", "auto", "auto", "fail", None, 1, "/", {})


class MadeUp:
    """A cluster whose workers do each job at once."""

    packages: tuple[str, ...] = ()
    here = "1"

    def __init__(self, *nodes: Node) -> None:
        self.there = list(nodes)
        self.see: Callable[[Node], dict[str, str]] = lambda node: {}
        """Versions that differ on a node."""
        self.open: Callable[[Place], Opened] = lambda place: Opened("an engine", parallel=2)
        self.die: Callable[[Place, list[Job]], bool] = lambda place, jobs: False
        self.done: list[Place] = []
        self.started = self.ended = self.stopped = 0

    def nodes(self) -> list[Node]:
        return list(self.there)

    def ask(self, node: Node, sought: Sought) -> Call:
        host, versions, hidden, unwritable = look.look(sought)
        return Call(lambda: (host, {**versions, **self.see(node)}, hidden, unwritable))

    def answers(self) -> bool:
        return True

    def start(self, place: Place, task: Task) -> MadeUpWorker:
        self.started += 1
        return MadeUpWorker(self, place)

    def wait(self, calls: Sequence[Call], seconds: float) -> list[Call]:
        return list(calls)

    def result(self, call: Call) -> Any:
        return call.reference()


class MadeUpWorker:
    def __init__(self, nodes: MadeUp, place: Place) -> None:
        self.nodes, self.place = nodes, place

    def open(self) -> Call:
        return Call(lambda: self.nodes.open(self.place))

    def step(self, jobs: list[Job]) -> Call:
        return Call(lambda: self.do(jobs))

    def do(self, jobs: list[Job]) -> list[Record]:
        if self.nodes.die(self.place, jobs):
            raise Lost
        self.nodes.done += [self.place] * len(jobs)
        return [Record(str(job.source), str(job.destination), DONE) for job in jobs]

    def stop(self) -> Call:
        self.nodes.stopped += 1
        return Call(list)

    def end(self) -> None:
        self.nodes.ended += 1


class Done:
    """A run on *nodes*, ended."""

    def __init__(self, nodes: MadeUp, count: int = 9, task: Task = TASK) -> None:
        for n in range(count):
            picture(f"in/{n}.png")
        self.plan = make_plan(["in"], "out", recursive=True)
        self.records: list[Record] = []
        self.notes: list[str] = []
        run = cluster.Run(nodes, self.plan.jobs, task, self.records.append, self.notes.append)
        self.title = run.prepare()
        try:
            run.work()
        finally:
            assert nodes.started == nodes.ended  # whatever comes, none is left at work


pytestmark = pytest.mark.usefixtures("here")


def dies(*names: str) -> Opened:
    raise Lost(*names)


class TestNodes:
    def test_of_other_versions_stop_the_job_before_it_begins(self) -> None:
        nodes = MadeUp(ONE, TWO)
        nodes.see = lambda node: {"cudafilter": "9.9"} if node is TWO else {}
        with pytest.raises(EngineUnavailable, match=r"node two has cudafilter 9\.9 and not ") as no:
            Done(nodes)
        assert no.value.hint == "install the same versions on all nodes"
        assert not nodes.done

    def test_that_come_later_take_part_if_they_fit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cluster, "_COUNT", -1.0)
        three, nodes = Node("3", "three", 1, 0), MadeUp(ONE)
        nodes.see = lambda node: {"Python": "2.7"} if node is three else {}

        def opened(place: Place) -> Opened:
            nodes.there = [ONE, TWO, three]
            return Opened("an engine")

        nodes.open = opened
        done = Done(nodes, 40)
        assert len(done.records) == 40
        assert {place.node for place in nodes.done} == {ONE, TWO}
        assert any(note.startswith("the node three is left out: ") for note in done.notes)

    def test_without_what_the_engine_needs_are_told(self) -> None:
        with pytest.raises(EngineUnavailable, match="has no GPU to give"):
            Done(MadeUp(ONE), task=TASK._replace(engine="cuda"))
        with pytest.raises(EngineUnavailable, match="has no core to give"):
            Done(MadeUp(ONE._replace(cores=0)))

    def test_and_the_head_must_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cluster, "_COUNT", -1.0)
        monkeypatch.setattr(cluster, "_HEAD", 0.0)
        nodes = MadeUp(ONE, TWO)
        nodes.answers = lambda: not nodes.done  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="the head of the cluster does not answer") as no:
            Done(nodes, 30)
        assert "--existing skip" in str(no.value.hint)

    def test_one_of_which_is_this_machine_must_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cluster, "_COUNT", -1.0)
        nodes = MadeUp(ONE, TWO)

        def opened(place: Place) -> Opened:
            nodes.there = [TWO]
            return Opened("an engine")

        nodes.open = opened
        with pytest.raises(EngineError, match="this machine is a node of the cluster no more"):
            Done(nodes, 30)

    @pytest.mark.parametrize(
        ("nodes", "engine", "title"),
        [
            ([ONE], "cpu", "cpu: 1 node, 1 worker, 1 core"),
            ([ONE, TWO], "cpu", "cpu: 2 nodes, 2 workers, 2 cores"),
            ([ONE, TWO._replace(cores=16)], "cpu", "cpu: 2 nodes, 3 workers, 17 cores"),
            ([ONE, TWO._replace(gpus=2)], "cuda", "cuda: 1 node, 2 GPUs"),
        ],
    )
    def test_are_told_before_the_first_image(
        self, nodes: list[Node], engine: str, title: str
    ) -> None:
        assert Done(MadeUp(*nodes), task=TASK._replace(engine=engine)).title == title


class TestWorkers:
    def test_whose_engine_cannot_be_opened_are_left_out(self) -> None:
        nodes = MadeUp(ONE, TWO)
        nodes.open = lambda place: Opened(error="no CUDA" if place.node is ONE else None)
        done = Done(nodes)
        assert {place.node for place in nodes.done} == {TWO}
        assert len(done.records) == 9
        assert done.notes == ["a worker on one is left out: no CUDA"]

    def test_none_of_which_can_open_its_engine_end_the_job(self) -> None:
        nodes = MadeUp(ONE, TWO)
        nodes.open = lambda place: Opened(error="no CUDA", hint="install it")
        with pytest.raises(EngineUnavailable, match="no CUDA") as no:
            Done(nodes)
        assert no.value.hint == "install it"

    def test_that_are_lost_at_their_start_are_not_begun_for_ever(self) -> None:
        nodes = MadeUp(ONE, TWO)
        nodes.open = lambda place: dies() if place.node is ONE else Opened("an engine")
        done = Done(nodes, 30)
        assert len(done.records) == 30
        assert 1 <= done.notes.count("a worker on one was lost") <= MOST_STARTS
        nodes.open = lambda place: dies()
        with pytest.raises(EngineError, match="no node of the cluster is left"):
            Done(nodes)

    def test_that_were_ready_once_are_begun_as_often_again(self) -> None:
        nodes = MadeUp(ONE)
        steps = iter((True, True, False, True, True, False))
        nodes.open = lambda place: dies() if next(steps) else Opened("an engine")
        nodes.die = lambda place, jobs: nodes.started == MOST_STARTS
        assert len(Done(nodes).records) == 9
        assert nodes.started == 2 * MOST_STARTS

    def test_that_are_lost_leave_no_temporary(self) -> None:
        nodes = MadeUp(ONE)
        mark = ".cudafilter-00000001-00000002-3-4-5-"
        left = Path("out") / f"{mark}6.tmp"
        nodes.open = lambda place: Opened("an engine", mark=mark, parallel=3)

        def die(place: Place, jobs: list[Job]) -> bool:
            if not left.parent.exists():
                left.parent.mkdir()
                left.write_bytes(b"half")
                Path("out/.cudafilter-00000001-00000002-3-4-6-7.tmp").write_bytes(b"another's")
                return True
            assert not left.exists()  # at once: a run may be long
            Path("out", f"{mark}8.tmp").write_bytes(b"by one that was not gone yet")
            return False

        nodes.die = die
        done = Done(nodes)
        assert len(done.records) == len({record.source for record in done.records}) == 9
        assert [path.name[-5] for path in Path("out").iterdir()] == ["7"]
        assert done.notes == ["a worker on one was lost; 9 images begun again"]

    def test_that_do_not_end_what_they_write_leave_no_temporary_of_a_run_that_fails(self) -> None:
        nodes = MadeUp(ONE)
        mark = ".cudafilter-00000001-00000002-3-4-5-"
        nodes.open = lambda place: Opened("an engine", mark=mark)
        for n in range(9):
            picture(f"in/{n}.png")

        def told(record: Record) -> None:
            Path("out").mkdir(exist_ok=True)
            Path("out", f"{mark}6.tmp").write_bytes(b"half")
            raise BrokenPipeError

        jobs = make_plan(["in"], "out", recursive=True).jobs
        run = cluster.Run(nodes, jobs, TASK, told, print)
        run.prepare()
        with pytest.raises(BrokenPipeError):
            run.work()
        assert not list(Path("out").iterdir())
        assert nodes.stopped == nodes.ended == 1

    def test_that_are_left_out_at_the_very_end_are_told(self, monkeypatch: Any) -> None:
        nodes = MadeUp(ONE, TWO)
        nodes.open = lambda place: Opened(
            "an engine", error="no CUDA" if place.node is TWO else None
        )

        def wait(calls: Sequence[Call], seconds: float) -> list[Call]:
            return list(calls) if nodes.done else [calls[0]]  # that of the first node

        monkeypatch.setattr(nodes, "wait", wait)
        assert Done(nodes, 2).notes == ["a worker on two is left out: no CUDA"]

    def test_get_few_jobs_at_a_time(self) -> None:
        nodes, given = MadeUp(ONE), [0]

        def count(place: Place, jobs: list[Job]) -> bool:
            given.append(len(jobs))
            return False

        nodes.die = count
        Done(nodes, 20)
        assert max(given) == 2 * AHEAD


class TestAHand:
    """The process on a node."""

    @pytest.fixture(autouse=True)
    def kept(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cores, "_most", None)
        monkeypatch.setenv("CUDAFILTER_MEMORY", "300000000")

    def hand(self, **more: Any) -> Hand:
        task = TASK._replace(**{"folder": str(Path.cwd()), "threads": 2, **more})
        return Hand(task, 1, 3)

    def test_does_what_it_gets_and_tells_what_is_done(self) -> None:
        for n in range(4):
            picture(f"in/{n}.png")
        Path("in/broken.png").write_bytes(Path("in/0.png").read_bytes()[:200])
        hand = self.hand()
        opened = hand.open()
        assert (opened.error, opened.parallel) == (None, 2)
        assert opened.title.endswith(", 1 thread")
        records: list[Record] = []
        jobs = list(make_plan(["in"], "out", recursive=True).jobs)
        while len(records) < 5:
            records += hand.step(jobs[:2])
            del jobs[:2]
        assert sorted(record.status for record in records) == ["done"] * 4 + ["failed"]
        assert hand.stop() == []
        assert hand.step([]) == []

    def test_has_more_in_work_where_a_store_is_waited_for(self) -> None:
        hand = self.hand(threads=None, for_each_core=4)
        assert hand.open().parallel == 4  # of one core
        hand.stop()

    def test_has_its_share_of_cores_and_memory(self) -> None:
        import os

        self.hand()
        assert cores.cores() == 1
        assert os.environ["CUDAFILTER_MEMORY"] == "100000000"

    def test_tells_in_words_why_its_engine_does_not_open(self) -> None:
        opened = self.hand(engine="cpu", variant="tiled").open()
        assert opened.error == "is for the cuda engine, and --engine cpu was asked for"

    def test_raises_what_stops_its_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from cudafilter.jobs.worker import Worker

        def broken(*_: object) -> Record:
            raise SystemError("broken")

        picture("in/a.png")
        hand = self.hand()
        monkeypatch.setattr(Worker, "do", broken)
        hand.open()
        with pytest.raises(SystemError, match="broken"):
            hand.step(list(make_plan(["in"], "out", recursive=True).jobs))


def test_the_cores_of_a_process_can_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_most", None)
    cores.limit(1)
    assert cores.cores() == 1
    with closing(CpuEngine()) as engine:
        assert engine.title.endswith(", 1 thread")


@pytest.mark.parametrize(
    ("node", "gpus", "cores"),
    [
        (Node("1", "a", 0, 0), False, []),
        (Node("1", "a", CORES, 0), False, [CORES]),
        (Node("1", "a", CORES + 1, 1), False, [5, 4]),
        (Node("1", "a", 4 * CORES, 0), False, [CORES] * 4),
        (Node("1", "a", 16, 0), True, []),
        (Node("1", "a", 17, 2), True, [9, 8]),
        (Node("1", "a", 0, 1), True, [0]),
    ],
)
def test_workers_share_the_cores_of_their_node(node: Node, gpus: bool, cores: list[int]) -> None:
    found = places([node], gpus)
    assert [place.cores for place in found] == cores
    assert {place.beside for place in found} <= {len(cores)}


def test_few_images_spread_over_the_nodes() -> None:
    found = places([Node("1", "a", 16, 0), Node("2", "b", 16, 0)], False)
    assert [place.node.name for place in found] == ["a", "b", "a", "b"]


def test_versions_that_differ_are_named() -> None:
    mine = {"Python": "3.11", "ray": "2.60.0", "numpy": "2.4.6"}
    assert differences(mine, {**mine, "more": "1"}) == ""
    other = {"Python": "3.12", "ray": "2.60.0"}
    assert differences(mine, other) == "Python 3.12 and not 3.11, numpy none and not 2.4.6"


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "head:1", "[::1]:6379"])
def test_an_address_is_auto_or_a_host_with_its_port(address: str) -> None:
    require_address(address)


@pytest.mark.parametrize("address", ["", "local", "10.0.0.1", "a:b", "x y:1", "http://a:1", "a:1/"])
def test_another_is_refused(address: str) -> None:
    with pytest.raises(ParameterError, match="must be auto or HOST:PORT"):
        require_address(address)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("Could not find any running Ray instance.", "no cluster runs on this machine"),
        (
            "Version mismatch: The cluster was started with:\n    Ray: 2.61.0\n    Python: 3.12.1\n"
            "This process on node 1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n",
            "the cluster runs Ray 2.61.0 with Python 3.12.1, and this machine has Ray 2.60.0",
        ),
        ("the right token", "the cluster at auto does not let this machine in"),
        ("Failed to connect to Ray cluster", "the cluster at auto does not let this machine in"),
        ("anything else", "this machine does not get into the cluster at auto"),
    ],
)
def test_what_keeps_ray_out_is_told_in_words(told: str, words: str) -> None:
    assert str(unavailable("auto", told)).startswith(words)


class TestTheCommandLine:
    @pytest.fixture(autouse=True)
    def no_cluster(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        picture("in/a.png")

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("in/a.png", "--in-place"), "--in-place keeps a journal on this machine"),
            (("-r", "in", "out", "--watch"), "--watch does not end"),
            (("in/a.png", "-"), "'-' is a stream of this machine"),
            (("-", "out.png"), "'-' is a stream of this machine"),
            (("in/a.png", "/dev/null"), "/dev/null is a stream of this machine"),
            (("in/a.png", "out.png", "--gpu", "0"), "each worker of a cluster gets its own"),
            (("in/a.png", "out.png", "--cluster", "ray://a:1"), "'ray://' connects from outside"),
            (("in/a.png", "out.png", "--cluster", "b"), "must be auto or HOST:PORT, not 'b'"),
        ],
    )
    def test_refuses_what_no_cluster_does(self, words: tuple[str, ...], told: str) -> None:
        before = sorted(Path().rglob("*"))
        done = cli("blur", "--cluster", "auto", *words)
        assert done.exit_code == 2
        assert told in " ".join(done.stderr.split())
        assert sorted(Path().rglob("*")) == before

    def test_tells_that_ray_is_missing(self) -> None:
        done = cli("blur", "in/a.png", "out.png", "--cluster", "auto")
        assert done.exit_code == 1
        assert done.stderr == (
            "error: Ray is not installed\nhint: pip install 'cudafilter[cluster]'\n"
        )

    def test_starts_no_gpu_and_decodes_nothing_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        words = ["blur", "--engine", "cuda", "--codec", "cpu", str(picture("a.jpg")), "b.jpg"]
        assert needs_gpu(words)
        assert first_jpeg(words) == "a.jpg"
        assert not needs_gpu([*words, "--cluster", "auto"])
        assert first_jpeg([*words, "--cluster=auto"]) is None
        started: list[object] = []
        monkeypatch.setattr(gpus, "start", lambda *given, **_: started.append(given))
        for more in ([], ["--cluster", "auto"]):
            cli(*words, *more)
        assert len(started) == 1

    def test_plans_without_a_cluster(self) -> None:
        done = cli("blur", "in/a.png", "out.png", "--cluster", "auto", "--dry-run")
        assert (done.exit_code, done.stdout) == (0, "in/a.png -> out.png\n")
