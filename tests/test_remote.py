"""Object stores: the same command on s3:// as on disk, with a real server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

import seaweed as seaweedfs
from command_line import ENVIRONMENT, PROGRAM, cli, folder, picture, snapshot
from cudafilter import filter_files
from cudafilter.jobs import sizing
from cudafilter.stores import remote
from cudafilter.stores.url import Url

__all__ = ["folder"]

SECRETS = (seaweedfs.KEY, seaweedfs.SECRET)


def put(url: str, data: bytes) -> None:
    remote.write_whole(remote.resolve(Url.parsed("dest", url)), data)


def objects(url: str) -> dict[str, bytes]:
    """What is below *url*, by the rest of its name."""
    top = Url.parsed("src", url)
    found = (each for page in remote.walk(top, deep=True) for each in page)
    return {
        each.key.removeprefix(top.prefix): remote.read(each, lambda _: None, 1 << 30)
        for each in found
    }


def below(top: str) -> dict[str, bytes]:
    """The files in a folder of this machine, likewise."""
    return {name.removeprefix(f"{top}/"): data for name, data in snapshot(top).items()}


@pytest.fixture
def album(bucket: str, here: Path) -> str:
    """Four pictures, one of them hidden, a film and a text in a store: the URL of their folder.

    They are in the folder ``in``, too.
    """
    for name in ("a.png", "b.jpg", "s/c.png", ".hidden/c.png"):
        picture(Path("in") / name)
    Path("in/film.mp4").write_bytes(b"no film")
    Path("in/notes.txt").write_bytes(b"no picture")
    for name, data in below("in").items():
        put(f"{bucket}/in/{name}", data)
    return f"{bucket}/in"


def test_a_folder_to_a_bucket_and_back_is_the_same_folder(bucket: str, folder: Path) -> None:
    assert cli("sharpen", "-r", "in", "disk").exit_code == 1  # one is broken
    result = cli("sharpen", "-r", "in", f"{bucket}/out/", "--report", "r")
    assert result.exit_code == 1
    assert objects(f"{bucket}/out") == below("disk")
    assert "3 done, 0 skipped, 1 failed, 1 left alone" in result.stderr
    told = [json.loads(line) for line in Path("r").read_text().splitlines()]
    done = {line["destination"] for line in told if line["status"] == "done"}
    assert done == {f"{bucket}/out/{name}" for name in below("disk")}


@pytest.mark.parametrize("options", [(), ("--check",), ("--format", "webp"), ("--shard", "1/1")])
def test_from_a_bucket_is_as_from_the_same_folder(album: str, options: tuple[str, ...]) -> None:
    disk = cli("sharpen", "-r", "in", "disk", *options)
    store = cli("sharpen", "-r", album, "back", *options)
    assert (disk.exit_code, store.exit_code) == (0, 0), store.output
    assert below("back") == below("disk")
    counts = "3 done, 0 skipped, 0 failed, 3 left alone"
    assert counts in disk.stderr
    assert counts in store.stderr
    assert f"{album}/film.mp4" in store.stderr


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", {"a.png"}),
        ("?.[jp]*", {"a.png", "b.jpg"}),
        ("**/*.png", {"a.png", "s/c.png"}),
        ("*/c.png", {"s/c.png"}),
        ("**", {"a.png", "b.jpg", "s/c.png"}),
    ],
)
def test_a_quoted_pattern_finds_what_it_finds_on_disk(
    album: str, pattern: str, found: set[str]
) -> None:
    disk = cli("sharpen", f"in/{pattern}", "disk/")
    store = cli("sharpen", f"{album}/{pattern}", "back/")
    assert (disk.exit_code, store.exit_code) == (0, 0), store.output
    assert below("back") == below("disk")
    counts = [line.partition(";")[0] for line in disk.stderr.splitlines() if " done, " in line]
    assert counts[0] in store.stderr
    assert set(below("back")) == found


def test_a_dry_run_tells_what_would_be_put_and_puts_nothing(album: str) -> None:
    result = cli("blur", "-r", album, f"{album}/out/", "--dry-run")
    assert result.exit_code == 0
    assert f"{album}/s/c.png -> {album}/out/s/c.png\n" in result.stdout
    assert "3 to do, 0 skipped, 3 left alone" in result.stderr
    assert not any(name.startswith("out/") for name in objects(album))


def test_names_that_urls_write_otherwise_survive(bucket: str, here: Path) -> None:
    name = "é b%20#?[1].png"
    data = picture("x.png").read_bytes()
    put(f"{bucket}/in/{name}", data)
    assert cli("sharpen", "x.png", "y.png").exit_code == 0
    assert cli("sharpen", f"{bucket}/in/{name}", f"{bucket}/out/").exit_code == 0
    assert objects(f"{bucket}/out") == {name: Path("y.png").read_bytes()}


@pytest.mark.parametrize("existing", ["skip", "error", "overwrite"])
def test_what_exists_is_told_by_one_listing_of_each_folder(
    album: str, bucket: str, existing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{bucket}/out/a.png", b"old")
    listed: list[tuple[Url, bool]] = []
    walk = remote.walk

    def counted(top: Url, deep: bool) -> Iterator[list[Url]]:
        listed.append((top, deep))
        return walk(top, deep)

    monkeypatch.setattr(remote, "walk", counted)
    monkeypatch.setattr(remote, "exists", lambda url: pytest.fail(f"asked for {url}"))
    result = cli("sharpen", "-r", "in", f"{bucket}/out/", "--existing", existing)
    after = objects(f"{bucket}/out")
    flat = [str(top) for top, deep in listed if not deep]
    asked = [] if existing == "overwrite" else [f"{bucket}/out", f"{bucket}/out/s"]
    assert sorted(flat) == asked
    if existing == "error":
        assert result.exit_code == 2
        assert f"{bucket}/out/a.png exists" in result.stderr
        assert after == {"a.png": b"old"}
    else:
        assert result.exit_code == 0, result.output
        assert (after["a.png"] == b"old") == (existing == "skip")
        assert set(after) == {"a.png", "b.jpg", "s/c.png"}


@pytest.mark.parametrize("existing", ["skip", "error", "overwrite"])
def test_what_another_program_puts_meanwhile_stays(
    bucket: str, here: Path, existing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("a.png")
    url, write = f"{bucket}/out/a.png", remote.write_whole

    def late(target: Any, content: Any, **given: Any) -> tuple[str, ...]:
        monkeypatch.setattr(remote, "write_whole", write)
        put(url, b"another's")
        return write(target, content, **given)

    monkeypatch.setattr(remote, "write_whole", late)
    result = cli("sharpen", "a.png", url, "--existing", existing)
    stays = objects(f"{bucket}/out") == {"a.png": b"another's"}
    assert stays == (existing != "overwrite")
    assert result.exit_code == (1 if existing == "error" else 0)
    told = {"skip": "skipped: it exists", "error": "another program put it meanwhile"}
    assert told.get(existing, " -> ") in result.stderr


def test_a_put_that_was_done_and_is_tried_again_is_no_conflict(
    bucket: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    original = obstore.put

    def twice(*given: Any, **named: Any) -> Any:
        original(*given, **named)
        return original(*given, **named)

    monkeypatch.setattr(obstore, "put", twice)
    picture("a.png")
    result = cli("sharpen", "a.png", f"{bucket}/a.png", "--existing", "error")
    assert result.exit_code == 0, result.output
    assert f"a.png -> {bucket}/a.png" in result.stderr


def test_what_is_large_and_no_picture_is_not_fetched(
    bucket: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{bucket}/a.png", b"no picture" * 1000)
    monkeypatch.setattr(remote, "LARGE", 100)
    fetched = []
    get = remote._get

    def counted(url: Url, options: Any = None) -> Any:
        fetched.append(options)
        return get(url, options)

    monkeypatch.setattr(remote, "_get", counted)
    result = cli("sharpen", f"{bucket}/a.png", "a.png")
    assert result.exit_code == 1
    assert fetched[-1] == {"range": (0, remote.HEAD)}


def test_a_store_that_cannot_refuse_to_replace_says_so(
    bucket: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    original = obstore.put

    def simple(*given: Any, **named: Any) -> Any:
        if named.get("mode") == "create":
            raise obstore.exceptions.NotSupportedError("no")
        return original(*given, **named)

    monkeypatch.setattr(obstore, "put", simple)
    picture("a.png")
    result = cli("sharpen", "a.png", f"{bucket}/a.png", "--existing", "skip")
    assert result.exit_code == 0
    assert "note: a.png: the store cannot refuse to replace" in result.stderr
    assert set(objects(bucket)) == {"a.png"}


NO = "AWS_SECRET_ACCESS_KEY"


@pytest.mark.parametrize(
    ("words", "environment", "code", "told"),
    [
        ("{b}/none.png out.png", {}, 1, "error: {b}/none.png: there is no such object"),
        ("-r {b}/none out/", {}, 2, "error: {b}/none: no such object or folder"),
        ("{b}/*.bmp out/", {}, 2, "error: {b}/*.bmp: no such object, and as a pattern it matches"),
        ("s3://none/a.png out.png", {}, 1, "there is no bucket s3://none"),
        ("-r s3://none/ out/", {}, 2, "there is no bucket s3://none"),
        ("-r in s3://none/", {}, 2, "there is no bucket s3://none"),
        ("in/a.png s3://none/a.png", {}, 1, "there is no bucket s3://none"),
        ("{b} out", {}, 2, "error: {b} is a folder: add -r"),
        ("in/a.png {b}/a.xyz", {}, 2, "the extension names no known image format"),
        ("-r {b} {b}", {}, 2, "error: {b}/a.png would overwrite the input"),
        ("{b}/a.png out.png", {NO: "hunter2"}, 1, "access is denied (the store answers 403 "),
        ("-r {b} out", {NO: "hunter2"}, 1, "access is denied (the store answers 403"),
        ("in/a.png {b}/o.png", {NO: "hunter2"}, 1, "cannot be written: access is denied"),
        ("-r in {b}/o/ --existing skip", {NO: "hunter2"}, 2, "what exists cannot be told: "),
        ("{b}/a.png --in-place", {}, 2, "nothing in a store is changed in place"),
        ("-r {b} out --watch", {}, 2, "stores are not watched"),
        ("-r in {b}/o --watch", {}, 2, "stores are not watched"),
        ("in/a.png http://127.0.0.1:1/a.png", {}, 2, "nothing is written to a web server"),
        ("https://127.0.0.1:1/a.png?key=hunter2 out.png", {}, 2, "what follows '?' or '#' is not"),
        ("https://me:hunter2@127.0.0.1/a.png out.png", {}, 2, "a user or password before '@'"),
        ("s3:///a.png out.png", {}, 2, "names no bucket"),
        ("{b}//a.png out.png", {}, 2, "a part of the name is empty"),
        ("{b}/a.png out.png", {"AWS_PROFILE": "none"}, 2, "there is no profile none"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line_without_credentials(
    album: str, words: str, environment: dict[str, str], code: int, told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    remote._clients.clear()
    given = words.format(b=album).split()
    result = cli("sharpen", *given, "--report", "r", "--debug")
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert any(told.format(b=album) in line for line in lines), result.stderr
    require_no_secret(result)


def require_no_secret(result: Result) -> None:
    """Neither credentials nor the library's own words may be anywhere."""
    report = Path("r").read_text() if Path("r").exists() else ""
    for text in (result.stdout, result.stderr, report):
        for secret in (*SECRETS, "hunter2", "Generic", "<Error>", "Debug source"):
            assert secret not in text


