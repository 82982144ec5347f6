"""Files that are read and written: whole or not at all, wherever they lie."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cudafilter import images
from cudafilter.errors import ImageError
from cudafilter.formats import png, png_chunks, table
from cudafilter.images import Image, load
from cudafilter.stores import local
from image_files import LOSSLESS, random_pixels, save


@pytest.mark.parametrize("name", ["写真 ñ.png", "über.tif", "a b'\".webp"])
def test_any_path_will_do(name: str, tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 3))
    folder = tmp_path / "Ünïcødé"
    folder.mkdir()
    save(image, folder / name)
    np.testing.assert_array_equal(load(folder / name).pixels, image.pixels)


@pytest.mark.parametrize(
    ("name", "channels", "reason"), [("a.pbm", 1, "not written"), ("a.pgm", 3, "no colour")]
)
def test_pnm_names_mean_what_they_say(
    name: str, channels: int, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=reason):
        save(Image(random_pixels("uint8", channels)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["os.replace", "encode"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_save_leaves_what_was(
    failure: BaseException, step: str, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.png"
    if exists:
        target.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise failure

    owner, name = (os, "replace") if step == "os.replace" else (png, "create")
    monkeypatch.setattr(owner, name, fail)
    raised = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else ImageError
    with pytest.raises(raised, match=r"out\.png.*No space" if raised is ImageError else None):
        save(Image(random_pixels("uint8", 3)), target)
    assert [path.name for path in tmp_path.iterdir()] == (["out.png"] if exists else [])
    if exists:
        assert target.read_bytes() == b"old"


def test_links_that_lead_nowhere_are_reported(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(ImageError, match=r"loop\.png: cannot be written: Too many levels"):
        local.write_atomically(tmp_path / "loop.png", b"data")


def test_a_file_is_whole_where_the_system_writes_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 20
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, rest: write(file, rest[:1000]))
    local.write_atomically(tmp_path / "x.png", data)
    assert (tmp_path / "x.png").read_bytes() == data


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_file_is_read_whole_where_the_system_reads_a_part_at_a_time(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (bytes(range(256)) * 20)[:size]
    (tmp_path / "x").write_bytes(data)
    assert images.read_file(tmp_path / "x") == data
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, most: read(file, min(most, 1000)))
    assert images.read_file(tmp_path / "x") == data


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    data = png_chunks.SIGNATURE + bytes(range(256)) * 1000  # more than a pipe holds
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,), daemon=True)
    writer.start()
    assert images.read_file(tmp_path / "pipe") == data


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_device_is_reported() -> None:
    with pytest.raises(ImageError, match="/dev/full: cannot be written: No space left"):
        local.write_atomically(Path("/dev/full"), b"data")


def test_folders_are_made_where_there_are_none(tmp_path: Path) -> None:
    for name in ("x", "y"):
        local.write_atomically(tmp_path / "a" / "b" / name, b"data")
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["x", "y"]


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 3))
    (tmp_path / "link.png").symlink_to(tmp_path / "none" / "x.png")
    with pytest.raises(ImageError, match="cannot be written: No such file or directory"):
        save(image, tmp_path / "link.png")
    assert not (tmp_path / "none").exists(), "whatever the link names may be elsewhere"
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match="it is a folder"):
        save(image, tmp_path / "folder.png")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageError, match="Not a directory"):
        save(image, tmp_path / "file" / "x.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_places_are_refused(tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 3))
    target = tmp_path / "x.png"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with pytest.raises(ImageError, match="write-protected"):
        save(image, target)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ImageError, match="Permission denied"):
            save(image, tmp_path / "y.png")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_permissions_are_the_targets_or_the_umasks(tmp_path: Path) -> None:
    image = Image(random_pixels("uint8", 1))
    umask = os.umask(0o027)
    try:
        save(image, tmp_path / "new.png")
        kept = tmp_path / "kept.png"
        kept.write_bytes(b"old")
        kept.chmod(0o604)
        save(image, kept)
    finally:
        os.umask(umask)
    assert (tmp_path / "new.png").stat().st_mode & 0o777 == 0o640
    assert kept.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_followed(dangling: bool, tmp_path: Path) -> None:
    real = tmp_path / "real.png"
    if not dangling:
        real.write_bytes(b"old")
        (tmp_path / "other.png").hardlink_to(real)
    (tmp_path / "link.png").symlink_to(real)
    image = Image(random_pixels("uint8", 1))
    save(image, tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    np.testing.assert_array_equal(load(real).pixels, image.pixels)
    if not dangling:  # it was replaced as a whole, not overwritten
        assert (tmp_path / "other.png").read_bytes() == b"old"


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    kinds = [kind for kind in LOSSLESS if kind[0] != "webp"]

    def round_trip(number: int) -> None:
        format, dtype, channels = kinds[number % len(kinds)]
        pixels = random_pixels(dtype, channels, 20 + number, 31)
        path = tmp_path / f"{number}{table.FORMATS[format].extensions[0]}"
        save(Image(pixels, channels in (2, 4)), path)
        np.testing.assert_array_equal(load(path).pixels, pixels)
        with pytest.raises(ImageError):
            load(path.read_bytes()[:50])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(round_trip, range(120)))


def test_threads_saving_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    pictures = [Image(np.full((50, 50, 3), value, np.uint8)) for value in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda image: save(image, tmp_path / "one.png"), pictures))
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    assert len(np.unique(load(tmp_path / "one.png").pixels)) == 1
