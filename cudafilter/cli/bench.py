"""``cudafilter bench``: time the engines, or measure a folder's run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cudafilter.cli import completion, options, values
from cudafilter.cli.command import Command
from cudafilter.cli.terminal import put, tell
from cudafilter.operations.catalogue import CATALOGUE

if TYPE_CHECKING:
    from cudafilter.engines.bench import Case

DTYPES = ("uint8", "uint16", "float32")

MAX_SIZE = 65536

MAX_SECONDS = 86400

_OF_ENGINES = ("sizes", "dtypes", "channels", "repeat", "plot", "html")
_OF_FOLDERS = ("seconds", "codec", "check", "jobs")
"""Options that only one of the two has a use for."""


def _each(*, of: Any) -> Callable[[click.Context, click.Parameter, str], tuple[Any, ...]]:
    """A converter of values with commas between them, each of the click type *of*."""

    def convert(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Any, ...]:
        return tuple(of.convert(word.strip(), param, ctx) for word in value.split(","))

    return convert


def _run(
    names: tuple[str, ...],
    *,
    folder: str | None,
    seconds: int,
    codec: str,
    check: str | None,
    jobs: int | None,
    sizes: tuple[int, ...],
    dtypes: tuple[str, ...],
    channels: tuple[int, ...],
    engine: str,
    variant: str,
    gpu: int | None,
    repeat: int,
    as_json: bool,
    plot: str | None,
    html: str | None,
    debug: bool,
) -> None:
    _require_used(folder is not None)
    if folder is not None:
        from cudafilter.cli import bench_folder

        return bench_folder.run(
            folder, names, seconds=seconds, engine=engine, variant=variant, gpu=gpu, codec=codec,
            check=check, jobs=jobs, as_json=as_json,
        )  # fmt: skip
    import json

    from cudafilter.engines import bench

    contestants, note = bench.open_contestants(engine, variant, gpu)
    for title in dict.fromkeys(contestant.engine.title for contestant in contestants):
        tell(title)
    if note:
        tell(f"note: {note}")
    cases = []
    try:
        for case in bench.measure(
            names, contestants, sizes=sizes, dtypes=dtypes, channels=channels, repeat=repeat
        ):
            cases.append(case)
            if as_json:
                tell(f"{case}: done")
            else:
                put(_table(case))
    finally:
        for engine_used in {id(c.engine): c.engine for c in contestants}.values():
            engine_used.close()
    if as_json:
        put(json.dumps(bench.as_json(cases, contestants), indent=2))
    if plot or html:
        from pathlib import Path

        from cudafilter.cli import bench_page
        from cudafilter.stores.local import write_atomically

        if plot:
            write_atomically(Path(plot), bench_page.svg(cases).encode())
            tell(f"plot: {plot}")
        if html:
            engines = [contestant.engine.title for contestant in contestants]
            page = bench_page.page(cases, engines, note, _command_line())
            write_atomically(Path(html), page.encode())
            tell(f"page: {html}")


def _require_used(of_folder: bool) -> None:
    """Raise UsageError for an option that has no meaning here."""
    ctx = click.get_current_context()
    for name in _OF_ENGINES if of_folder else _OF_FOLDERS:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            where = "without" if of_folder else "with"
            raise click.UsageError(f"--{name} has a meaning {where} --folder only")


def _shared(*names: str) -> list[click.Option]:
    """The options *names* of the filters."""
    options_of = {option.name: option for part in options.shared().values() for option in part}
    return [options_of[name] for name in names]


def _command_line() -> str:
    import shlex
    import sys

    return shlex.join(["cudafilter", *sys.argv[1:]])


def _ending(end: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """A converter of a file's name, which must have the extension *end*: all else is refused
    before hours are spent."""

    def convert(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        from pathlib import Path

        from cudafilter.jobs.destinations import require_place

        if not value.lower().endswith(end):
            raise click.BadParameter(f"{value}: its name must end in {end}", ctx, param)
        if Path(value).is_dir():
            raise click.BadParameter(f"{value}: it is a folder", ctx, param)
        require_place(str(param.name), Path(value))
        return value

    return convert


def _table(case: Case) -> str:
    """*case* as a table of 80 columns at most."""
    from cudafilter.cli.bench_page import COLUMNS, figures

    columns = list(COLUMNS)[:-1]
    copy = f"  (copy {case.copy_ms:.4f} ms)" if case.copy_ms is not None else ""
    lines = [f"\n{case}{copy}", f"{'':21}" + "".join(f"  {name}" for name in columns)]
    for row in case.rows:
        name = f"{row.engine} {row.variant or ''}"
        if row.why_not:
            told = f"  cannot: {row.why_not}"
        else:
            pairs = zip(figures(row), columns, strict=False)
            told = "".join(f"{figure:>{len(column) + 2}}" for figure, column in pairs)
        lines.append(f"{name:21}{told}")
    return "\n".join(lines)


command = Command(
    "bench",
    arguments=[
        click.Argument(
            ["names"], nargs=-1, type=options.Choice(tuple(CATALOGUE)), metavar="[FILTER]..."
        )
    ],
    sections={
        "Images that are made": [
            click.Option(
                ["--sizes"],
                callback=_each(of=options.Whole(1, MAX_SIZE)),
                default="512,2048,8192",
                show_default=True,
                metavar="N,N",
                help="Sides of the square images, in pixels.",
            ),
            click.Option(
                ["--dtypes"],
                callback=_each(of=options.Choice(DTYPES)),
                default="uint8",
                show_default=True,
                metavar="TYPE,TYPE",
                shell_complete=completion.some_of(DTYPES),
                help="Sample types: uint8, uint16, float32.",
            ),
            click.Option(
                ["--channels"],
                callback=_each(of=options.Whole(1, 4)),
                default="1,3",
                show_default=True,
                metavar="N,N",
                help="Channels, 1 to 4.",
            ),
            click.Option(
                ["--repeat"],
                type=options.Whole(1, 10000),
                default=20,
                show_default=True,
                metavar="N",
                help="Timed runs of each case; their median counts.",
            ),
            click.Option(
                ["--plot"],
                callback=_ending(".svg"),
                metavar="FILE.svg",
                shell_complete=completion.files,
                help="Draw the timings and a roofline.",
            ),
            click.Option(
                ["--html"],
                callback=_ending(".html"),
                metavar="FILE.html",
                shell_complete=completion.files,
                help="Write a page with charts and tables, which needs no other file.",
            ),
        ],
        "A folder": [
            click.Option(
                ["--folder"],
                type=values.FileName(),
                metavar="DIR",
                shell_complete=completion.files,
                help="Run the filter over the images in DIR instead, and tell where the time goes"
                " and what bounds it. DIR stays as it is; results go to a temporary folder.",
            ),
            click.Option(
                ["--seconds"],
                type=options.Whole(1, MAX_SECONDS),
                default=20,
                show_default=True,
                metavar="N",
                help="Begin no image after so many seconds.",
            ),
            *_shared("codec", "check", "jobs"),
        ],
        "Options": [
            *options.engine(
                "auto times every engine that runs here; of a folder, the one that a run takes.",
                click.Option(
                    ["--gpu"],
                    type=options.Whole(min=0),
                    metavar="N",
                    shell_complete=lambda *asked: completion.one_of(completion.gpu_numbers())(
                        *asked
                    ),
                    show_default="0; of a folder, all as needed",
                    help="Number of the GPU, as cudafilter info lists it.",
                ),
                "auto times every variant of the CUDA kernel.",
            ),
            options.as_json(),
            options.debug(),
        ],
    },
    example="cudafilter bench blur sobel --sizes 2048 --html report.html",
    help="Time the engines, or a folder's run.\n\nEach result of an engine is verified before it is"
    " timed. Of a folder, it is told where the time goes and what bounds the run.",
    callback=_run,
)
