"""An image that is filtered in an area only, or in linear light: what that means for each file."""

from __future__ import annotations

import numpy as np

from cudafilter.engines import Engine
from cudafilter.engines.within import Parts, Within, filtered_within
from cudafilter.formats.rows import Header
from cudafilter.images import Image
from cudafilter.jobs.checking import check, check_rows, disagree, screen
from cudafilter.jobs.record import Record
from cudafilter.jobs.settings import Settings, Shared
from cudafilter.operations.pixels import Pixels
from cudafilter.operations.region import Rectangle

CHECKED_LIGHT = "checked in linear light; the way back to samples is exact"


def within_of(settings: Settings, header: Header) -> tuple[Within, tuple[str, ...]]:
    """How an image is filtered whose pixels are as *header* says, and notes for the user.

    Raises ImageError where it cannot be done as asked.
    """
    notes: tuple[str, ...] = ()
    area = light = None
    if settings.area is not None:
        from cudafilter.formats import ifd

        area = settings.area.within(header.width, header.height)
        notes += area.notes
        if (turned := ifd.orientation(header.metadata.exif)) != 1:
            notes += (
                "masks and regions count pixels as the file holds them, not as it is shown"
                f" (EXIF orientation {turned})",
            )
    if settings.linear and header.dtype == "float32":
        notes += ("float samples are linear light already: they are filtered as they are",)
    elif settings.linear:
        from cudafilter.formats.icc import curves_of
        from cudafilter.operations.light import Light

        curves, told = curves_of(header.metadata, 1 if header.channels < 3 else 3)
        light = Light(curves, header.dtype, header.alpha)
        if not told:
            notes += ("it has no colour profile: its light is that of sRGB",)
    return Within(header.alpha, area, light), notes


def filter_within(run: Shared, engine: Engine, image: Image, record: Record, where: str) -> Image:
    """*image*, filtered and checked as the settings say; *where* begins what a check says."""
    header = Header.of(image.pixels, image.alpha, image.metadata)
    within, notes = within_of(run.settings, header)
    record.add_notes(notes)
    with run.stage("run", record):
        parts = filtered_within(engine, image.pixels, run.filter, run.border, within)
    record.took(parts.told.seconds, parts.told.notes)
    if not parts.box.size:
        record.add_notes(("the mask is black there: nothing is filtered",))
    elif run.settings.check:
        with run.stage("check", record):
            _check(run, engine, within, parts, record, where)
            _require_outside(image.pixels, parts, where)
        if within.light is not None:
            record.add_notes((CHECKED_LIGHT,))
    return image.with_pixels(parts.result)


def _check(
    run: Shared, engine: Engine, within: Within, parts: Parts, record: Record, where: str
) -> None:
    source, box, alpha = parts.source, parts.box, within.alpha
    if len(parts.filtered) == len(source):
        screened = screen(run, engine, parts.filtered, source, alpha, record)
        check(run, parts.filtered, source, alpha, record, screened, where)
    else:
        check_rows(run, parts.filtered, parts.first, source, alpha, record, where)
    inside = slice(box.top, box.bottom), slice(box.left, box.right)
    filtered = parts.filtered[box.top - parts.first : box.bottom - parts.first, inside[1]]
    require_ends(within, source[inside], filtered, parts.blended, parts.result[inside], box, where)


def _require_outside(pixels: Pixels, parts: Parts, where: str) -> None:
    """Raise DisagreementError unless all outside the box of *parts* is as in *pixels*."""
    box, rows = parts.box, slice(parts.box.top, parts.box.bottom)
    for part in (
        np.s_[: box.top], np.s_[box.bottom :], np.s_[rows, : box.left], np.s_[rows, box.right :],
    ):  # fmt: skip
        if not np.array_equal(parts.result[part], pixels[part], equal_nan=True):
            disagree(f"{where}DISAGREES with the reference: a sample outside the area changed")


def require_ends(
    within: Within,
    source: Pixels,
    filtered: Pixels,
    blended: Pixels,
    result: Pixels,
    box: Rectangle,
    where: str,
) -> None:
    """Raise DisagreementError unless *blended* and *result* are what must become of *filtered*.

    All are the pixels in *box*.
    """
    from cudafilter.proof.ends import wrong_blend, wrong_samples

    wrong, what = None, "blend"
    if within.area is not None:
        weights = within.area.weights(box)
        wrong = wrong_blend(blended, source, filtered, weights, within.alpha)
    if wrong is None and within.light is not None:
        wrong, what = wrong_samples(result, blended, within.light), "way back from linear light"
    if wrong is not None:
        x, y, channel = wrong
        disagree(
            f"{where}DISAGREES with the reference: the {what} is wrong at x={x + box.left}"
            f" y={y + box.top} channel={channel}"
        )
