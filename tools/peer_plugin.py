"""Puts cudafilter in the place of a peer's functions in its own tests: a plugin of pytest.

    python -m pytest -p peer_plugin --peer scipy --figures met.json --pyargs scipy.ndimage.tests

``peer_tests.py`` runs it. Functions are replaced once pytest has collected the tests, in
modules and in parameters.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from peer_adapters import TALLY, Function
from peer_arrays import SCIPY, SKIMAGE, by_arrays
from peer_pillow import by_box_blur, by_pillow

PACKAGES = {"scikit-image": "skimage", "kornia": "kornia", "kornia-examples": "kornia"}
"""Of peers that call their own functions: the package in whose modules these are replaced, too."""


def pytest_addoption(parser: Any) -> None:
    """The options of ``peer_tests.py``."""
    parser.addoption("--peer", choices=("scipy", "pillow", *PACKAGES))
    parser.addoption("--figures", type=Path, help="write what was met to this file")


def replaced(peer: str) -> dict[Function, Function]:
    """The functions of *peer*, and what is to stand for each."""
    made: dict[Function, Function] = {}
    if PACKAGES.get(peer) == "kornia":
        import peer_kornia as kornia  # it imports PyTorch

        for module, ways in (("filters", kornia.FILTERS), ("morphology", kornia.MORPHOLOGY)):
            for name, way in ways.items():
                peers = getattr(import_module(f"kornia.{module}"), name)
                made[peers] = kornia.adapter(name, peers, way)
        kornia.put_compilers(made)
        return made
    modules = [("scipy.ndimage", SCIPY)] if peer != "pillow" else []
    if peer == "scikit-image":
        modules.append(("skimage.filters", SKIMAGE))
    for module, makers in modules:
        for name, maker in makers.items():
            peers = getattr(import_module(module), name)
            made[peers] = TALLY.adapter(name, peers, by_arrays(maker))
    if peer == "pillow":
        from PIL import Image

        made[Image.Image.filter] = TALLY.adapter("filter", Image.Image.filter, by_pillow)
    return made


def _put(holder: Any, made: dict[Function, Function]) -> None:
    """Replace what *holder* has by name."""
    for name, value in list(vars(holder).items()):
        if inspect.isroutine(value) and value in made:
            setattr(holder, name, made[value])


def _swapped(value: Any, made: dict[Function, Function]) -> Any:
    """*value*, a parameter of a test, with functions replaced."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_swapped(each, made) for each in value)
    return made.get(value, value) if inspect.isroutine(value) else value


def pytest_collection_modifyitems(config: Any, items: Sequence[Any]) -> None:
    """Replace the peer's functions in its tests, once these are collected."""
    examples = [item.dtest.globs for item in items if hasattr(item, "dtest")]
    for names in examples:  # what they take for granted
        names.update({each: import_module(each) for each in ("numpy", "torch", "kornia")})
    if not (peer := config.getoption("--peer")):
        return
    made = replaced(peer)
    holders = {item.module for item in items if hasattr(item, "module")}
    for names in examples:
        names.update({name: made[value] for name, value in names.items()
                      if inspect.isroutine(value) and value in made})  # fmt: skip
    if peer == "pillow":
        from PIL import Image

        holders.add(Image.Image)
        for module in {m for m in holders if getattr(m, "box_blur", None)}:
            made[module.box_blur] = TALLY.adapter("box_blur", module.box_blur, by_box_blur)
    if "scipy.ndimage" in sys.modules:
        holders.add(sys.modules["scipy.ndimage"])
    if package := PACKAGES.get(peer):
        holders |= {m for name, m in sys.modules.items() if name.split(".")[0] == package}
    for holder in holders:
        _put(holder, made)
    for item in items:
        if params := getattr(getattr(item, "callspec", None), "params", None):
            for name, value in params.items():
                params[name] = _swapped(value, made)


def pytest_runtest_setup(item: Any) -> None:
    """Tell which test the calls are of."""
    TALLY.test = item.nodeid


def pytest_runtest_logreport(report: Any) -> None:
    """Count the test by its outcome."""
    if report.failed:
        TALLY.failed.add(report.nodeid)
    elif report.when == "call" and (report.passed or hasattr(report, "wasxfail")):
        TALLY.passed.add(report.nodeid)


def pytest_sessionfinish(session: Any) -> None:
    """Write the figures."""
    if path := session.config.getoption("--figures"):
        figures = {
            "calls": {test: dict(calls) for test, calls in TALLY.calls.items()},
            "own": dict(TALLY.own),
            "faults": TALLY.faults,
            "passed": sorted(TALLY.passed - TALLY.failed),
            "failed": sorted(TALLY.failed),
        }
        path.write_text(json.dumps(figures, indent=1), encoding="utf-8")
