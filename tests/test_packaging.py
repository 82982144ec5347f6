"""What users get: the wheel, the sdist, and an import that starts nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import cudafilter
from cudafilter.engines import nvcc, shipped
from cudafilter.nvidia.toolkit import kernel_sources

ROOT = Path(cudafilter.__file__).resolve().parent.parent
KERNEL = "vanilla", {"X": 1}, "sm_90"
HEAVY = {"numpy", "PIL", "cv2", "pycuda", "scipy", "matplotlib", "platformdirs"}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout, and the wheel made from that sdist.

    Where ``make wheel`` has compiled kernels, there is one, KERNEL.
    """
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(out), "--target"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = out.glob("*.tar.gz")
    shutil.unpack_archive(sdist, out / "unpacked")
    (source,) = (out / "unpacked").iterdir()
    code = {nvcc.package_key(*KERNEL): b"code"}
    shipped.write(source / "cudafilter" / "cubins", KERNEL[2], code, 13, "a test")
    subprocess.run([*build, "wheel"], cwd=source, check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def wheel(built: Path) -> list[str]:
    """The names of the wheel's files."""
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


@pytest.fixture(scope="session")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment of its own that the wheel is installed into, without network.

    Dependencies come from this Python's packages, which the environment is told of.
    """
    place = tmp_path_factory.mktemp("installed")
    venv.create(place)
    python = place / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index",
         "--no-deps", "--no-compile", "--disable-pip-version-check", str(wheel)],
        check=True,
    )  # fmt: skip
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin"


def outside(folder: Path, *command: str | Path) -> str:
    """What *command* prints, run in *folder*, where nothing tells of this checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout + done.stderr


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def run(code: str, *, path: Path = ROOT) -> str:
    """What *code* prints, run by a new Python that finds cudafilter in *path*."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=path,
    )
    return done.stdout.strip()


def test_the_wheel_carries_the_kernels(wheel: list[str]) -> None:
    kernels = {name.rpartition("/")[2] for name in wheel if name.startswith("cudafilter/cuda_src/")}
    assert kernels == files(ROOT / "cuda_src")
    assert {"vanilla.cu", "constant.cu", "tiled.cu", "separable.cu", "pixel.cuh"} <= kernels


def test_the_wheel_is_typed_and_holds_every_module(wheel: list[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "cudafilter").rglob("*.py")}
    assert modules <= set(wheel)
    assert "cudafilter/py.typed" in wheel


def test_the_wheel_holds_the_package_alone(wheel: list[str]) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in wheel} == {"cudafilter"}


def test_the_wheel_brings_the_command_and_the_licence(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        info = f"cudafilter-{cudafilter.__version__}.dist-info"
        scripts = archive.read(f"{info}/entry_points.txt").decode()
        assert "cudafilter = cudafilter.__main__:main" in scripts
        assert "MIT" in archive.read(f"{info}/licenses/LICENSE").decode()


def test_kernels_are_found_from_an_unpacked_wheel(built: Path, tmp_path: Path) -> None:
    (path,) = built.glob("*.whl")
    zipfile.ZipFile(path).extractall(tmp_path)
    print_it = "from cudafilter.nvidia.toolkit import kernel_sources; print(kernel_sources())"
    assert Path(run(print_it, path=tmp_path)) == tmp_path.resolve() / "cudafilter" / "cuda_src"


def test_kernels_are_found_from_an_unpacked_sdist(built: Path) -> None:
    (source,) = (built / "unpacked").iterdir()
    print_it = "from cudafilter.nvidia.toolkit import kernel_sources; print(kernel_sources())"
    assert Path(run(print_it, path=source)) == source.resolve() / "cuda_src"


def test_the_sdist_is_source_only(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {Path(name).parts[1:] for name in archive.getnames()}
    assert {("cuda_src", "vanilla.cu"), ("pyproject.toml",), ("LICENSE",)} <= names
    assert not [name for name in names if "cubins" in name or name[:1] == ("build",)]


@pytest.mark.skipif(os.name == "nt", reason="looks into bin/")
class TestAnInstallation:
    @pytest.mark.parametrize("program", [["cudafilter"], ["python", "-m", "cudafilter"]])
    def test_filters_a_picture_and_proves_it(
        self, installed: Path, tmp_path: Path, program: list[str]
    ) -> None:
        shutil.copy(ROOT / "samples" / "chart.png", tmp_path)
        told = outside(
            tmp_path, installed / program[0], *program[1:], "blur", "--engine", "cpu", "chart.png",
            "soft.png", "--check",
        )  # fmt: skip
        assert "agree" in told
        assert (tmp_path / "soft.png").is_file()

    def test_is_not_this_checkout_and_has_its_own_kernels(
        self, installed: Path, tmp_path: Path
    ) -> None:
        told = outside(
            tmp_path, installed / "python", "-c",
            "import cudafilter; from cudafilter.nvidia.toolkit import kernel_sources\n"
            "print(cudafilter.__file__); print(kernel_sources())",
        )  # fmt: skip
        assert [Path(line).is_relative_to(installed.parent) for line in told.splitlines()] == [
            True, True
        ]  # fmt: skip

    def test_takes_the_kernels_that_came_compiled(self, installed: Path, tmp_path: Path) -> None:
        told = outside(
            tmp_path, installed / "python", "-c",
            f"from cudafilter.engines import nvcc; print(nvcc._from_package(*{KERNEL}))",
        )  # fmt: skip
        assert told.strip() == "b'code'"
        told = outside(tmp_path, installed / "cudafilter", "doctor")
        assert "1 come compiled and undamaged, for sm_90" in told


def test_kernels_are_found_from_here() -> None:
    assert (kernel_sources() / "pixel.cuh").is_file()


@pytest.mark.parametrize("module", ["cudafilter", "cudafilter.cli", "cudafilter.nvidia.toolkit"])
def test_importing_starts_nothing_heavy(module: str) -> None:
    loaded = json.loads(run(f"import json, {module}; print(json.dumps(list(sys.modules)))"))
    assert module in loaded
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["blur", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    told = run(
        f"import json, cudafilter.cli; sys.argv = ['cudafilter', *{arguments}]\n"
        "try: cudafilter.cli.app()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(); print(json.dumps(list(sys.modules)))"
    )
    assert not HEAVY & set(json.loads(told.splitlines()[-1]))