def test_the_rest_of_the_job_goes_on(album: str, here: Path) -> None:
    words = [f"{album}/a.png", f"{album}/none.png", "s3://none/x.png", "in/b.jpg", "out/"]
    result = cli("sharpen", *words)
    assert result.exit_code == 1
    assert set(below("out")) == {"a.png", "b.jpg"}
    assert "2 done, 0 skipped, 2 failed" in result.stderr


def test_a_large_picture_goes_by_rows_in_parts_of_its_object(
    bucket: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1000, 3), np.uint8)
    Image.fromarray(pixels).save("large.tif")
    put(f"{bucket}/large.tif", Path("large.tif").read_bytes())
    monkeypatch.setenv(sizing.MEMORY, "2000000")
    monkeypatch.setattr(remote, "BLOCK", 1 << 16)
    monkeypatch.setattr(remote, "read", lambda *_: pytest.fail("it was read whole"))
    assert cli("sharpen", "large.tif", "disk.tif").exit_code == 0
    result = cli("sharpen", f"{bucket}/large.tif", f"{bucket}/out.tif")
    assert result.exit_code == 0, result.output
    assert "done by rows" in result.stderr
    with remote.open(Url.parsed("src", f"{bucket}/out.tif")) as file:
        assert file[: len(file)] == Path("disk.tif").read_bytes()


