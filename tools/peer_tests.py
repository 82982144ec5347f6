"""Other libraries' own tests, with cudafilter in the place of their filters.

    python tools/peer_tests.py                          SciPy, scikit-image, Pillow and kornia
    python tools/peer_tests.py --peers scipy --venv DIR one of them; DIR keeps what was fetched

The libraries and their tests are fetched from the package index into a virtual environment outside
of this checkout, which goes afterwards unless ``--venv`` names it. ``peer_plugin.py`` puts the CPU
engine in the place of the peer's functions, and ``peer_arrays.py`` and ``peer_pillow.py`` tell how.
A test met cudafilter where at least one of its calls was done by it. What fails is run again with
the peer's own functions, and does not count where it fails there too. Prints, of each peer, the
tests that met cudafilter, those that passed, and why the others failed. Exits 1 where a difference
is a fault, as ``peer_adapters.py`` has it, or where a peer was not run.

kornia's tests are in its repository only, so they want GitHub; what its releases carry are examples
in docstrings. Both want PyTorch. An environment of ``--venv`` may have it before, without CUDA.

To add a peer: an entry in ``PEERS``, and in ``replaced()`` of ``peer_plugin.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import venv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent

INDEX = "the package index"


class Peer(NamedTuple):
    """A library, where its tests are, and what they need."""

    package: str
    """As the package index has it, pinned where the tests of others are elsewhere."""
    tests: tuple[str, ...]
    """Modules, or of *source* files."""
    needs: tuple[str, ...] = ()
    source: str = ""
    """Where they are in a source archive only: its address, or INDEX."""
    options: tuple[str, ...] = ()
    """Further ones of pytest."""
    skipped: str = ""
    """What of them is not run, as pytest's -k takes it."""


PEERS = {
    "scipy": Peer(
        "scipy",
        ("scipy.ndimage.tests.test_filters", "scipy.ndimage.tests.test_morphology"),
        ("hypothesis",),
    ),
    # From 0.26 on, its wheels have no tests, and its source archive wants a compiler.
    # What is skipped loads data from elsewhere.
    "scikit-image": Peer(
        "scikit-image==0.25.2",
        (
            *(
                f"skimage.filters.tests.test_{name}"
                for name in ("correlate", "edges", "gaussian", "lpi_filter", "median", "ridges",
                             "thresholding", "unsharp_mask")
            ),
            "skimage.morphology.tests.test_gray",
        ),
        ("pooch",),
        skipped="not cube_decomposition and not octahedron_decomposition",
    ),
    "pillow": Peer(
        "pillow",
        ("Tests/test_image_filter.py", "Tests/test_box_blur.py", "Tests/test_imageops_usm.py"),
        source=INDEX,
    ),
    # What is skipped looks at how kornia does a median.
    "kornia": Peer(
        "kornia",
        (
            *(
                f"tests/filters/test_{name}.py"
                for name in ("bilateral", "blur", "canny", "filters", "gaussian", "laplacian",
                             "median", "motion", "sobel", "unsharp_mask")
            ),
            "tests/morphology",
        ),
        source="https://github.com/kornia/kornia/archive/refs/tags/v{version}.tar.gz",
        skipped="not test_selection_dispatch",
    ),
    "kornia-examples": Peer(
        "kornia", ("kornia.filters", "kornia.morphology"), options=("--doctest-modules",)
    ),
}  # fmt: skip


class Outcome(NamedTuple):
    """What one peer's tests showed."""

    version: str
    met: int
    """Tests with a call that cudafilter did."""
    passed: int
    failed: dict[str, str]
    """Of those, by test: the worst class of difference that its calls had."""
    calls: Counter[str]
    """Calls that cudafilter did, by class of difference."""
    own: Counter[str]
    """Calls that the peer did itself, by reason."""
    faults: list[str]


