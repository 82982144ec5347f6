"""``cudafilter preview``: what filters make of a picture, on one sheet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cudafilter.cli import options, values
from cudafilter.cli.command import Command
from cudafilter.cli.terminal import tell
from cudafilter.errors import ParameterError
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.choices import EXISTING
from cudafilter.start.words import STDIO

if TYPE_CHECKING:
    from pathlib import Path

    from cudafilter.cli.sheet import Picture
    from cudafilter.cli.steps import Step
    from cudafilter.engines import Engine
    from cudafilter.images import Image
    from cudafilter.operations.pixels import Pixels

SIDE, FEW_SIDE, LARGE_SIDE = 240, 400, 640
"""Longest side of a picture among many, among FEW, and of one that is looked at closely."""
FEW = 6
WIDTH = 1300
"""About the most pixels that pictures side by side take."""
MOST = 40_000_000
"""Pixels past which a picture is scaled down before it is compared with its result."""


def _run(
    source: str | None,
    output: str | None,
    text: str | None,
    vary: tuple[str, ...],
    compare: bool,
    at: tuple[int, int] | None,
    show_kernel: bool,
    gray: bool,
    size: int | None,
    existing: str,
    debug: bool,
) -> None:
    from pathlib import Path

    if source is None and not show_kernel:
        raise click.UsageError("Missing argument 'SRC'.", click.get_current_context())
    if text is None and (vary or compare or show_kernel):
        raise click.UsageError("--vary, --compare and --show-kernel need --filter")
    if compare and (vary or show_kernel):
        raise click.UsageError("--compare stands by itself")
    if at is not None and not compare:
        raise click.UsageError("--at needs --compare")
    if len(vary) > 2:
        raise click.UsageError("--vary is given at most twice: rows and columns")
    texts, columns = _varied(text, vary)
    target = _target(source, output, texts[0], existing)
    if target is None:
        return
    if show_kernel:
        sheet, icc = _weights(text or "", texts, vary, columns, size), None
    else:
        assert source is not None
        sheet, icc = _pictures(Path(source), text, texts, vary, columns, compare, at, gray, size)
    _write(sheet, target, icc)
    tell(f"{target} {sheet.width}x{sheet.height}")


def _varied(text: str | None, vary: Sequence[str]) -> tuple[list[str], int]:
    """The steps to show, and in how many columns: 0 for as many as fit."""
    import shlex
    from itertools import product

    if text is None:
        return [_usual(name) for name in CATALOGUE], 0
    if not vary:
        return [text], 0
    choices = []
    for one in vary:
        name, equals, values = one.partition("=")
        if not equals or not all(values.split(",")):
            raise click.UsageError(f"--vary takes NAME=VALUE,VALUE, not {one!r}")
        option = "--" + name.strip().lstrip("-").replace("_", "-")
        choices.append([f"{option}={shlex.quote(value.strip())}" for value in values.split(",")])
    texts = [" ".join((text, *words)) for words in product(*choices)]
    return texts, len(choices[1]) if len(choices) > 1 else 0


def _usual(name: str) -> str:
    """The filter *name* with its defaults; what it has to be given is that of its example."""
    import shlex

    words = [name]
    example = shlex.split(CATALOGUE[name].example)
    for parameter in CATALOGUE[name].parameters:
        if parameter.required:
            flag = f"--{parameter.name.replace('_', '-')}"
            words += [flag, shlex.quote(example[example.index(flag) + 1])]
    return " ".join(words)


def _target(source: str | None, output: str | None, text: str, existing: str) -> Path | None:
    """The file to write; None where it is there already and stays. Raises ParameterError."""
    from pathlib import Path

    from cudafilter.formats.table import written
    from cudafilter.jobs.destinations import require_place
    from cudafilter.jobs.target import writable

    if STDIO in (source, output):
        raise ParameterError("output", "'-' is for filters: a sheet is made of a file into a file")
    if output is not None:
        target = Path(output)
    elif source is not None:
        target = Path(source).with_name(f"{Path(source).stem}-preview.png")
    else:
        target = Path(f"{text.split()[0]}-kernel.png")
    try:
        writable(target)
    except ParameterError as error:
        hint = f"choose one of {', '.join(written())}"
        raise ParameterError("output", str(error), hint=hint) from None
    require_place("output", target)
    if not target.exists():
        return target
    if source is not None and os.path.exists(source) and os.path.samefile(source, target):
        raise ParameterError("output", f"{target} is the picture itself")
    if existing == "error":
        hint = "--existing overwrite replaces it, and -o FILE names another one"
        raise ParameterError("output", f"{target} is there already", hint=hint)
    if existing == "skip":
        tell(f"{target} skipped: it is there already")
        return None
    return target


def _write(sheet: Picture, target: Path, icc: bytes | None) -> None:
    import numpy as np

    from cudafilter import images
    from cudafilter.formats.metadata import Metadata
    from cudafilter.formats.table import format_of

    image = images.Image(np.asarray(sheet), metadata=Metadata(icc=icc))
    data = images.encode(image, format_of(target), compress_level=6, name=str(target))
    images.write_atomically(target, data)


def _pictures(
    source: Path,
    name: str | None,
    texts: Sequence[str],
    vary: Sequence[str],
    columns: int,
    compare: bool,
    at: tuple[int, int] | None,
    gray: bool,
    size: int | None,
) -> tuple[Picture, bytes | None]:
    """The sheet of *source*, and the profile of its colours."""
    from cudafilter import images
    from cudafilter.cli.compare import compared
    from cudafilter.cli.steps import parse_steps
    from cudafilter.engines.open import open_engine
    from cudafilter.formats.metadata import is_rgb_profile

    steps = [parse_steps(text) for text in texts]
    frames = images.Frames(images.read_file(source), str(source), lambda count, timed: [0])
    (image,) = frames
    if gray:
        image = images.to_gray(image)
    height, width, _ = image.pixels.shape
    about = f"{width}x{height} {image.colour} {image.pixels.dtype}"
    engine = open_engine("cpu")
    try:
        if compare:
            share = min(1.0, (MOST / (width * height)) ** 0.5)
            small = _scaled(image, share)
            heading = [name or "", f"{source.name}, {about}{_told(share, small)}"]
            if at is not None:
                at = int(at[0] * share), int(at[1] * share)
            before = _shown(small, small.pixels)
            after = _shown(small, _filtered(small, steps[0], engine))
            sheet = compared(heading, before, after, size or LARGE_SIDE, at)
        else:
            usual = FEW_SIDE if len(texts) <= FEW else SIDE
            share = min(1.0, (size or usual) / max(width, height))
            small = _scaled(image, share)
            heading = [name or "All filters", f"{source.name}, {about}{_told(share, small)}"]
            sheet = _many(heading, small, steps, vary, columns, size or usual, engine)
    finally:
        engine.close()
    icc = image.metadata.icc
    return sheet, icc if is_rgb_profile(icc) else None


def _told(share: float, small: Image) -> str:
    """That the picture was scaled to *share* of its sides, if it was."""
    if share == 1:
        return ""
    height, width, _ = small.pixels.shape
    return (
        f", scaled down to {width}x{height} first: filters reach {1 / share:.3g} times as far here"
        " as in the picture itself"
    )


def _many(
    heading: Sequence[str],
    image: Image,
    steps: Sequence[list[Step]],
    vary: Sequence[str],
    columns: int,
    size: int,
    engine: Engine,
) -> Picture:
    from cudafilter.cli.sheet import Panel, contact_sheet, enlarged

    panels = [] if columns else [Panel(_shown(image, image.pixels), "original")]
    for chosen in steps:
        panels.append(Panel(_shown(image, _filtered(image, chosen, engine)), *_named(chosen, vary)))
    _, times = enlarged(panels[0].picture, size)
    if times > 1:
        panels = [panel._replace(picture=enlarged(panel.picture, size)[0]) for panel in panels]
        heading = [*heading[:-1], f"{heading[-1]}, shown {times} times as large"]
    return contact_sheet(heading, panels, columns, WIDTH)


def _named(steps: Sequence[Step], vary: Sequence[str]) -> tuple[str, str]:
    """Title and caption: what is varied goes into the title, else the filter's name does."""
    varied = [one.partition("=")[0].strip().lstrip("-").replace("-", "_") for one in vary]
    if len(steps) > 1:
        return " | ".join(step.name for step in steps), " | ".join(step.text for step in steps)
    (step,) = steps
    given = {
        name: value
        for name, value in step.parameters.items()
        if value is not None and value is not False
    }
    title = ", ".join(_written(name, given.pop(name)) for name in varied if name in given)
    caption = ", ".join(_written(name, value) for name, value in given.items())
    return (title or step.name), (f"{step.name}: {caption}" if title and caption else caption)


