"""--cluster with URLs: the nodes read and write the objects themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import cli, folder, snapshot
from ray_nodes import HAS_RAY, NO_RAY, two_nodes
from test_cluster import on

__all__ = ["folder"]

pytestmark = pytest.mark.skipif(not HAS_RAY, reason=NO_RAY)


def below(name: str) -> dict[str, bytes]:
    return {path.removeprefix(f"{name}/"): data for path, data in snapshot(name).items()}


def test_a_folder_goes_to_a_bucket_and_back(
    folder: Path, bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "broken.png").unlink()
    words = ("blur", "-r", "--engine", "cpu")
    assert cli(*words, "in", "expected").exit_code == 0
    with two_nodes(tmp_path_factory.mktemp("nodes")) as nodes:  # which have the credentials
        there = on(nodes, *words, "in", f"{bucket}/soft/")
        assert there.returncode == 0, there.stderr
        assert "cluster, cpu: 2 nodes" in there.stderr
        assert cli("box", "--radius", "0", "-r", f"{bucket}/soft/", "got").exit_code == 0
        back = on(nodes, "box", "--radius", "0", "-r", "--engine", "cpu", f"{bucket}/soft/", "back")
        assert back.returncode == 0, back.stderr
        refused = on(nodes, *words, "in", "memory://here/")
        assert refused.returncode == 2
        assert "memory://here/a.png is in this process's memory only" in refused.stderr
    assert below("got") == below("back")
    assert len(below("got")) == len(below("expected")) == 3
    for name, data in below("expected").items():
        if name.endswith(".png"):  # a box of one pixel leaves those as they are
            assert below("back")[name] == data
