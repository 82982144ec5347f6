"""How TIFF's strips and tiles are compressed: each is decoded to its end, or refused.

Every decoder is told how many bytes there may be, so none takes more memory. Whatever carries a
checksum is held to it.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ImageError
from cudafilter.formats import deflate, tiff_pictures

Bytes = npt.NDArray[np.uint8]

NONE, RLE, FAX3, FAX4, LZW, JPEG = 1, 2, 3, 4, 5, 7
ADOBE_DEFLATE, OLD_DEFLATE, PACKBITS = 8, 32946, 32773
LZMA, _LERC, ZSTD, _OLD_ZSTD = 34925, 34887, 50000, 34926
_RLE_WORDS = 32771
FAX = frozenset({RLE, FAX3, FAX4})
PICTURES = frozenset({JPEG, _LERC, *FAX, *tiff_pictures.PICTURES})
"""Codecs of samples, not of bytes: no predictor belongs to them."""
_NAMES = {
    6: "old-style JPEG", _RLE_WORDS: "CCITT in words", 32809: "ThunderScan", 32908: "PixarFilm",
    32909: "PixarLog", 34676: "SGI Log", 34677: "SGI Log", 33003: "JPEG 2000 in YCbCr",
    34892: "lossy JPEG of DNG", 34661: "JBIG", 34715: "JBIG2",
    22610: "JPEG XR", 34934: "JPEG XR",
}  # fmt: skip
_LZMA_MEMORY = 1 << 28
"""Bytes that a decoder of LZMA may take; xz -9 needs 65 MiB."""
_PAD = 3
"""Zeros past the end of a deflated stream that some programs write to begin at round offsets."""


class Segment(NamedTuple):
    """What one strip or tile must hold."""

    rows: int
    full_rows: int
    """Rows as the layout has them; the last strip may hold as many, or just those needed."""
    width: int
    samples: int
    bits: int
    row_bytes: int
    dtype: str
    """NumPy's name of a sample, in the file's byte order; "u1" for fewer than 8 bits."""
    photometric: int
    tables: bytes
    """JPEG's tables, which all segments share."""
    fax_options: int


class Damaged(ValueError):
    """The bytes of a segment are not what its codec writes."""


Data = Any
"""A memoryview, which imagecodecs takes though its types do not say so."""
Decoder = Callable[[Data, Segment], Bytes]


def decoder(compression: int) -> Decoder:
    """The decoder of a TIFF *compression*. It returns the bytes of all rows, in file order.

    It raises Damaged, or what its library raises: RuntimeError or ValueError. ImageError if there
    is none.
    """
    found = _DECODERS.get(compression)
    if found is None:
        name = _NAMES.get(compression, f"no. {compression}")
        raise ImageError(
            f"its compression ({name}) is not supported",
            hint="save it with another one, such as deflate or LZW",
        )
    return found


def _counted(got: Any, segment: Segment) -> Bytes:
    """The bytes of all rows, of a decoder that was given room for one byte too many."""
    found = np.frombuffer(got, np.uint8)
    wanted = segment.rows * segment.row_bytes
    if len(found) not in (wanted, segment.full_rows * segment.row_bytes):
        raise Damaged(f"it holds {len(found):,} bytes where {wanted:,} belong")
    return found[:wanted]


def _room(segment: Segment) -> Bytes:
    return np.empty(segment.full_rows * segment.row_bytes + 1, np.uint8)


def _plain(data: Data, segment: Segment) -> Bytes:
    return _counted(data, segment)


def _lzw(data: Data, segment: Segment) -> Bytes:
    import imagecodecs

    room: Any = _room(segment)
    return _counted(imagecodecs.lzw_decode(data, out=room), segment)


def _packbits(data: Data, segment: Segment) -> Bytes:
    import imagecodecs

    room: Any = _room(segment)
    return _counted(imagecodecs.packbits_decode(data, out=room), segment)


def _zstd(data: Data, segment: Segment) -> Bytes:
    import imagecodecs

    room: Any = _room(segment)
    return _counted(imagecodecs.zstd_decode(data, out=room), segment)


def _deflate(data: Data, segment: Segment) -> Bytes:
    """libdeflate holds the stream to its checksum; that nothing follows it is seen here."""
    import imagecodecs

    room: Any = _room(segment)
    got: Any = imagecodecs.deflate_decode(data, out=room)
    sum = deflate.adler32(got).to_bytes(4, "big")
    tail = bytes(data[-4 - _PAD :])
    if not any(tail.endswith(sum + bytes(pad)) for pad in range(_PAD + 1)):
        raise Damaged("more follows its end")
    return _counted(got, segment)


def _lzma(data: Data, segment: Segment) -> Bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_AUTO, _LZMA_MEMORY)
    try:
        got = decompressor.decompress(data, segment.full_rows * segment.row_bytes + 1)
    except lzma.LZMAError as error:
        raise Damaged("LZMA finds it wrong") from error
    if not decompressor.eof:
        raise Damaged("it is cut short, or too long")
    return _counted(got, segment)


def _lerc(data: Data, segment: Segment) -> Bytes:
    """LERC's own header is held to the layout first: it would be believed."""
    import imagecodecs

    rows, width = _lerc_size(data)
    if width != segment.width or rows not in (segment.rows, segment.full_rows):
        raise Damaged("it is of another size")
    pixels, valid = imagecodecs.lerc_decode(data, masks=True)
    if valid is not None and not np.all(valid):
        raise ImageError("it has pixels without a value", hint="fill them first")
    pixels = pixels.reshape(rows, width, -1)
    if pixels.shape[2] != segment.samples or pixels.dtype.str[1:] != segment.dtype[1:]:
        raise Damaged("it holds other samples")
    return _counted(np.ascontiguousarray(pixels.astype(segment.dtype)).data.cast("B"), segment)