def _written(name: str, value: Any) -> str:
    word = name.replace("_", "-")
    return word if value is True else f"{word} {options.shown(value)}"


def _filtered(image: Image, steps: Sequence[Step], engine: Engine) -> Pixels:
    from cudafilter.cli.chain import chain_of

    return engine.run(image.pixels, chain_of(steps), alpha=image.alpha).pixels


def _shown(image: Image, pixels: Pixels) -> Picture:
    """*pixels* of *image*, upright."""
    from PIL.Image import Transpose

    from cudafilter.cli.sheet import shown
    from cudafilter.formats.ifd import orientation

    picture = shown(pixels, image.alpha, image.metadata.cmyk)
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }  # fmt: skip
    turn = turns.get(orientation(image.metadata.exif))
    return picture if turn is None else picture.transpose(turn)


def _scaled(image: Image, share: float) -> Image:
    """*image* with its sides times *share*, in its own sample type, by the mean over areas."""
    if share == 1:
        return image
    import cv2
    import numpy as np

    pixels = image.pixels
    height, width, channels = pixels.shape
    work = pixels.astype(np.float32)
    if image.alpha:  # what transparent pixels hide is not to show
        work[..., :-1] *= work[..., -1:]
    size = max(1, round(width * share)), max(1, round(height * share))
    small = np.asarray(cv2.resize(work, size, interpolation=cv2.INTER_AREA), np.float32)
    small = small.reshape(size[1], size[0], channels)
    if image.alpha:
        small[..., :-1] /= np.where(small[..., -1:] > 0, small[..., -1:], 1)
    if pixels.dtype != np.float32:
        small = np.clip(np.rint(small), 0, np.iinfo(pixels.dtype).max)
    return image.with_pixels(np.ascontiguousarray(small.astype(pixels.dtype)))


