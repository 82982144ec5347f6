"""The options that say where a filter works, and over which colour alpha is laid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cudafilter.cli.values import FileName, Whole, offered
from cudafilter.errors import ImageError, ParameterError

if TYPE_CHECKING:
    from cudafilter.operations.area import Area
    from cudafilter.operations.region import Region

MAX_FEATHER = 1 << 20


def where() -> list[click.Option]:
    """``--mask``, ``--region`` and ``--feather``."""
    return [
        click.Option(
            ["--mask"],
            type=FileName(),
            metavar="FILE",
            shell_complete=offered("files"),
            help="Filter where this gray image is white; black stays, gray is between.",
        ),
        click.Option(
            ["--region"],
            multiple=True,
            callback=_regions,
            metavar="X,Y,W,H",
            shell_complete=offered("nothing"),
            help="Filter only this rectangle, in pixels or percent. May be given several times.",
        ),
        click.Option(
            ["--feather"],
            type=Whole(0, MAX_FEATHER),
            default=0,
            metavar="PIXELS",
            show_default=True,
            help="Let the filter fade in over so many pixels inside a region's sides.",
        ),
    ]


def background() -> click.Option:
    """``--background``."""
    return click.Option(
        ["--background"],
        callback=_colour,
        metavar="COLOUR",
        shell_complete=offered("colours"),
        help="Lay transparent pixels over this colour: a name, #rgb or #rrggbb. Alpha goes.",
    )


def _regions(
    ctx: click.Context, param: click.Parameter, value: Sequence[str]
) -> tuple[Region, ...]:
    if not value:
        return ()
    from cudafilter.operations.region import Region

    return tuple(map(Region.parsed, value))


def _colour(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int, int] | None:
    if value is None:
        return None
    from PIL import ImageColor

    try:
        red, green, blue, *alpha = ImageColor.getrgb(value)
    except ValueError:
        from cudafilter.cli.suggest import value as meant

        wrong = click.BadParameter(f"must be a colour, not {value!r}", ctx, param)
        wrong.hint = (  # type: ignore[attr-defined]
            meant(value.lower(), tuple(ImageColor.colormap)) or "such as white, #fff or #ffffff"
        )
        raise wrong from None
    if alpha:
        raise click.BadParameter(f"{value!r} has alpha, and a background has none", ctx, param)
    return red, green, blue


def area_of(
    mask: str | None, regions: Sequence[Region], feather: int, max_pixels: int | None
) -> Area | None:
    """Where a filter is to work; None for everywhere. *max_pixels* is as images.load() has it.

    Raises ParameterError for a mask that cannot be read or is none, and for a feather of nothing.
    """
    if feather and not regions:
        hint = "blur the mask for soft edges" if mask else "add --region X,Y,W,H"
        raise ParameterError("feather", "is for the sides of regions", hint=hint)
    if mask is None and not regions:
        return None
    from cudafilter.operations.area import Area, mask_of

    weights = None
    if mask is not None:
        from pathlib import Path

        from cudafilter import images

        try:
            image = images.load(Path(mask), max_pixels=max_pixels)
        except ImageError as error:
            raise ParameterError("mask", str(error), hint=error.hint) from error
        if image.metadata.cmyk:
            raise ParameterError("mask", f"{mask}: it is CMYK, and a mask is gray")
        try:
            weights = mask_of(image.pixels, image.alpha)
        except ParameterError as error:
            raise ParameterError("mask", f"{mask}: {error}", hint=error.hint) from None
    return Area(weights, tuple(regions), feather)


def facts(
    mask: str | None,
    regions: Sequence[Region],
    feather: int,
    linear: bool,
    background: tuple[int, int, int] | None,
) -> dict[str, Any]:
    """What a report tells of it, as plain data."""
    return {
        "mask": mask,
        "region": [str(region) for region in regions],
        "feather": feather,
        "linear": linear,
        "background": None if background is None else f"#{bytes(background).hex()}",
    }
