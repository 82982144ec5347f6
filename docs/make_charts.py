"""Draws the charts of the documents as SVG, from the figures of runs; make_docs.py writes them.

Each is text that depends on nothing but the figures, so that a test can hold it. A chart has a
light paper of its own, and reads on dark pages too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from cudafilter.engines.cuda.variants import LADDER

FIGURES = Path(__file__).resolve().parent / "figures"
INK, PALE, GRID, PAPER = "#1f2430", "#5b6472", "#d9dde3", "#ffffff"
OURS, THEIRS = "#00796b", "#9aa5b1"
COLOURS = (OURS, "#c2410c", "#3f51b5", "#7b5c00")
"""Of several lines, in this order; each has a contrast of 4.5 to the paper."""
FONT = 'font-family="system-ui, sans-serif"'


class Bar(NamedTuple):
    """A bar: its label, its length, and what stands at its end."""

    label: str
    value: float
    told: str


class Line(NamedTuple):
    """A line through points, (x, y) each."""

    label: str
    points: Sequence[tuple[float, float]]


def charts() -> dict[str, str]:
    """The name of each chart -> its SVG."""
    return {name: draw() for name, draw in CHARTS.items()}


def figures(name: str) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of figures/NAME.json, as they are written; null is an empty text."""
    told = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"), parse_float=str)
    return told["columns"], [["" if v is None else str(v) for v in row] for row in told["rows"]]


def table(name: str) -> list[dict[str, str]]:
    """The rows of figures/NAME.json, column -> what is written there."""
    columns, rows = figures(name)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def speed() -> str:
    """Whole commands on a CPU, and one filter on a GPU, beside others."""
    commands = table("commands")
    gauss = next(row for row in table("peers") if row["work"] == "Gaussian k13 uint8 RGB")
    parts = [
        (f"{kind}, seconds", [_bar(row["program"], row[f"{kind}, s"]) for row in commands])
        for kind in ("PNG to PNG", "JPEG to JPEG")
    ]
    libraries = [_bar(name, gauss[name]) for name in ("cudafilter", "NPP", "CuPy")]
    parts.append(("Gaussian 13x13, milliseconds", libraries))
    under = (
        "A picture of 12 megapixels, 2 cores",
        "A picture of 12 megapixels, 2 cores",
        "67 megapixels RGB, on an H100",
    )
    panels = [
        (title, told, sorted(bars, key=lambda bar: bar.value))
        for (title, bars), told in zip(parts, under, strict=True)
    ]
    return _bars("Time of a Gaussian blur; shorter is better", panels)


def ladder() -> str:
    """How long each variant takes for a Gaussian of 7x7."""
    bars = [
        Bar(
            row["variant"].replace("`", ""), float(row["Gaussian 7x7, ms"]), row["Gaussian 7x7, ms"]
        )
        for row in table("ladder")
    ]
    panel = ("Gaussian 7x7, milliseconds", "67 megapixels float32, on an H100; a copy takes 0.184")
    return _bars("The variants of the ladder", [(*panel, bars)])


def taps() -> str:
    """Gaussians over their taps."""
    _, rows = figures("taps")
    lines = [
        Line(dtype, [(float(row[0]), float(row[ms])) for row in rows])
        for dtype, ms in (("uint8", 2), ("float32", 5))
    ]
    return _lines("Gaussians over their taps", "taps", "milliseconds, 67 megapixels gray", lines)


def peers() -> str:
    """Gaussians of several sizes beside NPP and CuPy."""
    rows = [row for row in table("peers") if row["work"].endswith("uint8 gray")]
    sizes = {row["work"]: int(row["work"].split()[1][1:]) for row in rows if " k" in row["work"]}
    lines = [
        Line(name, [(sizes[row["work"]], float(row[name])) for row in rows if row["work"] in sizes])
        for name in ("cudafilter", "NPP", "CuPy", "copy")
    ]
    return _lines("Gaussians beside others", "taps a side", "milliseconds, uint8 gray", lines)


def radii() -> str:
    """A box over its radius."""
    points = [(float(row["radius"]), float(row["ms"])) for row in table("radii")]
    return _lines(
        "A box over its radius", "radius", "milliseconds, uint8 gray", [Line("box", points)]
    )


