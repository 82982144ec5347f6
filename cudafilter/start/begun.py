"""What has begun early, in one object. It holds all state of this package."""

from __future__ import annotations

TYPE_CHECKING = False

QUEUES = "CUDA_DEVICE_MAX_CONNECTIONS"
"""The variable that tells the driver how many hardware queues a context has."""

if TYPE_CHECKING:
    from threading import Thread

    from cudafilter.nvidia.nvjpeg import NvJpeg
    from cudafilter.nvidia.nvjpeg_units import Batches
    from cudafilter.operations.pixels import Pixels


class Picture:
    """The first image, while it is decoded."""

    thread: Thread
    """It ends once the pixels are there, or it is clear that none will come."""
    data: bytes | None = None
    """The file, as soon as it is read and found to be one that can be decoded."""
    pixels: Pixels | None = None


class Gpu:
    """A GPU that starts."""

    thread: Thread
    """It ends once the GPU has started, or has failed to."""
    nvjpeg: NvJpeg | None = None
    batches: Batches | None = None
    """Of its JPEG units."""


class Begun:
    """All that has begun. A process has one of these."""

    few_queues = False
    """Whether this process has a few QUEUES, which others that it starts need not have."""
    caught = False
    """Whether KeyboardInterrupt is caught by now."""
    picture: Picture | None = None

    def __init__(self) -> None:
        self.gpus: dict[int, Gpu] = {}
        """By the GPU's number."""


begun = Begun()
