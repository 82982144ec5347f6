"""How wide.cu is launched: its bands of rows and the scratch image between its passes."""

from __future__ import annotations

FUNCTIONS = ("columns", "rows")
"""The two passes, in their order."""

WARPS, RUN = 8, 16
"""Warps of a block and outputs of a thread. Both numbers stand in wide.cu too."""

THREADS = 32 * WARPS

BAND = {1: 1024, 2: 512, 3: 384, 4: 256}
"""Rows that go through at a time, by channels. They stand in wide.cu too."""

WORTHWHILE = {1: 65, 2: 65, 3: 49, 4: 49}
"""Taps a side from which on ``auto`` takes this and not stream.cu, by channels. On an H100, 81 taps
take stream.cu 1.5 times as long on uint8 gray, and 61 on uint8 RGB 1.2 times."""


def scratch_bytes(kernel_width: int, channels: int, width: int) -> int:
    """The scratch image: a line of float32 for each sample of a row and its halo."""
    # Threads read up to two runs past the halo, and use none of it.
    lines = (width + kernel_width - 1 + 3 * RUN) * channels
    return 4 * lines * (BAND[channels] + 32)


def blocks(kernel_width: int, channels: int, out_size: tuple[int, int]) -> tuple[int, int, int]:
    """Blocks side by side of the first pass, and all of each pass, for a band."""
    height, width = out_size
    across = -(-(width + kernel_width - 1) * channels // 32)
    tile = RUN * WARPS
    return across, across * -(-height // tile), -(-width // tile) * -(-height // 32)
