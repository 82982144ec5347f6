"""What ``cudafilter bench`` draws of its timings: charts, and a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from cudafilter import __version__
from cudafilter.cli.chart import STYLE, Series, chart, standalone
from cudafilter.engines.bench import Case, Row, bench_filter
from cudafilter.jobs.sizing import taps

COPY = "copy"
"""What the line of the device's own copy is called: no kernel takes less time."""

COLUMNS = {
    "kernel ms": 4, "total ms": 2, "GB/s": 0, "copy %": 1, "x cpu": 2, "x vanilla": 2, "exact %": 2,
}  # fmt: skip
"""The columns of figures(), and their decimal places. The terminal has all but the last."""

_LAYOUT = """
body { margin: 0 auto; max-width: 1240px; padding: 16px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
p { max-width: 70ch; margin: 4px 0; color: var(--faint); }
.charts { display: grid; gap: 20px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.charts svg { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; margin-bottom: 20px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
caption { text-align: left; font-weight: 600; padding: 8px 0 4px; position: sticky; left: 0; }
th, td { padding: 3px 12px; border-bottom: 1px solid var(--rule); text-align: right;
  font-weight: 400; }
thead th { color: var(--faint); font-size: 13px; }
th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--paper); }
td.not { text-align: left; color: var(--faint); }
"""


def figures(row: Row, form: str = "") -> list[str]:
    """The figures of *row* by COLUMNS; thousands as *form* has them, and "-" where one lacks."""
    copy, exact = (None if s is None else 100 * s for s in (row.copy_share, row.exact_share))
    values = (
        row.kernel_ms, row.total_ms, row.gb_per_s, copy, row.times_cpu, row.times_vanilla, exact,
    )  # fmt: skip
    return [
        "-" if value is None else f"{value:{form}.{places}f}"
        for value, places in zip(values, COLUMNS.values(), strict=True)
    ]


def svg(cases: Sequence[Case]) -> str:
    """The charts of *cases* as an SVG file."""
    return standalone([*_times(cases), *_rooflines(cases)])


def page(cases: Sequence[Case], engines: Sequence[str], note: str | None, command: str) -> str:
    """The HTML page of *cases* that *command* timed on *engines*; *note* tells what lacks."""
    engine = "; ".join(dict.fromkeys(engines))
    told = [
        f"<p>{escape(engine)}. cudafilter {__version__}, <code>{escape(command)}</code></p>",
        *([f"<p>Note: {escape(note)}.</p>"] if note else []),
        "<p>Each figure is a median after warm-up, of a result that was verified first. kernel: on"
        " the device only; total: from pixels in host memory to pixels in host memory. GB/s"
        " counts each byte as read and written once.</p>",
    ]
    floor = (
        "The dashed line is the speed at which the device copies the image: what lies on it could"
        " be no faster."
        if any(case.copy_ms for case in cases)
        else "There is no line of a copy, for no GPU was timed."
    )
    roof = (
        "<p>Work is two operations for each sample that a filter looks at, row by row and then"
        " column by column where its kernel is a product of the two, whatever a variant saves of"
        f" that. {floor}</p>"
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>cudafilter bench</title><style>{STYLE}{_LAYOUT}</style></head><body>",
        "<h1>cudafilter bench</h1>",
        *told,
        "<h2>Time over size</h2>",
        '<div class="charts">', *_times(cases), "</div>",
        "<h2>Roofline</h2>",
        roof,
        '<div class="charts">', *_rooflines(cases), "</div>",
        "<h2>Figures</h2>",
        *map(_table, cases),
        "</body></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _name(row: Row) -> str:
    """What *row*'s line is called; that of ``auto`` is the same whatever it picks."""
    what = f"{row.engine} {(row.variant or '').split(' ')[0]}".strip()
    return what if row.kernel_ms else f"{what}, total"


def _order(cases: Sequence[Case]) -> list[str]:
    """The names of all lines, each once."""
    names = [_name(row) for case in cases for row in case.rows if not row.why_not]
    return list(dict.fromkeys([COPY, *names]))


def _panels(cases: Sequence[Case]) -> dict[str, list[Case]]:
    panels: dict[str, list[Case]] = {}
    for case in cases:
        panels.setdefault(f"{case.filter} {case.dtype} x{case.channels}", []).append(case)
    return panels


def _times(cases: Sequence[Case]) -> Iterator[str]:
    """A chart for each filter, type and channel count: milliseconds over the image's side."""
    order = _order(cases)
    for title, members in _panels(cases).items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for case in sorted(members, key=lambda case: case.size):
            if case.copy_ms:
                lines.setdefault(COPY, []).append((case.size, case.copy_ms))
            for row in case.rows:
                if (ms := row.kernel_ms or row.total_ms) is not None:
                    lines.setdefault(_name(row), []).append((case.size, ms))
        if lines:
            series = {name: Series(line, floor=name == COPY) for name, line in lines.items()}
            yield chart(title, "side in pixels", "ms", series, order)


def _rooflines(cases: Sequence[Case]) -> Iterator[str]:
    """A chart for each type and channel count: speed of work over work for each byte.

    Of each filter the largest image counts. Beside a copy on the device only kernels stand, for
    those are as it is: without the way there and back.
    """
    order = _order(cases)
    groups: dict[tuple[str, int], dict[str, Case]] = {}
    for case in cases:
        largest = groups.setdefault((case.dtype, case.channels), {})
        if case.filter not in largest or case.size > largest[case.filter].size:
            largest[case.filter] = case
    for (dtype, channels), largest in groups.items():
        found: dict[str, list[tuple[float, float]]] = {}
        copies = []
        for case in largest.values():
            work = 2.0 * taps(bench_filter(case.filter)) * case.size**2 * case.channels
            intensity = work / (2 * case.nbytes)
            if case.copy_ms:
                copies.append((intensity, work / case.copy_ms / 1e6))
            for row in case.rows:
                ms = row.kernel_ms if case.copy_ms else row.total_ms
                if ms is not None:
                    found.setdefault(_name(row), []).append((intensity, work / ms / 1e6))
        series = {COPY: Series(sorted(copies), floor=True)} if copies else {}
        series |= {name: Series(sorted(points), joined=False) for name, points in found.items()}
        if series:
            title = f"{dtype} x{channels}"
            yield chart(title, "operations for each byte", "operations/s, 10^9", series, order)


def _table(case: Case) -> str:
    copy = f", copy {case.copy_ms:.4f} ms" if case.copy_ms is not None else ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("", *COLUMNS))
    rows = "".join(map(_row, case.rows))
    return (
        f'<div class="wide"><table><caption>{escape(str(case) + copy)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(row: Row) -> str:
    told = escape(f"{row.engine} {row.variant or ''}".strip())
    name = f'<th scope="row">{told}</th>'
    if row.why_not:
        return f'<tr>{name}<td class="not" colspan="{len(COLUMNS)}">{escape(row.why_not)}</td></tr>'
    cells = "".join(f"<td>{cell}</td>" for cell in figures(row, ","))
    return f"<tr>{name}{cells}</tr>"
