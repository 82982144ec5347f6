"""What has begun early, in one object. Nothing else in this package outlives a call."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Thread

    from cudafilter.nvidia.nvjpeg import NvJpeg
    from cudafilter.operations.pixels import Pixels


class Picture:
    """The first image, in the decoder."""

    thread: Thread
    """It ends once the pixels are there, or will never be."""
    data: bytes | None = None
    """The file, as soon as it is read and found to be one that can be decoded."""
    pixels: Pixels | None = None


class Gpu:
    """A GPU that starts."""

    thread: Thread
    """It ends once the GPU has started, or will never do."""
    nvjpeg: NvJpeg | None = None


class Begun:
    """Of the process there is one."""

    caught = False
    """Whether somebody catches KeyboardInterrupt by now."""
    picture: Picture | None = None

    def __init__(self) -> None:
        self.gpus: dict[int, Gpu] = {}
        """By the GPU's number."""


begun = Begun()
