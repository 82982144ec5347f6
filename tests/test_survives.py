"""The table of what survives, in docs/images.md, against files that are written and read again."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from cudafilter.errors import ImageError
from cudafilter.formats import ifd
from cudafilter.formats.metadata import Metadata, Resolution
from cudafilter.formats.table import written
from cudafilter.images import Image, load
from image_files import EXIF, ICC, XMP, encode, random_pixels

PAGE = (Path(__file__).parents[1] / "docs" / "images.md").read_text(encoding="utf-8")
PART = re.search(r"<!-- made by docs/make_docs.py: survives -->\n(.*?)<!-- end", PAGE, re.DOTALL)
assert PART is not None
HEAD, _, *ROWS = (
    [cell.strip(" `") for cell in line.strip("|").split("|")] for line in PART[1].splitlines()
)
TABLE = {row[0]: dict(zip(HEAD, row, strict=True)) for row in ROWS}

TAGS = ifd.blob({33723: ifd.Entry(7, 5, b"\x1c\x02\x00\x00\x01")}, ">")
GIVEN: dict[str, list[dict[str, Any]]] = {
    "colour profile": [{"icc": ICC}],
    "EXIF": [{"exif": EXIF}],
    "XMP": [{"xmp": XMP}],
    "resolution": [{"resolution": Resolution(Fraction(300), Fraction(300), "inch")}],
    "text": [{"comments": (b"hello",)}, {"png_chunks": ((b"tEXt", b"Title\0hello"),)},
             {"tiff_tags": TAGS}],
}  # fmt: skip
"""What is written for a column; where there are several, a format may hold one of them."""


def test_the_table_has_every_format_that_is_written() -> None:
    assert list(TABLE) == written()


@pytest.mark.parametrize("column", GIVEN)
@pytest.mark.parametrize("format", written())
def test_metadata_survive_where_the_table_says_so(format: str, column: str) -> None:
    channels = 1 if format == "pgm" else 3
    kept = []
    for given in GIVEN[column]:
        again = load(
            encode(Image(random_pixels("uint8", channels), False, Metadata(**given)), format)
        )
        (field,) = given
        kept.append(bool(getattr(again.metadata, field)))
    if format == "tiff":  # it has a resolution and text among its tags, whatever it is given
        assert TABLE[format][column] == "yes"
    assert any(kept) == (TABLE[format][column] == "yes")


DTYPES = {"8": "uint8", "16": "uint16", "12": "uint16", "float": "float32"}
COLOURS = {"gray": 1, "gray+alpha": 2, "RGB": 3, "RGBA": 4}


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("samples", ["8", "16", "float"])
@pytest.mark.parametrize("format", written())
def test_pixels_are_written_where_the_table_says_so(format: str, samples: str, colour: str) -> None:
    row = TABLE[format]
    holds = samples in row["samples"].split(", ") and colour in row["colours"].split(", ")
    pixels = random_pixels(DTYPES[samples], COLOURS[colour])
    image = Image(pixels, colour in ("gray+alpha", "RGBA"))
    try:
        encode(image, format)
    except ImageError:
        assert not holds
    else:
        assert holds
