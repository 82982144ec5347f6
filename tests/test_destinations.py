"""Destinations that are no files: pipes, devices, descriptors, folders that are gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import ENVIRONMENT, PROGRAM, cli, picture, snapshot
from cudafilter.errors import ParameterError
from cudafilter.jobs.plan import make_plan
from cudafilter.start.words import STDIO

PNG, JPEG = b"\x89PNG", b"\xff\xd8\xff"


@pytest.fixture(autouse=True)
def pictures(here: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(name)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "out.png"])
def test_other_names_of_standard_output_are_it(name: str) -> None:
    Path("out.png").symlink_to("/dev/stdout")
    (job,) = make_plan(["a.jpg"], name).jobs
    assert (job.destination, job.format) == (None, "jpeg")
    (job,) = make_plan([STDIO], name, format="png").jobs
    assert (job.destination, job.format) == (None, "png")


@pytest.mark.parametrize("existing", ["overwrite", "skip", "error"])
def test_a_pipe_gets_the_inputs_format_unless_another_is_asked_for(existing: str) -> None:
    os.mkfifo("pipe")
    reader, writer = os.pipe()
    for name in ("pipe", f"/dev/fd/{writer}"):
        (job,) = make_plan(["a.jpg"], name, existing=existing).jobs
        assert (job.destination, job.format, job.skip) == (Path(name), "jpeg", False)
        (job,) = make_plan(["a.jpg"], name, format="png", existing=existing).jobs
        assert job.format == "png"
        (job,) = make_plan([STDIO], name, existing=existing).jobs
        assert (job.source, job.format) == (None, None)
    os.close(reader)
    os.close(writer)


def test_a_pipes_extension_counts() -> None:
    os.mkfifo("pipe.png")
    (job,) = make_plan(["a.jpg"], "pipe.png").jobs
    assert job.format == "png"


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    with pytest.raises(ParameterError, match="/dev/fd/999: nothing is open under that number"):
        make_plan(["a.png"], "/dev/fd/999")


@pytest.mark.parametrize("source", ["a.png", STDIO])
def test_a_folder_that_is_gone_takes_nothing(
    source: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("gone").mkdir()
    monkeypatch.chdir("gone")
    (here / "gone").rmdir()
    source = source if source == STDIO else str(here / source)
    for name in ("out.png", "folder/", "../out.png"):
        with pytest.raises(ParameterError, match=f"{name}: the current folder was removed"):
            make_plan([source], name)
    assert make_plan([source], str(here / "out.png")).jobs


@pytest.mark.parametrize(("source", "begins"), [("a.png", PNG), ("a.jpg", JPEG)])
def test_the_shells_pipes_get_the_picture(source: str, begins: bytes) -> None:
    reader, writer = os.pipe()
    command = [*PROGRAM, "blur", source, f"/dev/fd/{writer}"]
    subprocess.run(
        [*command, "--engine", "cpu"], env=ENVIRONMENT, pass_fds=[writer], check=True, timeout=60
    )
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read().startswith(begins)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("S3://bucket/out/", "did you mean s3://bucket/out/?"),
        ("ftp://host/out/", "for a file of that name: ./ftp:/host/out"),
        ("file:///data/out%20/", "did you mean /data/out /?"),
    ],
)
@pytest.mark.parametrize("command", ["box -r in {}", "box in/a.png {}a.png", "box {} out/ -r"])
def test_a_url_of_no_known_store_is_no_folder(
    url: str, hint: str, command: str, here: Path
) -> None:
    picture("in/a.png")
    before = snapshot(here)
    done = cli(*(word.format(url) for word in command.split()))
    assert done.exit_code == 2
    assert "no store is named so, but by s3://, gs://, az://, http://, https://" in done.stderr
    assert hint.rstrip("/?") in done.stderr
    assert snapshot(here) == before


def test_a_file_may_be_called_so_all_the_same() -> None:
    make_plan(["a.png"], "./ftp:/")
