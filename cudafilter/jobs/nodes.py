"""The nodes of a Ray cluster, and the workers on them. Everything of Ray is in here.

Ray is imported where a Cluster is made, and nothing of it before. What Ray says is for its own log
files: what people need to know is said here in words.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cudafilter.errors import EngineUnavailable, ParameterError
from cudafilter.jobs import look
from cudafilter.jobs.hand import Hand, Task
from cudafilter.jobs.look import Sought
from cudafilter.jobs.workers import Call, Lost, Node, Place

if TYPE_CHECKING:
    from cudafilter.jobs.job import Job

AUTO = "auto"
"""The address of a cluster that Ray finds on this machine."""

_ADDRESS = "RAY_ADDRESS"
_STATISTICS = "RAY_USAGE_STATS_ENABLED"
_SILENCE = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_DEDUP_LOGS_ALLOW_REGEX": "(?!)",
}
"""Of what Ray would print here, even to standard output, every line is left out. Its log files on
the nodes have it all."""

CORES = 8
"""Most cores of a worker without a GPU. Where one is lost, few images are."""

_ANSWER = 5.0
"""Seconds in which the head of a cluster answers."""


def require_address(address: str) -> None:
    """Raise ParameterError ("cluster") unless *address* is ``auto`` or ``HOST:PORT``."""
    if address.startswith("ray://"):
        raise ParameterError(
            "cluster",
            "the command takes part in the cluster itself, and 'ray://' connects from outside",
            hint=f"run it on a node of the cluster, with --cluster {AUTO}",
        )
    if address != AUTO and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", address):
        raise ParameterError("cluster", f"must be {AUTO} or HOST:PORT, not {address!r}")


class Cluster:
    """A connection to the Ray cluster at *address*, as a guest: it starts none and changes none.

    Raises EngineUnavailable where Ray is not installed, no cluster answers there, or it has other
    versions; ParameterError for what is no address.
    """

    def __init__(self, address: str) -> None:
        require_address(address)
        # Ray is told before it is imported. The user's own word counts.
        os.environ.setdefault(_STATISTICS, "0")
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        os.environ.update(_SILENCE)
        try:
            import ray
        except ImportError:
            raise EngineUnavailable(
                "Ray is not installed", hint="pip install 'cudafilter[cluster]'"
            ) from None
        self._ray = ray
        try:
            self._connect(address)
        finally:
            for number, handler in kept.items():
                if handler is not None:
                    signal.signal(number, handler)
        ray.cloudpickle.register_pickle_by_value(look)
        self.packages = _packages()

    def _connect(self, address: str) -> None:
        import logging

        told = os.environ.get(_ADDRESS) if address == AUTO else address
        if told:
            require_address(told)
            if not _answers(told):
                raise EngineUnavailable(
                    f"no cluster answers at {told}", hint="start one: ray start --head"
                )
        try:
            with _from_the_root(), _silent():
                self._ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (Exception, SystemExit) as error:
            raise unavailable(address, str(error)) from error
        context = self._ray.get_runtime_context()
        self._head: str = context.gcs_address
        self.here: str = context.get_node_id()
        """The key of the node that this process is on. Without that it has no workers."""

    def answers(self) -> bool:
        """Whether the head of the cluster answers. Where it does not, nodes() would wait long."""
        return _answers(self._head)

    def nodes(self) -> list[Node]:
        """The nodes that are there now."""
        return [
            Node(
                told["NodeID"],
                told["NodeManagerHostname"],
                int(told["Resources"].get("CPU", 0)),
                int(told["Resources"].get("GPU", 0)),
            )
            for told in self._ray.nodes()
            if told["Alive"]
        ]

    def ask(self, node: Node, sought: Sought) -> Call:
        """Ask what *node* has of what is *sought*: a call that returns the fields of a Seen."""
        ask = self._ray.remote(look.look)
        placed = ask.options(num_cpus=0, max_retries=1, scheduling_strategy=self._on(node))
        return Call(placed.remote(sought))

    def start(self, place: Place, task: Task) -> Worker:
        """Begin to start a worker at *place*."""
        actor = self._ray.remote(Hand).options(
            num_cpus=place.cores,
            num_gpus=int(place.gpu),
            max_concurrency=2,  # stop() comes while step() waits
            max_restarts=0,
            scheduling_strategy=self._on(place.node),
        )
        return Worker(self._ray, actor.remote(task, place.cores or None, place.beside))

    def wait(self, calls: Sequence[Call], seconds: float) -> list[Call]:
        """Those of *calls* that have ended, one at least unless the *seconds* are over."""
        if not calls:
            time.sleep(seconds)
        named = {call.reference: call for call in calls}
        done = self._ray.wait(list(named), num_returns=1, timeout=seconds)[0] if named else []
        if done:  # and all others that have ended by now
            done, _ = self._ray.wait(list(named), num_returns=len(named), timeout=0)
        return [named[reference] for reference in done]

    def result(self, call: Call) -> Any:
        """What *call* returned. Raises Lost where it ended its worker, or failed there."""
        try:
            return self._ray.get(call.reference, timeout=_ANSWER)
        except self._ray.exceptions.RayError as error:
            raise Lost(str(error)) from error

    def leave(self) -> None:
        """End all workers, and leave the cluster."""
        if not self.answers():  # Ray would wait for it, and end this process; workers end, too
            atexit.unregister(self._ray.shutdown)
            return
        self._ray.shutdown()

    def _on(self, node: Node) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node.key, soft=False)


class Worker:
    """A worker on a node: a Hand in a process of its own. Each call returns at once."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def open(self) -> Call:
        """See Hand.open."""
        return Call(self._actor.open.remote())

    def step(self, jobs: list[Job]) -> Call:
        """See Hand.step."""
        return Call(self._actor.step.remote(jobs))

    def stop(self) -> Call:
        """See Hand.stop."""
        return Call(self._actor.stop.remote())

    def end(self) -> None:
        """End its process at once."""
        with suppress(Exception):  # it has ended
            self._ray.kill(self._actor)


