"""The options that all filters share, written once."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from cudafilter.cli import within
from cudafilter.cli.command import Sections, ValuedFlag
from cudafilter.cli.values import Choice as Choice
from cudafilter.cli.values import FileName, Number, offered
from cudafilter.cli.values import Whole as Whole
from cudafilter.engines.cuda.variants import CHOICES
from cudafilter.errors import ParameterError
from cudafilter.formats.limits import MAX_PIXELS
from cudafilter.operations.choices import (
    BORDERS,
    CHECKS,
    CODECS,
    ENGINES,
    EXISTING,
    GPU_FAILURES,
    OLD_CODECS,
    frame_numbers,
)
from cudafilter.operations.parameter import Parameter

if TYPE_CHECKING:
    from cudafilter.jobs.shard import Shard
    from cudafilter.operations.region import Region

MAX_JOBS = 1024
MAX_PROCESSES = 64

_SHORT = {"weights": "-w"}
_METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}


class Shared(NamedTuple):
    """The values of the shared options."""

    border: str
    border_value: float
    gray: bool
    linear: bool
    background: tuple[int, int, int] | None
    mask: str | None
    region: tuple[Region, ...]
    feather: int
    engine: str
    gpu: str | None
    variant: str
    codec: str
    on_gpu_failure: str
    check: str | None
    recursive: bool
    jobs: int | None
    existing: str
    in_place: bool
    follow: bool
    strict: bool
    watch: bool
    dry_run: bool
    report: str | None
    retry_failed: str | None
    shard: Shard | None
    cluster: str | None
    processes: int | None
    format: str | None
    quality: int | None
    compress_level: int | None
    frames: tuple[range, ...] | None
    first_frame: bool
    dither: bool
    max_pixels: int | None
    quiet: bool
    verbose: bool
    debug: bool

    @property
    def may_share_out(self) -> bool:
        """Whether the images may go to worker processes of this machine."""
        if self.in_place or self.watch or self.cluster is not None or self.processes == 1:
            return False
        if self.processes is not None:
            return True
        return "cpu" not in (self.engine, self.codec) and find_spec("pycuda") is not None


def borders(default: str | None) -> list[click.Option]:
    """``--border``, *default* unless given, and ``--border-value``."""
    return [
        click.Option(
            ["--border"],
            type=Choice(BORDERS),
            default=default,
            show_default=True,
            help="What lies outside the image, as numpy.pad names it.",
        ),
        click.Option(
            ["--border-value"],
            type=Number(),
            default=0.0,
            metavar="FRACTION",
            show_default=True,
            help="Value of the constant border: 0 is black, 1 full scale.",
        ),
    ]


def shared() -> Sections:
    """The shared options by section of the help."""
    return {
        "Edges and colour": [
            *borders("edge"),
            click.Option(["--gray"], is_flag=True, help="Turn the image gray first."),
            click.Option(
                ["--linear"],
                is_flag=True,
                help="Filter in linear light, by the image's colour profile or as sRGB.",
            ),
            within.background(),
        ],
        "Where": within.where(),
        "Engine": [
            *engine(
                "auto takes CUDA where a GPU answers and the job is worth its start, else the CPU.",
                click.Option(
                    ["--gpu"],
                    metavar="N,N|all",
                    shell_complete=offered("gpus"),
                    show_default="0, and all as needed for several images",
                    help="Numbers of the GPUs, as cudafilter info lists them.",
                ),
                "CUDA kernel that runs the filter.",
            ),
            click.Option(
                ["--codec"],
                type=Choice(CODECS, OLD_CODECS),
                default="auto",
                show_default=True,
                help="What codes JPEGs and packs PNGs: auto takes the GPU where it can, cpu never."
                " units is auto, and the GPU's JPEG units decode.",
            ),
            click.Option(
                ["--on-gpu-failure"],
                type=Choice(GPU_FAILURES),
                default="fail",
                show_default=True,
                help="Of an image on which the GPU fails: tell the error, or have the CPU do it.",
            ),
            ValuedFlag(
                ["--check"],
                bare=CHECKS[0],
                type=Choice(CHECKS),
                help="Prove each result against the float64 reference; write none that disagrees."
                " quick looks at 4,096 samples only, and tells how sure it is.",
            ),
        ],
        "Files": [
            click.Option(
                ["-r", "--recursive"],
                is_flag=True,
                help="Take the images in folders, at any depth.",
            ),
            click.Option(
                ["--in-place"], is_flag=True, help="Replace the images: all paths are SRC."
            ),
            click.Option(
                ["--follow"],
                is_flag=True,
                help="Write through links: to images in folders with --in-place, and in DEST.",
            ),
            click.Option(
                ["--strict"],
                is_flag=True,
                help="Count pictures and films that are not read as failed.",
            ),
            click.Option(
                ["--watch"],
                is_flag=True,
                help="Go on with images that arrive in the folders, until interrupted.",
            ),
            click.Option(
                ["--existing"],
                type=Choice(EXISTING),
                default="overwrite",
                show_default=True,
                help="What to do where an output exists already.",
            ),
            click.Option(
                ["--format"],
                metavar="NAME",
                shell_complete=offered("formats"),
                show_default="by extension",
                help="Output format, such as png or jpeg.",
            ),
            click.Option(
                ["--quality"],
                type=Whole(1, 100),
                metavar="N",
                help="Quality of lossy formats.",
            ),
            click.Option(
                ["--compress-level"],
                type=Whole(0, 9),
                metavar="N",
                help="Effort of compression: 0 stores, 1 is fastest (default), 9 smallest.",
            ),
            click.Option(
                ["--frames"],
                callback=_frames,
                metavar="N,N-N",
                shell_complete=offered("nothing"),
                show_default="all",
                help="Take only these frames or pages, counted from 0.",
            ),
            click.Option(
                ["--first-frame"], is_flag=True, help="Take only the first frame: --frames 0."
            ),
            click.Option(
                ["--dither"], is_flag=True, help="Mix colours in GIF, which holds 256 a frame."
            ),
            click.Option(
                ["--max-pixels"],
                type=Whole(1),
                metavar="N",
                show_default=f"{MAX_PIXELS}, fewer of a short file",
                help="Refuse images of more pixels.",
            ),
        ],
        "Running": [
            click.Option(
                ["-j", "--jobs"],
                type=Whole(1, MAX_JOBS),
                metavar="N",
                show_default="by cores, engine and memory",
                help="Images that are in work at a time.",
            ),
            click.Option(
                ["--processes"],
                type=Whole(1, MAX_PROCESSES),
                metavar="N",
                show_default="several for many JPEGs on a GPU, else 1",
                help="Processes that share out the images, over all GPUs.",
            ),
            click.Option(
                ["--dry-run"], is_flag=True, help="Print what would be written, and write nothing."
            ),
            click.Option(
                ["--report"],
                type=FileName(),
                metavar="FILE",
                shell_complete=offered("files"),
                help="Add a JSON line for each image: job, sizes, times, error ('-' is stdout).",
            ),
            click.Option(
                ["--retry-failed"],
                type=FileName(),
                metavar="FILE",
                shell_complete=offered("files"),
                help="Do only what failed by this report of the same command.",
            ),
            click.Option(
                ["--shard"],
                callback=_shard,
                metavar="I/N",
                shell_complete=offered("nothing"),
                help="Do the share I of N, counted from 1: the same command on N machines.",
            ),
            click.Option(
                ["--cluster"],
                metavar="auto|HOST:PORT",
                shell_complete=offered("nothing", ("auto",)),
                help="Have the nodes of this Ray cluster do the images; auto finds it here.",
            ),
            quiet(),
            click.Option(["-v", "--verbose"], is_flag=True, help="Tell more about each image."),
            debug(),
        ],
    }


def engine(about_engine: str, gpu: click.Option, about_variant: str) -> list[click.Option]:
    """``--engine``, *gpu* and ``--variant``."""
    return [
        click.Option(
            ["--engine"],
            type=Choice(ENGINES),
            default="auto",
            show_default=True,
            help=about_engine,
        ),
        gpu,
        variant(about_variant),
    ]


def paths(metavar: str) -> click.Argument:
    """The words that are no options."""
    return click.Argument(
        ["paths"],
        nargs=-1,
        required=True,
        metavar=metavar,
        shell_complete=offered("files"),
    )


def variant(about: str) -> click.Option:
    """``--variant``."""
    return click.Option(
        ["--variant"],
        type=Choice(CHOICES),
        metavar="NAME",  # all of them do not fit a line of 80
        default="auto",
        show_default=True,
        help=f"{about} One of {', '.join(CHOICES)}.",
    )


def as_json() -> click.Option:
    """``--json``, which the commands that tell things have."""
    return click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")


def quiet() -> click.Option:
    """``--quiet``, for commands that tell what they do."""
    return click.Option(["-q", "--quiet"], is_flag=True, help="Print errors only.")


def debug() -> click.Option:
    """``--debug``, which every command has."""
    return click.Option(["--debug"], is_flag=True, help="Show the traceback of an error.")


def _frames(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """The value of ``--frames`` as frame_numbers() has it."""
    return None if value is None else frame_numbers(value)


def _shard(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """The value of ``--shard`` as a Shard."""
    if value is None:
        return None
    from cudafilter.jobs.shard import Shard

    return Shard.parsed(value)


def _validation(parameter: Parameter) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """The catalogue's validation of *parameter*, as click calls it."""

    def validate(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            return parameter.validate(value)
        except ParameterError as error:
            from cudafilter.cli.suggest import number

            usage = click.BadParameter(str(error), ctx, param)
            usage.hint = error.hint or number(value)  # type: ignore[attr-defined]
            raise usage from error

    return validate


def shown(value: Any) -> str:
    """A parameter's *value* as it is written on the command line."""
    return value if isinstance(value, str) else f"{value:g}"


def own(parameter: Parameter) -> click.Option:
    """The option of a filter's *parameter*, with its limits and default in the help."""
    flag = "--" + parameter.name.replace("_", "-")
    if parameter.kind is bool:
        return click.Option([flag], is_flag=True, default=parameter.default, help=parameter.help)
    names = [_SHORT[parameter.name], flag] if parameter.name in _SHORT else [flag]
    facts = [parameter.limits] if parameter.limits else []
    if parameter.default is not None:
        facts.append(f"default: {shown(parameter.default)}")
    # No default for click: validating None gives the catalogue's.
    return click.Option(
        names,
        type=str,
        callback=_validation(parameter),
        required=parameter.required,
        metavar=_METAVARS[parameter.kind],
        shell_complete=offered("files" if parameter.kind is str else "nothing", parameter.words),
        help=parameter.help + (f"  [{'; '.join(facts)}]" if facts else ""),
    )
