"""Memory and cores that control groups leave, read from a tree of files as the system has it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cudafilter.host import cgroup, cores

GB = 1 << 30
NONE_V1 = "9223372036854771712"
"""What version 1 tells where there is no limit."""

Make = Callable[[str, Mapping[str, str]], None]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes ``proc/cgroup`` of some text, with the mounts and files named; {} is the folder."""
    monkeypatch.setattr(cgroup, "PROC", str(tmp_path / "proc"))

    def make(groups: str, files: Mapping[str, str]) -> None:
        for name, text in {"proc/cgroup": groups, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{}", str(tmp_path)))

    return make


V2 = {
    "proc/mountinfo": "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "30 21 0:26 / {}/sys rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
}
V1 = {
    "proc/mountinfo": "30 21 0:26 / {}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "31 21 0:27 / {}/mem rw - cgroup cgroup rw,memory\n"
}


class TestMemory:
    def test_without_groups_nothing_is_told(self, system: Make) -> None:
        assert cgroup.free_memory() is None
        system("0::/\n", V2)
        assert cgroup.free_memory() is None

    def test_is_that_of_the_group_the_process_is_in(self, system: Make) -> None:
        inner = {"sys/a/b/memory.max": f"{4 * GB}\n", "sys/a/b/memory.current": f"{GB}\n"}
        system("0::/a/b\n", {**V2, **inner})
        assert cgroup.free_memory() == 3 * GB

    def test_is_that_of_the_tightest_above(self, system: Make) -> None:
        groups = {
            "sys/a/memory.max": f"{2 * GB}", "sys/a/memory.current": f"{GB // 2}",
            "sys/a/b/memory.max": f"{4 * GB}", "sys/a/b/memory.current": "0",
            "sys/a/b/c/memory.max": "max", "sys/a/b/c/memory.current": "0",
            "sys/other/memory.max": "1", "sys/other/memory.current": "1",
        }  # fmt: skip
        system("0::/a/b/c\n", {**V2, **groups})
        assert cgroup.free_memory() == 2 * GB - GB // 2

    def test_minds_the_limit_from_which_the_system_slows_a_group(self, system: Make) -> None:
        limits = {"sys/a/memory.max": f"{4 * GB}", "sys/a/memory.high": f"{GB}"}
        system("0::/a\n", {**V2, **limits, "sys/a/memory.current": "0"})
        assert cgroup.free_memory() == GB

    def test_cache_is_not_used_memory(self, system: Make) -> None:
        told = f"anon 5\ninactive_file {GB}\nactive_file {GB // 2}\nshmem 7\nslab_reclaimable 16\n"
        limits = {"sys/a/memory.max": f"{4 * GB}", "sys/a/memory.current": f"{3 * GB}"}
        system("0::/a\n", {**V2, **limits, "sys/a/memory.stat": told})
        assert cgroup.free_memory() == 4 * GB - 3 * GB + GB + GB // 2 + 16

    def test_more_in_use_than_allowed_is_nothing_free(self, system: Make) -> None:
        limits = {"sys/a/memory.max": "5", "sys/a/memory.current": "9"}
        system("0::/a\n", {**V2, **limits})
        assert cgroup.free_memory() == 0

    def test_of_version_1(self, system: Make) -> None:
        groups = {
            "mem/memory.limit_in_bytes": NONE_V1, "mem/memory.usage_in_bytes": "7",
            "mem/a/memory.limit_in_bytes": f"{4 * GB}",
            "mem/a/memory.usage_in_bytes": f"{3 * GB}",
            "mem/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {2 * GB}\n",
            "mem/a/b/memory.limit_in_bytes": NONE_V1, "mem/a/b/memory.usage_in_bytes": "7",
        }  # fmt: skip
        system("4:memory:/a/b\n3:cpu,cpuacct:/\n0::/x\n", {**V1, **groups})
        assert cgroup.free_memory() == 3 * GB

    def test_in_a_container_that_sees_its_own_group_as_the_root(self, system: Make) -> None:
        own = {"sys/memory.max": f"{GB}", "sys/memory.current": "0"}
        system("0::/\n", {**V2, **own})
        assert cgroup.free_memory() == GB

    @pytest.mark.parametrize("path", ["/docker/abc", "/docker/abc/job", "/../sibling"])
    def test_in_a_container_whose_group_is_mounted(self, path: str, system: Make) -> None:
        mount = "30 21 0:27 /docker/abc {}/mem ro - cgroup cgroup rw,memory\n"
        own = {"mem/memory.limit_in_bytes": f"{GB}", "mem/memory.usage_in_bytes": "0"}
        system(f"9:memory:{path}\n", {"proc/mountinfo": mount, **own})
        assert cgroup.free_memory() == GB

    def test_a_mount_with_a_blank_in_its_name(self, system: Make) -> None:
        mount = "30 21 0:26 / {}/a\\040b rw - cgroup2 none rw\n"
        own = {"a b/x:y/memory.max": "99", "a b/x:y/memory.current": "9"}
        system("0::/x:y\n", {"proc/mountinfo": mount, **own})
        assert cgroup.free_memory() == 90

    @pytest.mark.parametrize("text", ["", "rubbish\n", "0::\n"])
    def test_what_is_not_understood_tells_nothing(self, text: str, system: Make) -> None:
        system(text, {"proc/mountinfo": text})
        assert (cgroup.free_memory(), cgroup.cores()) == (None, None)

    def test_counts_beside_the_whole_systems(
        self, system: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1048576 kB\n")
        monkeypatch.setattr(cores, "_PROC", tmp_path / "meminfo")
        assert cores.free_memory() == GB
        limits = {"sys/a/memory.max": "500", "sys/a/memory.current": "0"}
        system("0::/a\n", {**V2, **limits})
        cgroup._groups.cache_clear()
        assert cores.free_memory() == 500


class TestCores:
    @pytest.mark.parametrize(
        ("quota", "count"),
        [("150000 100000", 2), ("100000 100000", 1), ("20000 100000", 1), ("max 100000", None)],
    )
    def test_are_those_of_the_quota_rounded_up(
        self, quota: str, count: int | None, system: Make
    ) -> None:
        system("0::/a\n", {**V2, "sys/a/cpu.max": f"{quota}\n"})
        assert cgroup.cores() == count

    def test_the_tightest_group_above_counts(self, system: Make) -> None:
        groups = {"sys/a/cpu.max": "300000 100000", "sys/a/b/cpu.max": "max 100000"}
        system("0::/a/b\n", {**V2, **groups})
        assert cgroup.cores() == 3

    def test_of_version_1(self, system: Make) -> None:
        groups = {
            "cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n",
            "cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n",
        }  # fmt: skip
        system("3:cpu,cpuacct:/a/b\n4:memory:/\n", {**V1, **groups})
        assert cgroup.cores() == 3

    def test_never_exceed_those_that_the_process_may_use(
        self, system: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
        assert cores.cores() == 4
        cgroup._groups.cache_clear()
        cgroup._cores.cache_clear()
        system("0::/a\n", {**V2, "sys/a/cpu.max": "200000 100000"})
        assert cores.cores() == 2
        cgroup._cores.cache_clear()
        system("0::/a\n", {**V2, "sys/a/cpu.max": "900000 100000"})
        assert cores.cores() == 4


def test_reading_takes_less_than_a_moment() -> None:
    def spent() -> float:
        cgroup._groups.cache_clear()
        cgroup._cores.cache_clear()
        begun = time.process_time()
        cgroup.cores()
        cgroup.free_memory()
        return time.process_time() - begun

    assert min(spent() for _ in range(20)) < 0.001
