"""The curves of colour profiles: what light a sample stands for."""

from __future__ import annotations

import struct

from cudafilter.errors import ImageError
from cudafilter.formats.metadata import SRGB as CICP_SRGB
from cudafilter.formats.metadata import Metadata
from cudafilter.operations.light import IDENTITY, SRGB, Curve, Power, Table

_HINT = "convert the picture to sRGB first, or leave out --linear"
_GRAY, _RGB = (b"kTRC",), (b"rTRC", b"gTRC", b"bTRC")
_LOOKED_UP = (b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2")
_MOST_TAGS, _MOST_ENTRIES = 1024, 1 << 16
_PARAMETERS = (1, 3, 4, 5, 7)
"""Numbers of each kind of parametric curve."""

# BT.2020 tells these numbers for more bits than 8, so that both parts of the curve meet.
_ALPHA, _BETA = 1.09929682680944, 0.018053968510807
_BT709 = Power(1 / 0.45, 1 / _ALPHA, 1 - 1 / _ALPHA, 0.0, 4.5 * _BETA, 1 / 4.5)
_CICP = {
    1: _BT709, 6: _BT709, 14: _BT709, 15: _BT709,
    4: Power(2.2), 5: Power(2.8), 8: IDENTITY, 13: SRGB,
}  # fmt: skip
"""Transfer curves by their numbers in ITU-T H.273."""


def curves_of(metadata: Metadata, colours: int) -> tuple[tuple[Curve, ...], bool]:
    """The curve of each of so many *colours*, and whether something in the file tells it.

    Where nothing does it is that of sRGB. An ICC profile counts first, then CICP, then what a PNG
    tells of its gamma. Raises ImageError, with the reason, for what is told by no curves.
    """
    if metadata.cmyk:
        raise ImageError("CMYK tells ink, and only its profile's tables tell light", hint=_HINT)
    if metadata.icc:
        return _of_profile(metadata.icc, colours), True
    if metadata.cicp and metadata.cicp != CICP_SRGB:
        transfer = metadata.cicp[1]
        if transfer not in _CICP:
            raise ImageError(f"its transfer curve, CICP {transfer}, is not read", hint=_HINT)
        return (_CICP[transfer],) * colours, True
    chunks = dict(metadata.png_chunks)
    told = b"sRGB" in chunks or bool(metadata.cicp)
    if not told and len(gamma := chunks.get(b"gAMA", b"")) == 4 and any(gamma):
        return (Power(100000 / int.from_bytes(gamma, "big")),) * colours, True
    return (SRGB,) * colours, told


def _of_profile(profile: bytes, colours: int) -> tuple[Curve, ...]:
    try:
        tags = _tags(profile)
        space, connection = profile[16:20], profile[20:24]
        names = _GRAY if colours == 1 else _RGB
        if space != (b"GRAY" if colours == 1 else b"RGB "):
            kind = space.decode("latin-1").strip()
            raise ImageError(f"its colour profile is for {kind}, not for its colours", hint=_HINT)
        if any(name in tags for name in _LOOKED_UP) or not set(names) <= tags.keys():
            raise ImageError(
                "its colour profile tells colours by tables, and --linear needs curves", hint=_HINT
            )
        if connection != b"XYZ ":
            raise ImageError("its colour profile has curves, but no light", hint=_HINT)
        return tuple(_curve(tags[name]) for name in names)
    except (struct.error, IndexError):
        raise ImageError("its colour profile is damaged", hint=_HINT) from None


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """The tags of *profile*, each from its type on. Raises struct.error where it is cut."""
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > _MOST_TAGS:
        raise struct.error
    found = {}
    for n in range(count):
        name, at, size = struct.unpack_from(">4sII", profile, 132 + 12 * n)
        found[name] = profile[at : at + size]
    return found


def _curve(tag: bytes) -> Curve:
    """A ``curv`` or ``para``. Raises struct.error where it is cut."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count > _MOST_ENTRIES:
            raise struct.error
        values = struct.unpack_from(f">{count}H", tag, 12)
        return IDENTITY if not count else Power(values[0] / 256) if count == 1 else Table(values)
    if tag[:4] != b"para":
        kind = tag[:4].decode("latin-1").strip()
        raise ImageError(f"its colour profile has a curve of the kind {kind!r}", hint=_HINT)
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind >= len(_PARAMETERS):
        raise ImageError(f"its colour profile has a parametric curve of kind {kind}", hint=_HINT)
    numbers = struct.unpack_from(f">{_PARAMETERS[kind]}i", tag, 12)
    g, *rest = (number / 65536 for number in numbers)
    if kind == 0:
        return Power(g)
    a, b, *more = rest
    if kind < 3:  # flat below -b / a
        c = more[0] if more else 0.0
        return Power(g, a, b, c, -b / a if a else 0.0, 0.0, c)
    slope, end, *offsets = more
    c, f = offsets or (0.0, 0.0)
    return Power(g, a, b, c, end, slope, f)
