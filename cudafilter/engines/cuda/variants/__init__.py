"""The kernel ladder: for each .cu of cuda_src/ the module of its name, which plans its launches.

A module has two functions. ``plan(operation, layout)`` gives the Launch that runs it on such
pixels, or the LimitError that says why this kernel cannot. ``@takes(Correlation)`` before it says
which kind of operation it is for. ``hardest()`` gives operations near its limits, where registers
are short: ``make kernels`` compiles for these too.

This package imports nothing heavy: the command line reads the names from it.
"""

from __future__ import annotations

LADDER: tuple[str, ...] = (
    "vanilla", "constant", "tiled", "separable", "stream", "box", "wide", "blocked", "tensor",
    "rank", "extreme", "network", "histogram", "double", "bilateral", "point", "otsu",
    "together", "canny", "denoise",
)  # fmt: skip
"""The variants in the order of their steps. A new variant is a .cu, a .py and a name here."""

AUTO = "auto"
"""The variant whose launch costs least."""

CHOICES = (AUTO, *LADDER)
"""What may be asked for."""
