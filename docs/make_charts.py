"""Draws the charts of the documents as SVG, from the figures of runs; make_docs.py writes them.

Each is text that depends on nothing but the figures, so that a test can hold it. Bars have a light
paper of their own, and read on dark pages too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from cudafilter.cli.chart import Series, chart, standalone
from cudafilter.engines.cuda.variants import LADDER

FIGURES = Path(__file__).resolve().parent / "figures"
INK, PALE, GRID, PAPER = "#1f2430", "#5b6472", "#d9dde3", "#ffffff"
OURS, THEIRS = "#00796b", "#9aa5b1"
FONT = 'font-family="system-ui, sans-serif"'

Points = Sequence[tuple[float, float]]
"""x and y, from left to right."""


class Bar(NamedTuple):
    """A bar: its label, its length, and what stands at its end."""

    label: str
    value: float
    told: str


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
    lines = {
        dtype: [(float(row[0]), float(row[ms])) for row in rows]
        for dtype, ms in (("uint8", 2), ("float32", 5))
    }
    return _lines("Gaussians", "taps", "milliseconds, 67 megapixels gray", lines)


def peers() -> str:
    """Gaussians of several sizes beside NPP and CuPy."""
    rows = [row for row in table("peers") if row["work"].endswith("uint8 gray")]
    sizes = {row["work"]: int(row["work"].split()[1][1:]) for row in rows if " k" in row["work"]}
    lines = {
        name: [(sizes[row["work"]], float(row[name])) for row in rows if row["work"] in sizes]
        for name in ("cudafilter", "NPP", "CuPy", "copy")
    }
    return _lines("Gaussians beside others", "taps a side", "ms, uint8 gray", lines)


def radii() -> str:
    """A box over its radius."""
    points = [(float(row["radius"]), float(row["ms"])) for row in table("radii")]
    return _lines("A box over its radius", "radius", "ms, uint8 gray", {"box": points})


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


def _lines(title: str, across: str, up: str, lines: Mapping[str, Points]) -> str:
    """Lines on two logarithmic axes, by their names."""
    drawn = {name: Series(points) for name, points in lines.items()}
    return standalone([chart(title, across, up, drawn)])


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
