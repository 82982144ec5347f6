"""Charts as SVG, for a page or a file of their own, in light and dark.

Both axes are logarithmic. A chart is drawn 360 wide, so that its words are legible on a telephone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 360, 250
"""Of the chart without its legend."""
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 30, 38
"""What the axes leave around the plot."""
LINE, LETTER = 16, 6.3
"""Height of a line of the legend, and about the width of a letter, of 11 pixels."""

ABREAST = 3
"""Charts side by side in a file of their own."""
COLOURS = 8
_DASHES = ("", "6 3", "2 3")
"""After each round of the colours the next one."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #181c26; --faint: #545a66; --rule: #c9ccd3;
  --c0: #0062a3; --c1: #b84a00; --c2: #00785a; --c3: #a3307a; --c4: #6a4fc4; --c5: #7a6400;
  --c6: #b3202c; --c7: #3d6b85; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #eceef2; --faint: #b0b6c2; --rule: #3b414c;
    --c0: #5bb3f0; --c1: #ff9a52; --c2: #3fd0a4; --c3: #f08cc8; --c4: #b3a1ff; --c5: #e0c64a;
    --c6: #ff8080; --c7: #9cc3d9; } }
svg text { font: 11px system-ui, sans-serif; fill: var(--faint); }
svg .title { font-size: 13px; font-weight: 600; fill: var(--ink); }
svg .rule { stroke: var(--rule); stroke-width: 0.6; }
svg .line { fill: none; stroke-width: 1.6; }
svg .floor { stroke: var(--ink); stroke-dasharray: 5 3; }
"""
"""What charts and the page look like."""


class Series(NamedTuple):
    """A line, or points where *joined* is false: x and y, all above 0, from left to right."""

    points: Sequence[tuple[float, float]]
    joined: bool = True
    floor: bool = False
    """The bound that the others are held to: drawn dashed, in the colour of the text."""


def chart(
    title: str, x: str, y: str, series: Mapping[str, Series], order: Sequence[str] = ()
) -> str:
    """An SVG element of *series* by their names, with the axes' names *x* and *y*.

    A name looks by its place in *order*, so that it looks alike in several charts.
    """
    order = order or list(series)
    numbered = [(order.index(name), name, one) for name, one in series.items()]
    points = [point for one in series.values() for point in one.points]
    across, up = (_Axis([point[n] for point in points]) for n in (0, 1))
    legend, height = _legend(numbered)
    described = escape(f"{title}: {y} over {x}", quote=True)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + height}" role="img" aria-label="{described}">',
        f'<text class="title" x="{LEFT}" y="17">{escape(title)}</text>',
    ]
    for value in across.ticks:
        at = _x(across, value)
        parts.append(f'<path class="rule" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 14, _number(value), "middle"))
    for value in up.ticks:
        at = _y(up, value)
        parts.append(f'<path class="rule" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 5, at + 4, _number(value), "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x, "middle"))
    parts.append(f'<text x="{WIDTH - RIGHT}" y="17" text-anchor="end">{escape(y)}</text>')
    for n, name, one in numbered:
        parts += _drawn(n, name, one, across, up)
    return "\n".join((*parts, *legend, "</svg>"))


def standalone(charts: Sequence[str]) -> str:
    """An SVG file of *charts*, some side by side."""
    heights = [float(re.findall(r'viewBox="0 0 \S+ (\S+)"', one)[0]) for one in charts]
    parts, y = [], 0.0
    for first in range(0, len(charts), ABREAST):
        row = range(first, min(first + ABREAST, len(charts)))
        for n in row:
            place = f'x="{(n - first) * (WIDTH + LINE)}" y="{y:g}"'
            size = f'width="{WIDTH}" height="{heights[n]:g}"'
            parts.append(charts[n].replace("<svg ", f"<svg {place} {size} ", 1))
        y += max(heights[n] for n in row) + LINE
    width = min(ABREAST, len(charts)) * (WIDTH + LINE)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y:g}" width="{width}"'
        f' height="{y:g}"><style>{STYLE}</style>'
    )
    paper = '<rect width="100%" height="100%" style="fill: var(--paper)"/>'
    return "\n".join((head, paper, *parts, "</svg>\n"))


class _Axis:
    """From values to fractions of an axis, by their logarithms, and the values that are marked."""

    def __init__(self, values: Sequence[float]) -> None:
        low, high = min(values), max(values)
        if high < 2 * low:  # one value, or nearly so, stands in the middle
            low, high = low / 2, high * 2
        margin = (math.log10(high) - math.log10(low)) * 0.05
        self._low = math.log10(low) - margin
        self._span = math.log10(high) + margin - self._low
        self.ticks = self._ticks()

    def at(self, value: float) -> float:
        """Where *value* lies, from 0 to 1."""
        return (math.log10(value) - self._low) / self._span

    def _ticks(self) -> list[float]:
        first, last = math.floor(self._low), math.ceil(self._low + self._span)
        for steps in (range(1, 10), (1, 2, 5), (1, 3), (1,)):
            found = [
                step * 10.0**power
                for power in range(first, last + 1)
                for step in steps
                if self._low <= math.log10(step * 10.0**power) <= self._low + self._span
            ]
            if len(found) <= 6:
                return found
        return found[:: -(-len(found) // 6)]


def _x(axis: _Axis, value: float) -> float:
    return LEFT + axis.at(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: _Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.at(value) * (HEIGHT - BOTTOM - TOP)


def _drawn(n: int, name: str, one: Series, across: _Axis, up: _Axis) -> Iterator[str]:
    places = [(_x(across, x), _y(up, y)) for x, y in one.points]
    stroke = _stroke(n, one)
    if one.joined and len(places) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        yield f'<path {stroke} d="M{path}"><title>{escape(name)}</title></path>'
    if one.floor and len(places) > 1:
        return
    for (x, y), point in zip(places, one.points, strict=True):
        told = escape(f"{name}: {_number(point[1])} at {_number(point[0])}")
        yield _mark(n, one, x, y, f"<title>{told}</title>")


def _stroke(n: int, one: Series) -> str:
    if one.floor:
        return 'class="line floor"'
    dash = _DASHES[n // COLOURS % len(_DASHES)]
    return f'class="line" style="stroke: var(--c{n % COLOURS}); stroke-dasharray: {dash or "none"}"'


def _mark(n: int, one: Series, x: float, y: float, inside: str = "") -> str:
    """A dot, and in further rounds of the colours a square or a triangle."""
    fill = "var(--ink)" if one.floor else f"var(--c{n % COLOURS})"
    shape = n // COLOURS % 3
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill: {fill}">{inside}</circle>'
    path = "m-3 -3h6v6h-6z" if shape == 1 else "m0 -4l4 7h-8z"
    return f'<path d="M{x:.1f} {y:.1f}{path}" style="fill: {fill}">{inside}</path>'


def _legend(series: Sequence[tuple[int, str, Series]]) -> tuple[list[str], int]:
    """The names of *series* with their marks, below the chart, and the height that they take."""
    parts: list[str] = []
    x, y = 10.0, HEIGHT + LINE / 2
    for n, name, one in series:
        width = 30 + LETTER * len(name) + 10
        if x + width > WIDTH and x > 10:
            x, y = 10.0, y + LINE
        if one.joined:
            parts.append(f'<path {_stroke(n, one)} d="M{x} {y}h22"/>')
        if not one.floor:
            parts.append(_mark(n, one, x + 11, y))
        parts.append(_text(x + 28, y + 4, name, "start"))
        x += width
    return parts, round(y + LINE - HEIGHT)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.3g}k"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
