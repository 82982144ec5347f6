"""What installs it elsewhere, environment.yml and the Dockerfile, against what it needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTALL = (ROOT / "docs" / "install.md").read_text()
OLDEST = "3.11"
NEWEST = "3.14"


def test_each_place_names_the_same_pythons() -> None:
    minors = range(int(OLDEST[2:]), int(NEWEST[2:]) + 1)
    listed = [
        classifier.rpartition(" ")[2]
        for classifier in PROJECT["project"]["classifiers"]
        if re.search(r":: Python :: 3\.\d", classifier)
    ]
    assert listed == [f"3.{minor}" for minor in minors]
    assert PROJECT["project"]["requires-python"] == f">={OLDEST}"
    assert f"Python {OLDEST} to {NEWEST}" in INSTALL
    tried = re.search(r"for python in python3 (.*); do", (ROOT / "Makefile").read_text())
    assert tried is not None
    assert tried[1].split() == [f"python3.{minor}" for minor in reversed(minors)]


class TestConda:
    LINES = tuple((ROOT / "environment.yml").read_text().splitlines())

    def test_is_yaml_of_the_plainest_kind(self) -> None:
        kinds = r"#.*|name: \w+|(channels|dependencies):|  - [\w.>=-]+|  - pip:|      - [\w.\[\]]+"
        assert [line for line in self.LINES if line and not re.fullmatch(kinds, line)] == []

    def test_takes_from_conda_what_must_be_built_or_shared_by_the_same_bounds(self) -> None:
        extras = PROJECT["project"]["optional-dependencies"]
        pycuda = next(each for each in extras["cuda"] if each.startswith("pycuda"))
        numpy = next(each for each in PROJECT["project"]["dependencies"] if "numpy" in each)
        assert {pycuda, numpy, "cuda-nvrtc", f"python>={OLDEST}", "pip"} <= {
            line.removeprefix("  - ") for line in self.LINES
        }  # fmt: skip

    def test_takes_the_rest_from_this_checkout(self) -> None:
        extra = re.fullmatch(r"      - \.\[(\w+)\]", self.LINES[-1])
        assert extra is not None
        assert extra[1] in PROJECT["project"]["optional-dependencies"]


class TestDocker:
    """As long as no machine here has a container engine, what matters is pinned."""

    TEXT = (ROOT / "Dockerfile").read_text()
    BUILD, FINAL = TEXT.partition("FROM ${BASE} AS build")[2].split("\nFROM ")

    def test_both_stages_are_of_nvidias_smallest_image_which_has_no_toolkit(self) -> None:
        assert re.search(r"^ARG BASE=nvidia/cuda:13\.\d\.\d-base-ubuntu24\.04$", self.TEXT, re.M)
        assert self.FINAL.startswith("${BASE}\n")
        assert "devel" not in self.TEXT

    def test_pycuda_is_built_without_a_driver_in_the_first(self) -> None:
        assert "g++ python3-dev" in self.BUILD
        assert "cudafilter.install_cuda --wheel /wheels" in self.BUILD
        assert "/wheels/*.whl" in self.BUILD

    def test_takes_extras_that_there_are(self) -> None:
        named = re.findall(r"EXTRAS=([\w,]+)", self.TEXT)
        assert len(named) == 2  # by default, and in the example
        for extras in named:
            assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
        assert '".[${EXTRAS}]"' in self.BUILD

    def test_what_is_built_is_tried(self) -> None:
        assert "cudafilter doctor" in self.BUILD

    def test_the_second_has_no_compiler_and_no_rights(self) -> None:
        assert not re.search(r"g\+\+|gcc|nvcc|-dev\b|venv|pip", self.FINAL)
        assert "COPY --from=build /opt/cudafilter /opt/cudafilter" in self.FINAL
        assert re.search(r"^USER [1-9]\d*:", self.FINAL, re.M)
        assert 'ENTRYPOINT ["cudafilter"]' in self.FINAL

    def test_the_context_has_what_the_wheel_is_built_from(self) -> None:
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        let_in = {line[1:] for line in lines if line.startswith("!")}
        hatch = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
        project = PROJECT["project"]
        assert "*" in lines
        assert let_in == {
            "pyproject.toml", project["readme"], *project["license-files"], *hatch["only-include"]
        }  # fmt: skip
