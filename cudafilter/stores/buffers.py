"""The bytes of files, put together without the interpreter's lock.

Copying megabytes takes milliseconds; ``bytes`` does it, sliced or joined, while no other thread
runs, and many images are in work at a time. So what is large stays a memoryview until it is copied
here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

Buffer: TypeAlias = bytes | memoryview
"""Bytes of a file; a memoryview is of single bytes, contiguous."""


def joined(pieces: Iterable[Buffer]) -> Buffer:
    """*pieces*, one of them at least, end to end."""
    return np.concatenate([np.frombuffer(piece, np.uint8) for piece in pieces]).data
