"""What bench draws: charts that show every figure, on a page that needs nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from command_line import ENVIRONMENT, cli
from cudafilter.cli import bench_page, chart
from cudafilter.cli.chart import Series
from cudafilter.engines.bench import Case, Row

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Takes a page apart; an end that closes nothing fails."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data


def gpu_cases() -> list[Case]:
    """Figures as of a GPU: a copy, two kernels, the CPU, and a kernel that cannot."""
    cases = []
    for size in (512, 2048):
        case = Case("blur", size, "uint8", 3, copy_ms=size / 1e5)
        case.rows = [
            Row("cpu", None, total_ms=size / 100, times_cpu=1.0, exact_share=0.5),
            Row("cuda", "tiled", total_ms=0.5, kernel_ms=size / 5e4, gb_per_s=1500.0,
                copy_share=0.5, times_cpu=20.0, times_vanilla=3.0, exact_share=1.0),
            Row("cuda", "auto (tensor)", total_ms=0.5, kernel_ms=size / 8e4, exact_share=1.0),
            Row("cuda", "box", why_not="it takes <equal> weights & no others"),
        ]  # fmt: skip
        cases.append(case)
    return cases


def page(cases: list[Case], note: str | None = None) -> str:
    return bench_page.page(cases, ["cpu: OpenCV", "cuda: <GPU>"], note, "cudafilter bench")


def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere() -> None:
    text = page(gpu_cases(), "no <CUDA>")
    read = Reader(text)
    tags = {tag for tag, _ in read.seen}
    assert not tags & {"script", "link", "img", "iframe", "object", "image", "use"}
    assert not re.search(r"https?:|url\(|@import|src=|href=", text)
    assert "&lt;GPU&gt;" in text
    assert "no &lt;CUDA&gt;" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        read.seen
    )
    assert "prefers-color-scheme: dark" in text


def test_tables_hold_all_figures() -> None:
    rows = Reader(page(gpu_cases())).cells
    assert ["", *bench_page.COLUMNS] in rows
    assert ["cpu", "-", "5.12", "-", "-", "1.00", "-", "50.00"] in rows
    assert ["cuda tiled", "0.0102", "0.50", "1,500", "50.0", "20.00", "3.00", "100.00"] in rows
    assert ["cuda box", "it takes <equal> weights & no others"] in rows


def test_charts_have_a_line_for_each_variant_and_the_copy_as_floor() -> None:
    times, roofline = re.findall(r"<svg.*?</svg>", page(gpu_cases()), re.DOTALL)
    for name in ("copy", "cpu, total", "cuda tiled", "cuda auto"):
        assert f">{name}</text>" in times
    assert "cuda box" not in times
    assert times.count('class="line floor"') == 2  # itself, and in the legend
    assert "cuda tiled: 0.041 at 2,048" in times
    assert "cpu" not in roofline
    looks = [re.findall(r"--c\d(?=.*<title>cuda tiled)", one) for one in (times, roofline)]
    assert looks[0][0] == looks[1][0]
    assert 'class="line floor"' in roofline


def test_without_a_gpu_the_cpu_stands_alone_and_that_is_said() -> None:
    case = Case("blur", 512, "uint8", 1, rows=[Row("cpu", None, total_ms=2.0, exact_share=1.0)])
    text = page([case])
    times, roofline = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert "cpu, total: 2 at 512" in times
    assert "cpu, total" in roofline
    assert "no GPU was timed" in text
    assert "floor" not in times


def test_a_chart_places_values_by_their_logarithm() -> None:
    drawn = chart.chart("t", "x", "y", {"a": Series([(1, 1), (10, 10), (100, 100)])})
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="(\S+)" cy="(\S+)"', drawn)][:3]
    (x0, y0), (x1, y1), (x2, y2) = dots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert chart.LEFT <= x0 < x2 <= chart.WIDTH - chart.RIGHT
    assert chart.TOP <= y2 < y0 <= chart.HEIGHT - chart.BOTTOM


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([512, 2048, 8192], [500, 1000, 2000, 5000]),
        ([7, 7], [5, 10]),
        ([2.1, 4.3], [3, 4]),
        ([0.002, 300], [0.01, 0.1, 1, 10, 100]),
        ([1e-6, 1e12], [1e-6, 1e-2, 1e2, 1e6, 1e10]),
    ],
)
def test_axes_mark_round_values(values: list[float], ticks: list[float]) -> None:
    assert chart._Axis(values).ticks == pytest.approx(ticks)


def test_no_word_of_a_chart_leaves_it() -> None:
    names = [f"cuda {'x' * n}" for n in range(1, 40, 2)]
    drawn = chart.chart("title", "x", "y", {name: Series([(1e5, 1e7)]) for name in names})
    width, height = (float(n) for n in re.findall(r'viewBox="0 0 (\S+) (\S+)"', drawn)[0])
    for x, y, anchor, text in re.findall(
        r'<text x="(\S+)" y="(\S+)" text-anchor="(\w+)">(.*?)</text>', drawn
    ):
        wide = chart.LETTER * len(text) * {"start": 1, "middle": 0.5, "end": 0}[anchor]
        before = chart.LETTER * len(text) * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        assert float(x) - before >= -1
        assert float(x) + wide <= width
        assert float(y) <= height


def test_no_two_of_24_lines_look_the_same() -> None:
    series = {str(n): Series([(1, 1), (2, 2)]) for n in range(24)}
    drawn = chart.chart("t", "x", "y", series)
    looks = re.findall(r'style="(stroke: [^"]*)"', drawn)
    assert len(set(looks)) == 24


def test_a_file_of_its_own_is_well_formed() -> None:
    root = ElementTree.fromstring(bench_page.svg([*gpu_cases(), Case("box", 9, "uint8", 1)]))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 2


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

MEASURE = """<!doctype html><iframe id="f" style="width:{width}px;height:900px;border:0"
 srcdoc="{page}"></iframe><script>f.onload = () => {{
  const d = f.contentDocument, letters = [...d.querySelectorAll("svg text")];
  document.title = [d.documentElement.scrollWidth, Math.min(...letters.map(
    t => t.getBoundingClientRect().height)), getComputedStyle(d.body).backgroundColor].join(" ");
}}</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it_on_a_telephone_and_on_a_desk(
    width: int, dark: bool, here: Path
) -> None:
    assert CHROMIUM is not None
    Path("m.html").write_text(MEASURE.format(width=width, page=escape(page(gpu_cases()))))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"]
    words += [
        f"--user-data-dir={here / 'user'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]
    done = subprocess.run(
        [CHROMIUM, *words, "--enable-logging=stderr", "--dump-dom", f"file://{here / 'm.html'}"],
        capture_output=True, text=True, check=True, timeout=90,
    )  # fmt: skip
    (title,) = re.findall("<title>(.*?)</title>", done.stdout)[:1]
    across, letter, paper = title.split(" ", 2)
    assert int(across) <= width  # the page does not scroll sideways
    assert float(letter) >= 10
    assert paper == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
    assert "CONSOLE" not in done.stderr


@pytest.mark.usefixtures("here")
def test_bench_writes_both() -> None:
    words = ["bench", "blur", "--engine", "cpu", "--sizes", "16,32", "--repeat", "1"]
    done = cli(*words, "--plot", "p.svg", "--html", "r.html")
    assert done.exit_code == 0, done.stderr
    assert "plot: p.svg\npage: r.html\n" in done.stderr
    ElementTree.parse("p.svg")
    rows = Reader(Path("r.html").read_text(encoding="utf-8")).cells
    assert [row[0] for row in rows] == ["", "cpu"] * 4


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--plot p.png", "p.png: its name must end in .svg"),
        ("--html r.txt", "r.txt: its name must end in .html"),
        ("--html no/r.html", "no/r.html: the folder no does not exist"),
        ("--html dir.html", "dir.html: it is a folder"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_file_that_cannot_be_is_refused_before_the_work(words: str, error: str) -> None:
    Path("dir.html").mkdir()
    done = cli("bench", "--engine", "cpu", *words.split())
    assert done.exit_code == 2
    assert error in done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("here")
def test_so_is_one_in_a_folder_that_may_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("locked").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "locked")
    done = cli("bench", "--engine", "cpu", "--plot", "locked/p.svg")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "locked: you may not write there" in done.stderr


def test_bench_without_a_page_imports_nothing_for_it() -> None:
    code = (
        "import sys, cudafilter.cli as c\n"
        "try: c.app('bench blur --engine cpu --sizes 8 --repeat 1 --json'.split())\n"
        "finally: print({'cudafilter.cli.bench_page'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("set()\n")
