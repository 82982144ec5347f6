"""What an output does to the file that it replaces, and to its folder."""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from cudafilter.errors import ImageError
from cudafilter.stores import attributes, local

ROOT = os.geteuid() == 0
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER, USER_NAMED, GROUP, MASK, OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20


def replaced(path: Path) -> tuple[str, ...]:
    """The notes of a write to *path*."""
    return local.write_whole(local.resolve(path), b"new")


def access_list(*entries: tuple[int, int]) -> bytes:
    """An access list as the system's attribute holds it, of (tag, permissions)."""
    nobody = 0xFFFFFFFF
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, 4711 if tag == USER_NAMED else nobody)
        for tag, bits in entries
    )


def attach(path: Path, name: str, value: bytes) -> None:
    """Set an extended attribute, or skip the test where the file system has none."""
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"no {name} here: {error.strerror}")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.png"
    path.write_bytes(b"old")
    return path


class TestPermissions:
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o664, 0o755])
    def test_stay(self, old: Path, mode: int) -> None:
        old.chmod(mode)
        assert replaced(old) == ()
        assert stat.S_IMODE(old.stat().st_mode) == mode
        assert old.read_bytes() == b"new"

    @pytest.mark.parametrize("exists", [False, True])
    def test_nobody_else_reads_what_is_not_complete(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
    ) -> None:
        path = tmp_path / "x.png"
        if exists:
            path.write_bytes(b"old")
            path.chmod(0o644)
        modes, write = [], os.write

        def watched(file: int, data: bytes) -> int:
            modes.append(stat.S_IMODE(os.fstat(file).st_mode))
            return write(file, data[:1])

        monkeypatch.setattr(os, "write", watched)
        replaced(path)
        assert modes == [0o600] * 3

    def test_of_a_new_file_are_what_the_folders_default_list_grants(self, tmp_path: Path) -> None:
        entries = (USER, 7), (USER_NAMED, 7), (GROUP, 5), (MASK, 6), (OTHERS, 0)
        attach(tmp_path, DEFAULT, access_list(*entries))
        (tmp_path / "as the system does").touch()
        replaced(tmp_path / "new.png")
        expected, got = (
            (path.stat().st_mode, os.getxattr(path, ACCESS))
            for path in (tmp_path / "as the system does", tmp_path / "new.png")
        )
        assert got == expected

    def test_of_a_new_file_by_a_default_list_without_names(self, tmp_path: Path) -> None:
        attach(tmp_path, DEFAULT, access_list((USER, 6), (GROUP, 4), (OTHERS, 0)))
        (tmp_path / "as the system does").touch()
        replaced(tmp_path / "new.png")
        assert (tmp_path / "new.png").stat().st_mode == (
            tmp_path / "as the system does"
        ).stat().st_mode


class TestOwner:
    @pytest.mark.skipif(not ROOT, reason="only root gives files away")
    def test_stays_and_with_it_the_set_id_bits(self, old: Path) -> None:
        os.chown(old, 4711, 4712)
        old.chmod(0o6755)
        assert replaced(old) == ()
        status = old.stat()
        assert (status.st_uid, status.st_gid) == (4711, 4712)
        assert stat.S_IMODE(status.st_mode) == 0o6755

    @pytest.mark.parametrize(
        ("user", "group", "mode", "told"),
        [
            (1, 0, 0o664, "its owner could not be kept"),
            (0, 1, 0o644, "its group could not be kept"),
            (1, 1, 0o644, "its owner and group could not be kept"),
        ],
    )
    def test_that_cannot_stay_is_told_and_nobody_gains_by_it(
        self, old: Path, monkeypatch: pytest.MonkeyPatch, user: int, group: int, mode: int,
        told: str,
    ) -> None:  # fmt: skip
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "fchown", refuse)
        old.chmod(0o6664)
        status = list(old.stat())
        status[stat.ST_UID] += user
        status[stat.ST_GID] += group
        (note,) = local.write_whole(local.Target(old, old, os.stat_result(status)), b"new")
        assert note == f"{told}, and the file is yours now"
        assert stat.S_IMODE(old.stat().st_mode) == mode


