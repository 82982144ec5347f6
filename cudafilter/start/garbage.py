"""Python's garbage collector is off while modules are imported. They leave no garbage, and looking
for it took a tenth of their time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, no garbage is collected, unless collect_again() is called."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def collect_again() -> None:
    """Collect garbage from now on, since the images begin."""
    gc.enable()
