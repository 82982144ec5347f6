"""Object stores: the same command on s3:// as on disk, with a real server."""

from __future__ import annotations

from pathlib import Path

from command_line import cli, folder, snapshot
from cudafilter.stores import remote
from cudafilter.stores.url import Url

__all__ = ["folder"]


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


def test_a_folder_to_a_bucket_and_back_is_the_same_folder(bucket: str, folder: Path) -> None:
    assert cli("sharpen", "-r", "in", "disk").exit_code == 1  # one is broken
    assert cli("sharpen", "-r", "in", f"{bucket}/out/").exit_code == 1
    assert objects(f"{bucket}/out") == snapshot_below("disk")
    for name in ("a.png", "b.jpg", "s/c.png"):
        put(f"{bucket}/in/{name}", Path("in", name).read_bytes())
    result = cli("sharpen", "-r", f"{bucket}/in", "back")
    assert result.exit_code == 0, result.output
    assert snapshot_below("back") == snapshot_below("disk")
    assert "3 done, 0 skipped, 0 failed, 0 left alone" in result.stderr


def snapshot_below(top: str) -> dict[str, bytes]:
    return {name.removeprefix(f"{top}/"): data for name, data in snapshot(top).items()}