def command(*words: str | Path, where: Path, limit: float, quiet: bool = True) -> int:
    """Run *words* in *where*; the exit code. Adapters and this checkout can be imported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TOOLS)))}
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(
        [str(word) for word in words], cwd=where, env=environment, stdout=output, timeout=limit,
        check=False,
    ).returncode  # fmt: skip


def fetch(peer: Peer, where: Path, limit: float) -> str:
    """Install *peer* in the environment *where*, and fetch its tests; its version.

    Raises OSError where the index does not give it.
    """
    python = where / "bin" / "python"
    pip = python, "-m", "pip", "--quiet", "--disable-pip-version-check"
    if not python.exists():
        venv.create(where, with_pip=True)
    words: list[str | Path] = [*pip, "install", ROOT, "pytest", peer.package, *peer.needs]
    if command(*words, where=where, limit=limit):
        raise OSError(f"{peer.package} cannot be installed")
    name = peer.package.split("==")[0]
    asked = f"from importlib.metadata import version; print(version({name!r}))"
    version = subprocess.run(
        [python, "-c", asked], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()
    if peer.source and not (where / f"{name}-{version}").exists():
        file = where / f"{name}-{version}.tar.gz"
        words = [*pip, "download", "--no-binary", name, "--no-deps", f"{name}=={version}"]
        if peer.source != INDEX:
            address = peer.source.format(version=version)
            with urllib.request.urlopen(address, timeout=60) as answer:
                file.write_bytes(answer.read())
        elif command(*words, where=where, limit=limit):
            raise OSError(f"the source of {peer.package} cannot be fetched")
        with tarfile.open(file) as archive:
            archive.extractall(where, filter="data")
    return version


def run_tests(
    name: str, tests: Sequence[str], adapted: bool, where: Path, limit: float, quiet: bool
) -> dict[str, Any]:
    """What the plugin counted of *tests*, with cudafilter where *adapted*."""
    peer = PEERS[name]
    figures = where / "figures.json"
    figures.unlink(missing_ok=True)
    words: list[str | Path] = [where / "bin" / "python", "-m", "pytest", "-q", "--tb=line"]
    words += ["-p", "no:cacheprovider", "-p", "peer_plugin"]
    words += ["--figures", figures, *(["--peer", name] if adapted else [])]
    words += ["-k", peer.skipped] if peer.skipped else []
    words += peer.options
    words += [*([] if peer.source else ["--pyargs"]), *tests]
    place = (
        next(path for path in where.glob(f"{name}-*") if path.is_dir()) if peer.source else where
    )
    code = command(*words, where=place, limit=limit, quiet=quiet)
    if not figures.exists():
        raise OSError(f"pytest ended with {code}")
    counted: dict[str, Any] = json.loads(figures.read_text(encoding="utf-8"))
    return counted


SEVERITY = ("fault", "rounding", "clamped", "float32")
"""Classes of difference, the worst first: the reason why a test fails."""


def reason(calls: dict[str, int]) -> str:
    """Why a test with such calls fails: a fault where no difference explains it."""
    return next((each for each in SEVERITY if calls.get(each)), "fault")


def examine(name: str, where: Path, limit: float, quiet: bool) -> Outcome:
    """Fetch the peer *name* and run its tests."""
    version = fetch(PEERS[name], where, limit)
    told = run_tests(name, PEERS[name].tests, True, where, limit, quiet)
    met = set(told["calls"])
    failed = met & {*told["failed"]}
    if failed:
        # By their modules: a peer's own failures are few, and names of tests may hold anything.
        again = run_tests(name, PEERS[name].tests, False, where, limit, quiet)
        failed -= {*again["failed"]}
        met -= {*again["failed"]}
    calls: Counter[str] = Counter()
    for each in told["calls"].values():
        calls.update(each)
    reasons = {test: reason(told["calls"][test]) for test in sorted(failed)}
    passed = met & {*told["passed"]}
    return Outcome(
        version, len(met), len(passed), reasons, calls, Counter(told["own"]), told["faults"]
    )


def show(name: str, found: Outcome) -> None:
    """Print what was found."""
    print(f"{name} {found.version}: {found.met:,} tests met cudafilter: {found.passed:,} passed,"
          f" {len(found.failed)} failed")  # fmt: skip
    done, own = sum(found.calls.values()), sum(found.own.values())
    print(f"  {done:,} calls by cudafilter: {_listed(found.calls)}")
    print(f"  {own:,} calls by {name}: {_listed(found.own)}")
    for test, why in found.failed.items():
        print(f"  failed, {why}: {test.split('/')[-1]}")
    for each in found.faults:
        print(f"  FAULT: {each.split('/')[-1]}")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.most_common())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests that *arguments* name; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS], metavar="PEER")
    parser.add_argument("--venv", type=Path, help="an environment outside of the checkout, kept")
    parser.add_argument("--limit", type=float, default=1200, help="seconds for each step")
    parser.add_argument("--verbose", action="store_true", help="show what pytest prints")
    given = parser.parse_args(arguments)
    wrong = False
    with tempfile.TemporaryDirectory() as scratch:
        where = (given.venv or Path(scratch) / "venv").resolve()
        if where.is_relative_to(ROOT):
            parser.error("--venv must lie outside of the checkout")
        for name in given.peers:
            try:
                found = examine(name, where, given.limit, not given.verbose)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"{name}: not run: {error}")
                wrong = True
                continue
            show(name, found)
            wrong |= bool(found.faults) or "fault" in found.failed.values()
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