class TestAttributes:
    def test_stay(self, old: Path) -> None:
        attach(old, "user.rating", b"5\0")
        attach(old, "user.tags", b"red")
        assert replaced(old) == ()
        assert os.getxattr(old, "user.rating") == b"5\0"
        assert os.getxattr(old, "user.tags") == b"red"

    def test_that_cannot_stay_are_told(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        attach(old, "user.rating", b"5")

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "setxattr", refuse)
        assert replaced(old) == ("extended attributes could not be kept: user.rating",)
        assert old.read_bytes() == b"new"

    def test_that_vouch_for_the_old_content_go(
        self, old: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[str] = []
        names = ["security.capability", "security.ima", "security.evm", "security.selinux"]
        monkeypatch.setattr(os, "listxattr", lambda path: names)
        monkeypatch.setattr(os, "getxattr", lambda path, name: b"x")
        monkeypatch.setattr(os, "setxattr", lambda file, name, value: given.append(name))
        file = os.open(old, os.O_WRONLY)
        assert attributes.carry_over(old.stat(), old, file) == ()
        os.close(file)
        assert given == ["security.selinux"]

    def test_an_access_list_stays(self, old: Path) -> None:
        entries = (USER, 6), (USER_NAMED, 6), (GROUP, 0), (MASK, 6), (OTHERS, 0)
        attach(old, ACCESS, access_list(*entries))
        before = old.stat().st_mode
        assert replaced(old) == ()
        assert os.getxattr(old, ACCESS) == access_list(*entries)
        assert old.stat().st_mode == before

    def test_without_its_access_list_a_file_opens_to_nobody(
        self, old: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entries = (USER, 6), (USER_NAMED, 6), (GROUP, 0), (MASK, 6), (OTHERS, 0)
        attach(old, ACCESS, access_list(*entries))
        assert stat.S_IMODE(old.stat().st_mode) == 0o660, "the group's bits are the mask's"

        def refuse(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(os, "setxattr", refuse)
        assert replaced(old) == ("its access control list could not be kept",)
        assert stat.S_IMODE(old.stat().st_mode) == 0o600

    def test_the_folders_default_list_does_not_open_a_file_that_had_none(self, old: Path) -> None:
        old.chmod(0o660)
        entries = (USER, 7), (USER_NAMED, 7), (GROUP, 7), (MASK, 7), (OTHERS, 7)
        attach(old.parent, DEFAULT, access_list(*entries))
        replaced(old)
        assert ACCESS not in os.listxattr(old)
        assert stat.S_IMODE(old.stat().st_mode) == 0o660


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (1, "it had 2 hard links, and the other name keeps the old picture"),
        (2, "it had 3 hard links, and the other names keep the old picture"),
    ],
)
def test_hard_links_that_part_are_told(old: Path, more: int, told: str) -> None:
    for number in range(more):
        (old.parent / f"{number}.png").hardlink_to(old)
    assert replaced(old) == (told,)
    assert (old.parent / "0.png").read_bytes() == b"old"


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    path = tmp_path / "x.png"
    if exists:
        path.write_bytes(b"old")
    write, parts = os.write, iter([3])

    def full(file: int, data: bytes) -> int:
        for most in parts:
            return write(file, data[:most])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ImageError, match=r"x\.png: cannot be written: No space left"):
        local.write_atomically(path, b"content")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"old"] if exists else [])


def written(data: bytes, path: str | Path, reader: int | Path) -> bytes:
    """What *reader* gets of *data* that is written to *path*."""
    got: list[bytes] = []

    def read() -> None:
        with open(reader, "rb") as pipe:
            got.append(pipe.read(len(data)))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    local.write_atomically(Path(path), data)
    thread.join(10)
    return got[0]


class TestStreams:
    DATA = bytes(range(256)) * 1000
    """More than a pipe holds."""

    def test_a_descriptor_gets_all(self) -> None:
        reader, writer = os.pipe()
        assert written(self.DATA, f"/dev/fd/{writer}", reader) == self.DATA
        os.close(writer)

    def test_a_link_to_a_descriptor_is_one(self, tmp_path: Path) -> None:
        reader, writer = os.pipe()
        (tmp_path / "out.png").symlink_to(f"/proc/self/fd/{writer}")
        assert written(self.DATA, tmp_path / "out.png", reader) == self.DATA
        assert (tmp_path / "out.png").is_symlink()
        os.close(writer)

    def test_a_named_pipe_gets_all_and_stays(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert written(self.DATA, tmp_path / "pipe", tmp_path / "pipe") == self.DATA
        assert [path.name for path in tmp_path.iterdir()] == ["pipe"]

    def test_an_open_file_is_gone_on_with(self, tmp_path: Path) -> None:
        with open(tmp_path / "log", "wb", buffering=0) as file:
            file.write(b"before ")
            local.write_atomically(Path(f"/dev/fd/{file.fileno()}"), b"data")
            file.write(b" after")
        assert (tmp_path / "log").read_bytes() == b"before data after"

    def test_a_reader_that_has_gone_is_told(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with pytest.raises(ImageError, match="cannot be written: its reader has gone"):
            local.write_atomically(Path(f"/dev/fd/{writer}"), self.DATA)
        os.close(writer)

    @pytest.mark.parametrize("names", [["0"], ["folder", "folder/0"]])
    def test_a_file_that_is_called_as_a_number_is_a_file(
        self, tmp_path: Path, names: Sequence[str]
    ) -> None:
        assert local.descriptor(tmp_path / names[-1]) is None
        assert not local.is_stream(tmp_path / names[-1])
