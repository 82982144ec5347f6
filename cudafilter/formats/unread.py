"""Kinds of pictures and films that are not read: how they are known, and what to do with them."""

from __future__ import annotations

import os
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of file that is not read."""

    what: str
    advice: str
    extensions: str
    """Parted by spaces."""
    starts: tuple[bytes, ...] = ()
    """First bytes of its files, where they are of no other kind."""

    def __str__(self) -> str:
        return f"{self.what}, which is not read ({self.advice})"


_CONVERT = "convert it to PNG or TIFF first"

KINDS = (
    Kind(
        "a raw photo", "develop it into a TIFF first",
        ".3fr .ari .arw .bay .braw .cap .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc "
        ".mdc .mef .mos .mrw .nef .nrw .orf .ori .pef .r3d .raf .raw .rw2 .rwl .rwz .sr2 .srf "
        ".srw .x3f",
        (b"FUJIFILM", b"FOVb", b"IIRO", b"IIRS", b"IIU\0"),
    ),
    Kind(
        "a film", "extract its frames first",
        ".webm .mp4 .m4v .mov .avi .mkv .mpg .mpeg .mts .m2ts .3gp .wmv .mng .heics",
        (b"\x1a\x45\xdf\xa3", b"AVI ", b"ftypisom", b"ftypmp4", b"ftypqt", b"ftypM4V", b"moov"),
    ),
    Kind(
        "a file of layers", "export it flat, as PNG or TIFF, first",
        ".psd .psb .xcf .kra .ora .afphoto .indd", (b"8BPS", b"gimp xcf"),
    ),
    Kind(
        "a drawing or document", "render it into pixels first",
        ".ai .eps .svg .svgz .pdf .cdr .emf .wmf", (b"%PDF", b"%!PS", b"<svg", b"<?xml"),
    ),
    Kind(
        "a HEIC photo",
        "pip install 'cudafilter[heic]', or convert it first", ".heic .heif .hif",
    ),
    Kind(
        "a picture for scientists or cinema", "convert it to a TIFF of 16 bits or floats first",
        ".exr .hdr .pic .rgbe .fits .fit .fts .dcm .nii .cin .dpx",
        (b"\x76\x2f\x31\x01", b"#?RADIANCE", b"SIMPLE  =", b"SDPX", b"XPDS"),
    ),
    Kind(
        "a picture of a rare kind", _CONVERT,
        ".avci .jxr .wdp .hdp .jpm .bpg .flif .pam .tga .icb .vda .vst .ico .cur .icns .dds "
        ".pcx .sgi .rgb .rgba .bw .ras .sun .xbm .xpm .wbmp .jng .ktx .ktx2 .iff .lbm .mpo "
        ".jps .pns .insp",
        (b"DDS ", b"II\xbc\x01", b"FLIF", b"BPG\xfb", b"icns", b"\0\0\1\0", b"P7\n"),
    ),
)  # fmt: skip

_BY_EXTENSION = {end: kind for kind in KINDS for end in kind.extensions.split()}


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
    """The kind that the extension of *path* names; None for what is read, or is no picture."""
    return _BY_EXTENSION.get(os.path.splitext(path)[1].lower())


def kind_of_bytes(head: bytes) -> Kind | None:
    """The kind that the first bytes of a file show."""
    places = [0, 4] if head[4:8] in (b"ftyp", b"moov") else [0, 8] if head[:4] == b"RIFF" else [0]
    shown = (kind for kind in KINDS if any(head.startswith(kind.starts, at) for at in places))
    return next(shown, None)
