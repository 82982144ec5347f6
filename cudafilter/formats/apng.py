"""Animated PNG: its frames are put together here, and coded by png.py as pictures of their own."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from cudafilter.errors import ImageError
from cudafilter.formats.canvas import CLEAR, RESTORE, Box, Canvas, box_of, changed
from cudafilter.formats.frames import FrameReader, FrameWriter
from cudafilter.formats.metadata import Animation, Metadata
from cudafilter.formats.png_chunks import SIGNATURE, Chunks, chunks_of, put
from cudafilter.formats.rows import Header, Reader, Writer
from cudafilter.operations.pixels import Pixels
from cudafilter.stores.buffers import Pieces, Sink, Source, joined, part

_FRAME = ">IIIIIHHBB"
"""fcTL: its number, width, height, left, top, duration as a fraction, disposal, blending."""
_MOST = 65535
"""Largest numerator and denominator of a duration."""
_MAX_PLAYS = (1 << 31) - 1

Decode = Callable[[int, int, list[range]], Pixels]
"""From width, height and the places of its data to the pixels of a frame."""


class _Frame(NamedTuple):
    box: Box
    seconds: Fraction
    disposal: int
    blends: bool
    spans: list[range]


def open(source: Source, chunks: Chunks, still: Reader, decode: Decode) -> Reader:
    """Read an animation; *still* is the reader of its picture for viewers of stills."""
    told, notes = still.header, still.notes
    frames, with_still = _frames(source, chunks)
    count, plays = struct.unpack(">II", dict(reversed(chunks.found))[b"acTL"])
    whole = Box(0, 0, told.width, told.height)
    if count != len(frames):
        raise ImageError(f"it is damaged: it tells of {count} frames and holds {len(frames)}")
    for box, *_ in frames:
        past = box.left + box.width > told.width or box.top + box.height > told.height
        if past or not box.width or not box.height:
            raise ImageError("it is damaged: a frame lies outside the picture")
    if not with_still:
        notes += ("its picture for viewers that show no animations is not kept",)
    alpha = told.alpha or _shows_through(frames, whole)
    colours = told.channels - told.alpha
    header = replace(
        told, channels=colours + alpha, alpha=alpha,
        metadata=replace(told.metadata, animation=Animation(plays)),
    )  # fmt: skip

    def composed() -> Iterator[tuple[Header, Pixels]]:
        canvas = Canvas(told.width, told.height, colours, np.dtype(told.dtype), alpha)
        for frame in frames:
            patch = decode(frame.box.width, frame.box.height, frame.spans)
            pixels = canvas.draw(patch, frame.box, frame.blends, frame.disposal)
            yield replace(header, seconds=frame.seconds), pixels

    return FrameReader(count, composed(), notes)


def _frames(source: Source, chunks: Chunks) -> tuple[list[_Frame], bool]:
    """All frames, and whether the first one is the picture for viewers of stills."""
    frames: list[_Frame] = []
    still, more = iter(chunks.spans), iter(chunks.more)
    with_still, number = False, 0
    for kind, body in chunks.found:
        if kind == b"IDAT" and frames:
            with_still = True
            frames[-1].spans.append(next(still))
        elif kind == b"fcTL":
            if len(body) != struct.calcsize(_FRAME):
                raise ImageError("it is damaged: a frame's description has a wrong length")
            told, width, height, left, top, above, below, disposal, blends = struct.unpack(
                _FRAME, body
            )
            if disposal > RESTORE or blends > 1:
                raise ImageError("it is damaged: a frame's description has values that are unknown")
            _require_next(told, number)
            number += 1
            # 0 stands for 100; and before the first frame there is nothing to be brought back.
            seconds = Fraction(above, below or 100)
            disposal = CLEAR if disposal == RESTORE and not frames else disposal
            frames.append(_Frame(Box(left, top, width, height), seconds, disposal, blends > 0, []))
        elif kind == b"fdAT":
            span = next(more)
            if not frames or (len(frames) == 1 and with_still) or len(span) < 4:
                raise ImageError("it is damaged: data of a frame are where none may be")
            _require_next(int.from_bytes(source[span.start : span.start + 4], "big"), number)
            number += 1
            frames[-1].spans.append(range(span.start + 4, span.stop))
    return frames, with_still


def _require_next(told: int, number: int) -> None:
    if told != number:
        raise ImageError("it is damaged: its frames are not in order")


def _shows_through(frames: list[_Frame], whole: Box) -> bool:
    """Whether a frame may be transparent where its pixels are opaque."""
    return frames[0].box != whole or any(frame.disposal == CLEAR for frame in frames[:-1])


class ApngWriter(FrameWriter):
    """Of each frame what differs from the one before it, in place of what is there.

    *code* gives the writer of a still PNG.
    """

    def __init__(
        self, target: Sink, header: Header, code: Callable[[Sink, Header], Writer]
    ) -> None:
        super().__init__(header)
        self._target, self._code = target, code
        self._shown: Pixels | None = None
        self._frames = self._number = 0

    def _add(self, header: Header, pixels: Pixels) -> None:
        """See FrameWriter."""
        box, metadata = Box(0, 0, header.width, header.height), header.metadata
        if self._shown is not None:
            box, metadata = box_of(changed(pixels, self._shown)), Metadata()
        patch = np.ascontiguousarray(box.of(pixels))
        file = Pieces()
        still = self._code(file, Header.of(patch, header.alpha, metadata))
        still.write(patch)
        still.close()
        data = bytes(file.joined())
        chunks = chunks_of(data)
        if self._shown is None:
            self._begin(chunks)
        self._describe(header, box)
        for span in chunks.spans:
            if self._shown is None:
                put(self._target, b"IDAT", part(data, span.start, span.stop))
            else:
                number = struct.pack(">I", self._next())
                put(self._target, b"fdAT", joined([number, part(data, span.start, span.stop)]))
        self._shown = pixels
        self._frames += 1

    def _begin(self, chunks: Chunks) -> None:
        header = self._first
        assert header.metadata.animation is not None
        plays = header.metadata.animation.plays
        if plays > _MAX_PLAYS:
            raise ImageError(f"it is shown {plays:,} times, and PNG holds at most {_MAX_PLAYS:,}")
        self._target.write(SIGNATURE)
        for kind, body in chunks.found:
            if kind not in (b"IDAT", b"IEND"):
                put(self._target, kind, body)
        put(self._target, b"acTL", struct.pack(">II", header.frames, plays))

    def _describe(self, header: Header, box: Box) -> None:
        left, top, width, height = box
        above, below = self._duration(header.seconds or Fraction(0))
        body = struct.pack(_FRAME, self._next(), width, height, left, top, above, below, 0, 0)
        put(self._target, b"fcTL", body)

    def _duration(self, seconds: Fraction) -> tuple[int, int]:
        """*seconds* as numerator and denominator; the nearest in decimals that PNG holds."""
        if max(seconds.numerator, seconds.denominator) <= _MOST:
            return seconds.numerator, seconds.denominator
        self.notes = ("durations are rounded to what PNG holds",)
        for below in (1000, 100, 10, 1):
            if (above := round(seconds * below)) <= _MOST:
                return above, below
        raise ImageError(f"a frame is shown for {float(seconds):g} s, and PNG holds at most 65535")

    def _next(self) -> int:
        self._number += 1
        return self._number - 1

    def _end(self) -> None:
        """See FrameWriter."""
        if self._frames != self._first.frames:
            raise ValueError(f"{self._frames} of {self._first.frames} frames were written")
        put(self._target, b"IEND", b"")