def _lerc_size(data: Data) -> tuple[int, int]:
    if bytes(data[:6]) != b"Lerc2 ":
        raise ImageError("its kind of LERC compression is not supported")
    (version,) = struct.unpack_from("<i", data, 6)
    rows, width = struct.unpack_from("<ii", data, 10 if version < 3 else 14)
    return rows, width


def _jpeg(data: Data, segment: Segment) -> Bytes:
    """One JPEG stream, in the colours that the photometric tag says, whatever its markers say."""
    import simplejpeg

    if segment.bits != 8 or segment.samples == 2:
        raise ImageError("JPEG compression of these samples is not supported")
    wanted = {1: "Gray", 3: "YCbCr" if segment.photometric == 6 else "RGB", 4: "CMYK"}
    stream = _with_tables(bytes(data), segment)
    height, width, colour, _ = simplejpeg.decode_jpeg_header(stream)
    if width != segment.width or height not in (segment.rows, segment.full_rows):
        raise Damaged("it is of another size")
    if colour != wanted.get(segment.samples):
        raise Damaged(f"it holds {colour} colours")
    out = {1: "GRAY", 3: "RGB", 4: "CMYK"}[segment.samples]
    pixels = np.asarray(simplejpeg.decode_jpeg(stream, out, strict=True))
    return _counted(pixels.reshape(-1).data, segment)


def _with_tables(stream: bytes, segment: Segment) -> bytes:
    """*stream* with the tables before it, and only Adobe's marker to tell its colours."""
    pieces = [b"\xff\xd8"]
    if segment.samples > 1:
        transform = 1 if segment.photometric == 6 else 0
        pieces.append(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]))
    for part in (segment.tables, stream):
        if part:
            pieces += _segments(part)
    return b"".join(pieces)


def _segments(stream: bytes) -> list[bytes]:
    """The segments of a JPEG stream, less SOI, APP0 and APP14; from its scan on it is one."""
    if stream[:2] != b"\xff\xd8":
        raise Damaged("it does not begin as JPEG does")
    at, found = 2, list[bytes]()
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xDA:
            return [*found, stream[at:]]
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker not in (0xE0, 0xEE):
            found.append(stream[at:end])
        at = end
    return found


def _fax(compression: int) -> Decoder:
    """CCITT's codes have neither a length nor a checksum, and imagecodecs fills what is missing.

    So the rows must be complete before the end, whatever would follow it; and the last bytes must
    be needed, which they are not after a code that makes no sense.
    """

    def decode(data: Data, segment: Segment) -> Bytes:
        import imagecodecs

        def rows_of(stream: bytes) -> Bytes:
            size = segment.rows, segment.width
            if compression == FAX4:
                return imagecodecs.ccittfax4_decode(stream, *size)
            if compression == FAX3:
                options = segment.fax_options
                return imagecodecs.ccittfax3_decode(stream, *size, t4options=options)
            return imagecodecs.ccittrle_decode(stream, *size)

        stream = bytes(data)
        pixels = rows_of(stream)
        if not all(np.array_equal(rows_of(stream + more), pixels) for more in _MORE):
            raise Damaged("it is cut short")
        if all(np.array_equal(rows_of(stream[:-_FAX_END] + more), pixels) for more in _MORE):
            raise Damaged("its codes make no sense")
        return _counted(np.packbits(pixels.astype(bool), axis=1).reshape(-1).data, segment)

    return decode


def _picture(compression: int) -> Decoder:
    """A whole picture of another format; the last strip's may have all rows of the layout."""

    def decode(data: Data, segment: Segment) -> Bytes:
        dtype = np.dtype(segment.dtype).newbyteorder("=")
        for rows in {segment.rows: None, segment.full_rows: None}:
            shape = rows, segment.width, segment.samples
            try:
                pixels = tiff_pictures.decode(compression, data, shape, dtype)
            except (RuntimeError, ValueError):
                pixels = None
            if pixels is not None:
                stored = np.ascontiguousarray(pixels, segment.dtype)
                return _counted(stored.reshape(-1).view(np.uint8).data, segment)
        raise Damaged("its picture cannot be decoded, or is of another size or type")

    return decode


_MORE = (b"\x26\xa0\xda" * 8, b"\x35\x1d\xc9" * 8, b"\xff" * 8)
"""Codes of black and white runs, of any phase, that would show in rows that are incomplete."""
_FAX_END = 16
"""Bytes that no row needs: end marks, of 9 bytes at most, and what fills the last bytes up."""


_DECODERS: dict[int, Decoder] = {
    NONE: _plain,
    LZW: _lzw,
    PACKBITS: _packbits,
    ADOBE_DEFLATE: _deflate,
    OLD_DEFLATE: _deflate,
    LZMA: _lzma,
    ZSTD: _zstd,
    _OLD_ZSTD: _zstd,
    _LERC: _lerc,
    JPEG: _jpeg,
    **{compression: _fax(compression) for compression in FAX},
    **{compression: _picture(compression) for compression in tiff_pictures.PICTURES},
}
