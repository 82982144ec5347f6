"""The program talks to nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import picture, python

pytestmark = pytest.mark.usefixtures("here")

WATCHED = """
import sys
from cudafilter.__main__ import main
def audit(event, given):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        print("NETWORK", event, given[-1], flush=True)
sys.addaudithook(audit)
sys.argv = ["cudafilter", *{words!r}]
{first}
main()
"""

COMMANDS = [
    ["blur", "-r", "in", "out", "--engine", "cpu", "--check", "--report", "report"],
    ["blur", "in/a.jpg", "in/a.jpg", "--in-place"],
    ["kernel", "--weights", "0 1 0", "in/a.png", "b.png"],
    ["info", "--json"],
    ["filters"],
    ["bench", "blur", "--sizes", "64", "--dtypes", "uint8", "--engine", "cpu"],
    ["bench", "--folder", "in", "--engine", "cpu"],
]


def run(words: list[str], first: str = "") -> str:
    """What the program prints, with each use of the network told."""
    try:
        return python(WATCHED.format(words=words, first=first))
    except Exception as error:  # noqa: BLE001 - its exit code is not of interest
        return str(getattr(error, "stdout", ""))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_opens_a_connection(words: list[str]) -> None:
    for name in ("a.png", "a.jpg"):
        picture(Path("in") / name)
    assert "NETWORK" not in run(words)


def test_a_connection_would_be_seen() -> None:
    first = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    assert "NETWORK socket.connect" in run(["filters"], first)
