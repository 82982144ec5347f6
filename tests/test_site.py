"""The site of the documents: a page for each filter, whole links, and the same in other tools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from PIL import Image

from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.parameter import FilterSpec
from test_docs import DOCUMENTS, anchors, without_blocks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import elsewhere
from elsewhere import ROOT

TOLD: dict[str, dict[str, Any]] = tomllib.loads(
    (ROOT / "docs" / "filters.toml").read_text(encoding="utf-8")
)
PUBLISHED = json.loads((ROOT / "docs" / "figures" / "elsewhere.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that docs/make_site.py writes; without pictures, which take half a minute."""
    folder = tmp_path_factory.mktemp("site")
    script = [sys.executable, str(ROOT / "docs" / "make_site.py")]
    subprocess.run([*script, str(folder), "--no-pictures"], check=True, timeout=120)
    return folder


def listed(contents: Any) -> list[str]:
    """The pages in the navigation, in its order."""
    if isinstance(contents, str):
        return [contents]
    each = contents.values() if isinstance(contents, dict) else contents
    return [page for inner in each for page in listed(inner)]


def test_every_page_is_in_the_navigation_once(site: Path) -> None:
    told = listed(json.loads((site / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    there = [path.relative_to(site / "pages").as_posix() for path in site.rglob("*.md")]
    assert sorted(told) == sorted(there)
    filters = [f"docs/filters/{name}.md" for name in CATALOGUE]
    assert set(told) == {*DOCUMENTS, *filters}
    assert [page for page in told if page in filters] == filters


def test_every_link_leads_somewhere(site: Path) -> None:
    pages, broken = site / "pages", []
    for page in pages.rglob("*.md"):
        text = without_blocks(page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            led = page.parent / path if path else page
            made_later = led.suffix == ".jpg" and led.parent.name == "filters"
            if target.startswith("https://") or made_later:
                continue
            if not led.is_file() or (anchor and anchor not in anchors(led)):
                broken.append((page.name, target))
    assert broken == []


@pytest.mark.parametrize("spec", CATALOGUE.values(), ids=list(CATALOGUE))
def test_a_filters_page_tells_all_of_it(spec: FilterSpec, site: Path) -> None:
    text = (site / "pages" / "docs" / "filters" / f"{spec.name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {spec.name}\n\n{spec.summary}\n")
    assert f"]({spec.name}.jpg)" in text
    assert spec.example in text
    for parameter in spec.parameters:
        assert f"| `--{parameter.name}` | {parameter.help} | {parameter.limits} |" in text
    for part in ("\n## Mathematics\n", "\n## The same elsewhere\n"):
        assert part in text, "add what docs/filters.toml says of other filters"


@pytest.mark.parametrize("name", CATALOGUE)
def test_what_is_told_of_a_filter_is_whole(name: str) -> None:
    told = TOLD[name]
    assert set(told) <= {"options", "gray", "mathematics", "source", "note", *elsewhere.TITLES}
    assert told["mathematics"].strip()
    assert told["source"].endswith(".")
    assert {"opencv", "skimage"} & set(told)
    assert list(TOLD) == list(CATALOGUE)


@pytest.mark.parametrize("tool", elsewhere.TITLES)
def test_the_same_in_other_tools_is_as_near_as_published(tool: str) -> None:
    """OpenCV is always here. Where other versions are, a tool may be off by one more."""
    if not elsewhere.is_here(tool):
        pytest.skip(f"{elsewhere.TITLES[tool]} is not installed")
    column = PUBLISHED["columns"].index(elsewhere.TITLES[tool])
    published = {row[0].strip("`"): row[column] for row in PUBLISHED["rows"]}
    assert list(published) == list(CATALOGUE)
    for name, told in TOLD.items():
        assert (tool in told) == (published[name] is not None), name
        if tool in told:
            most, _, _ = str(published[name]).partition(" ")
            largest, mean = elsewhere.difference(name, tool)
            assert largest <= int(most) + (int(most) > 1), name
            assert mean < 1 or largest > 1


def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLD["blur"], "opencv", "out = image")
    monkeypatch.setattr(elsewhere, "FILTERS", TOLD)
    assert elsewhere.difference("blur", "opencv")[0] > 100


@pytest.fixture(scope="module")
def built(site: Path) -> Path:
    """The folder of the HTML, built without a warning."""
    builder = shutil.which("zensical")
    if builder is None:
        pytest.skip("Zensical is not installed: the extra docs")
    for name in CATALOGUE:
        Image.new("RGB", (910, 608)).save(site / "pages" / "docs" / "filters" / f"{name}.jpg")
    build = [builder, "build", "--strict", "--config-file", str(site / "mkdocs.yml")]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    return site / "site"


def test_the_site_asks_nothing_of_others(built: Path) -> None:
    pages = list(built.rglob("*.html"))
    assert built / "docs" / "filters" / "blur.html" in pages
    for page in pages:
        loaded = r'<(?:script|img|link)\b[^>]*\b(?:src|href)="?(https?:[^">\s]+)'
        assert re.findall(loaded, page.read_text(encoding="utf-8")) == [], page


PROBE = """<body>FRAMES<script>
onload = () => {
  const wide = [...document.querySelectorAll("iframe")].filter(
    frame => frame.contentDocument.documentElement.scrollWidth > frame.width
  );
  document.body.innerHTML = "wide: [" + wide.map(frame => frame.title).join(" ") + "]";
}
</script>"""
"""A page of pages: it tells which of them are wider than their frame."""


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_their_window_and_the_console_is_silent(
    width: int, scheme: int, built: Path
) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("Chromium is not installed")
    names = [path.relative_to(built).as_posix() for path in built.rglob("*.html")]
    names.remove("404.html")  # its links begin at the root of a site
    frames = [f'<iframe src="/{name}" title="{name}" width="{width}"></iframe>' for name in names]
    (built / "probe").write_text(PROBE.replace("FRAMES", "".join(frames)), encoding="utf-8")
    with serving(built) as address:
        done = subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", f"{address}/probe",
            ],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
    assert "wide: []" in done.stdout, done.stdout[-2000:]
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address at which *folder* is served; what has no extension is HTML."""

    class Quiet(SimpleHTTPRequestHandler):
        extensions_map: ClassVar[dict[str, str]] = {  # type: ignore[misc]
            **SimpleHTTPRequestHandler.extensions_map, "": "text/html"
        }  # fmt: skip

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