def places(nodes: Sequence[Node], gpus: bool) -> list[Place]:
    """Where workers go on *nodes*, one for each GPU or for some cores: first one on each node."""
    found = []
    for node in nodes:
        count = node.gpus if gpus else -(-node.cores // CORES)
        for number in range(count):
            cores = node.cores // count + (number < node.cores % count)
            found.append(Place(node, number, count, cores, gpus))
    return sorted(found, key=lambda place: place.number)


def differences(mine: Mapping[str, str], node: Mapping[str, str]) -> str:
    """In words, what of *mine* a *node* has in another version, or lacks; empty for nothing."""
    return ", ".join(
        f"{name} {node.get(name, 'none')} and not {version}"
        for name, version in mine.items()
        if node.get(name) != version
    )


def _packages() -> tuple[str, ...]:
    """Ray, and the packages whose versions count for the bytes of outputs."""
    with suppress(metadata.PackageNotFoundError):
        needed = metadata.requires("cudafilter") or []
        names = (re.match(r"[\w.-]+", each) for each in needed if "extra ==" not in each)
        return ("ray", *(name[0] for name in names if name))
    return ("ray",)


def _answers(address: str) -> bool:
    """Whether anything answers at *address*. Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError):
        return False
    return True


def unavailable(address: str, told: str) -> EngineUnavailable:
    """Why Ray does not join the cluster at *address*, by what it *told*."""
    versions = re.findall(r"(Ray|Python): (\S+)", told)
    if len(versions) == 4:
        there, here = (f"{a[0]} {a[1]} with {b[0]} {b[1]}"
                       for a, b in (versions[:2], versions[2:]))  # fmt: skip
        return EngineUnavailable(
            f"the cluster runs {there}, and this machine has {here}",
            hint="install the same versions on all nodes",
        )
    if "token" in told.lower() or told.startswith("Failed to connect"):
        return EngineUnavailable(
            f"the cluster at {address} does not let this machine in",
            hint="where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
            " as on its other nodes",
        )
    if address == AUTO and "running Ray instance" in told:
        return EngineUnavailable(
            "no cluster runs on this machine",
            hint="start one: ray start --head; or join one: ray start --address=HOST:PORT",
        )
    return EngineUnavailable(
        f"this machine does not get into the cluster at {address}",
        hint="make it a node: ray start --address=HOST:PORT",
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Have what Ray's compiled parts write to stderr go nowhere: errors are told in words."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _from_the_root() -> Iterator[None]:
    """Be in the root folder: Ray has workers import modules from the folder it is started in."""
    folder = os.open(os.curdir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir("/")
        yield
    finally:
        os.fchdir(folder)
        os.close(folder)