def _weights(
    heading: str, texts: Sequence[str], vary: Sequence[str], columns: int, size: int | None
) -> Picture:
    """The sheet of the weights of *texts*."""
    from cudafilter.cli.chain import chain_of
    from cudafilter.cli.steps import parse_steps
    from cudafilter.cli.weights import weight_sheet

    steps = [parse_steps(text) for text in texts]
    filters = [(chain_of(chosen), *_named(chosen, vary)) for chosen in steps]
    return weight_sheet(heading, filters, columns, size or (SIDE if vary else FEW_SIDE), WIDTH)


def _at(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    x, comma, y = (word.strip() for word in value.partition(","))
    if not (comma and x.isdecimal() and y.isdecimal()):
        raise click.BadParameter(f"must be X,Y in pixels, not {value!r}", ctx, param)
    return int(x), int(y)


command = Command(
    "preview",
    arguments=[
        click.Argument(
            ["source"],
            type=values.FileName(),
            required=False,
            metavar="SRC",
            shell_complete=values.offered("files"),
        )
    ],
    sections={
        "What is shown": [
            click.Option(
                ["--filter", "text"],
                metavar="STEPS",
                shell_complete=values.offered("filters"),
                help="One filter with its options, or several as chain has them; else all.",
            ),
            click.Option(
                ["--vary"],
                multiple=True,
                metavar="NAME=V,V",
                shell_complete=values.offered("nothing"),
                help="Values of one of its options, a picture each. Twice makes a grid.",
            ),
            click.Option(
                ["--compare"],
                is_flag=True,
                help="Before and after, filtered at full size, with a part enlarged.",
            ),
            click.Option(
                ["--at"],
                callback=_at,
                metavar="X,Y",
                shell_complete=values.offered("nothing"),
                show_default="where most has changed",
                help="Middle of the enlarged part, in pixels.",
            ),
            click.Option(
                ["--show-kernel"],
                is_flag=True,
                help="Draw the filter's weights, or its window. No SRC is needed.",
            ),
            click.Option(["--gray"], is_flag=True, help="Turn the picture gray first."),
            click.Option(
                ["--size"],
                type=options.Whole(32, 4096),
                metavar="N",
                show_default=f"{SIDE}, {FEW_SIDE} of few, {LARGE_SIDE} with --compare",
                help="Longest side of a picture on the sheet.",
            ),
        ],
        "File": [
            click.Option(
                ["-o", "--output"],
                type=values.FileName(),
                metavar="FILE",
                shell_complete=values.offered("files"),
                show_default="SRC's name with -preview.png, beside it",
                help="The sheet.",
            ),
            click.Option(
                ["--existing"],
                type=options.Choice(EXISTING),
                default="error",
                show_default=True,
                help="What to do where the sheet exists already.",
            ),
            options.debug(),
        ],
    },
    example="cudafilter preview --filter unsharp --vary amount=0.5,1,2 photo.jpg -o sheet.png",
    help="Draw a sheet of what filters make of a picture.\n\nWithout --filter it has"
    " all filters, with their defaults. SRC is scaled down first where it is large, and the sheet"
    " says so. Of an animation it shows the first frame. Work is done on the CPU.",
    callback=_run,
)