def test_an_open_object_holds_few_blocks_and_sees_that_it_was_replaced(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 100)
    data = np.random.default_rng(0).bytes(5000)
    url = Url.parsed("src", f"{bucket}/x")
    put(str(url), data)
    with remote.open(url) as file:
        assert len(file) == 5000
        for part in (slice(3), slice(90, 350), slice(-5, None), slice(4990, 9000), slice(9, 2)):
            assert file[part] == data[part]
        for at in range(0, 5000, 100):
            assert file[at : at + 1] == data[at : at + 1]
        assert isinstance(file, remote.Object)
        assert len(file._blocks) == remote.BLOCKS
        put(str(url), bytes(5000))
        with pytest.raises(Exception, match="another program changed it meanwhile"):
            file[:10]


def test_a_run_in_a_process_of_its_own_tells_no_credentials(album: str, here: Path) -> None:
    words = ["sharpen", "-r", album, f"{album}/out/", "-v", "--debug", "--engine", "cpu"]
    done = subprocess.run(
        [*PROGRAM, *words], env={**ENVIRONMENT, **os.environ}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    assert "3 done" in done.stderr


def test_python_reads_and_writes_stores_too(album: str, here: Path) -> None:
    records = list(filter_files(album, "memory://m/out", "sharpen", recursive=True, engine="cpu"))
    assert {record.status for record in records} == {"done", "left alone"}
    assert cli("sharpen", "-r", "in", "disk").exit_code == 0
    assert objects("memory://m/out") == below("disk")


def test_a_web_servers_picture_is_read(seaweed: seaweedfs.Ports, album: str, here: Path) -> None:
    url = f"http://127.0.0.1:{seaweed.filer}/buckets/{album.removeprefix('s3://')}/b.jpg"
    assert cli("sharpen", "in/b.jpg", "disk.jpg").exit_code == 0
    result = cli("sharpen", url, "web.jpg")
    assert result.exit_code == 0, result.output
    assert Path("web.jpg").read_bytes() == Path("disk.jpg").read_bytes()
    missing = cli("sharpen", f"{url}.none.jpg", "x.jpg")
    assert (missing.exit_code, "there is no such object" in missing.stderr) == (1, True)
