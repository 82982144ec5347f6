"""A package that cudafilter needs is not there or does not load: it is named, no file is blamed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from command_line import ENVIRONMENT, HOME, PROGRAM, picture
from cudafilter.errors import in_words

pytestmark = pytest.mark.usefixtures("here")

AGAIN = "install cudafilter again, which brings it"
CUT = "libGL.so.1: cannot open shared object file: No such file or directory"
ABSENT = "raise ModuleNotFoundError('No module named ' + repr(__name__), name=__name__)"
BROKEN = f"raise ImportError({CUT!r}, name=__name__)"


def without(package: str, *words: str, module: str = ABSENT) -> subprocess.CompletedProcess[str]:
    """The program with *module* in place of *package*."""
    folder = Path("instead")
    folder.mkdir(exist_ok=True)
    folder.joinpath(f"{package}.py").write_text(module)
    path = f"{folder.resolve()}:{HOME}"
    return subprocess.run(
        [*PROGRAM, *words], env={**ENVIRONMENT, "PYTHONPATH": path},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("click", "--help"),
        ("numpy", "box in.png out.png"),
        ("numpy", "info"),
        ("cv2", "box in.png out.png"),
        ("isal", "box in.png out.png"),
        ("PIL", "box in.gif out.png"),
        ("PIL", "box in.png out.webp"),
    ],
)
def test_it_is_named_with_what_mends_it(package: str, words: str) -> None:
    for name in ("in.png", "in.gif"):
        picture(name)
    done = without(package, *words.split())
    assert done.returncode == 1
    told = f"the package {package} does not load: No module named '{package}'"
    assert told in done.stderr
    assert AGAIN in done.stderr
    for wrong in ("Traceback", "damaged", "unexpected"):
        assert wrong not in done.stderr


def test_a_library_that_the_system_lacks_is_told() -> None:
    picture("in.png")
    done = without("cv2", "box", "in.png", "out.png", module=BROKEN)
    assert (done.returncode, done.stderr.splitlines()) == (
        1, [f"error: the package cv2 does not load: {CUT}", f"hint: {AGAIN}"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("package", "checks"), [("numpy", {"cpu engine", "codecs"}), ("cv2", {"cpu engine", "jpeg"})]
)
def test_doctor_goes_on(package: str, checks: set[str]) -> None:
    done = without(package, "doctor", "--json")
    found = {each["check"]: each for each in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert found["limits"]["status"] == "ok"
    for check in checks:
        assert found[check]["status"] == "FAULT"
        assert f"the package {package} does not load" in found[check]["told"]
        assert found[check]["mend"] == AGAIN


def test_of_a_long_account_the_cause_is_told() -> None:
    """NumPy wraps what its compiled part says into a page of advice."""
    inner = ImportError("undefined symbol: PyX", name="_multiarray_umath")
    outer = ImportError("\n\nIMPORTANT: PLEASE READ THIS\n\nmany lines\n")
    outer.__cause__ = inner
    inner.path = "/env/lib/python3.11/site-packages/numpy/_core/_multiarray_umath.so"
    assert in_words(outer) == ("the package numpy does not load: undefined symbol: PyX", AGAIN)
    assert in_words(ImportError("cannot import")) == (
        "a package does not load: cannot import",
        AGAIN,
    )
