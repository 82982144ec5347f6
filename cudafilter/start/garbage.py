"""No garbage is looked for while modules are imported: they leave none, and looking for it took a
tenth of their time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Until collect_again(), at the latest until the end, no garbage is looked for."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def collect_again() -> None:
    """Look for garbage from now on, since the images begin."""
    gc.enable()