CHARTS: dict[str, Callable[[], str]] = {
    "speed": speed, "ladder": ladder, "taps": taps, "peers": peers, "radii": radii,
}  # fmt: skip


def _bar(label: str, told: str) -> Bar:
    """A bar as long as *told* says: a number, or the middle of two."""
    numbers = [float(word) for word in told.split(" to ")]
    return Bar(label, sum(numbers) / len(numbers), told)


def _bars(title: str, panels: Sequence[tuple[str, str, Sequence[Bar]]]) -> str:
    """Panels of horizontal bars, one below the other; each has a scale of its own.

    In each panel cudafilter's bars stand out: those that name no other program.
    """
    wide, left, row, head = 520, 176, 24, 54
    parts, y = [], 44
    for name, told, bars in panels:
        parts.append(_text(16, y + 8, name, weight="bold"))
        parts.append(_text(16, y + 25, told, colour=PALE, size=14))
        y += head - 16
        most = max(bar.value for bar in bars)
        for bar in bars:
            length = max(2, round(bar.value / most * (wide - left - 100)))
            colour = OURS if bar.label in ("cudafilter", *LADDER) else THEIRS
            parts.append(_text(left - 8, y + 15, bar.label, anchor="end", size=14))
            parts.append(
                f'<rect x="{left}" y="{y + 3}" width="{length}" height="16" fill="{colour}"/>'
            )
            parts.append(_text(left + length + 6, y + 15, bar.told, size=14))
            y += row
        y += 18
    return _svg(title, wide, y, parts)


def _lines(title: str, across: str, up: str, lines: Sequence[Line]) -> str:
    """Lines on two logarithmic axes."""
    wide, high, left, top = 520, 360, 56, 64
    right, bottom = wide - 96, high - 48
    (x0, x1), (y0, y1) = (
        _decades(p[axis] for line in lines for p in line.points) for axis in (0, 1)
    )

    def at(x: float, y: float) -> tuple[float, float]:
        over = (math.log10(x) - x0) / (x1 - x0), (math.log10(y) - y0) / (y1 - y0)
        return left + over[0] * (right - left), bottom - over[1] * (bottom - top)

    parts = [_text(16, 50, up, colour=PALE, size=14)]
    for decade, (low, high_) in ((0, (x0, x1)), (1, (y0, y1))):
        for tick in _ticks(low, high_):
            x, y = at(tick if decade == 0 else 10**x0, tick if decade else 10**y0)
            ends = f'x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"'
            if decade:
                ends = f'x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"'
            parts.append(f'<line {ends} stroke="{GRID}"/>')
            place = (left - 8, y + 4, "end") if decade else (x, bottom + 18, "middle")
            parts.append(_text(*place[:2], f"{tick:g}", colour=PALE, size=13, anchor=place[2]))
    parts.append(
        _text((left + right) / 2, high - 12, across, colour=PALE, size=13, anchor="middle")
    )
    for line, colour in zip(lines, COLOURS, strict=False):
        points = [at(*point) for point in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(
            _text(points[-1][0] + 8, points[-1][1] + 4, line.label, colour=colour, size=14)
        )
    return _svg(title, wide, high, parts)


def _decades(values: Iterable[float]) -> tuple[float, float]:
    """The logarithms of the axis' ends: the least and the largest value, with some room."""
    logs = [math.log10(value) for value in values]
    room = 0.04 * (max(logs) - min(logs))
    return min(logs) - room, max(logs) + room


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade between the ends, whose logarithms are given."""
    ticks = [d * 10.0**n for n in range(math.floor(low), math.ceil(high)) for d in (1, 2, 5)]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def _text(
    x: float, y: float, text: str, colour: str = INK, size: int = 15, anchor: str = "start",
    weight: str = "normal",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(title: str, wide: int, high: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}"'
        f' height="{high}" role="img" aria-label="{escape(title)}" {FONT}>'
    )
    paper = f'<rect width="{wide}" height="{high}" fill="{PAPER}"/>'
    name = _text(16, 26, title, size=17, weight="bold")
    return "\n".join([head, paper, name, *parts, "</svg>\n"])
