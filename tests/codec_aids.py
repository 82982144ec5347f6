"""Pictures and other programs for tests of the codecs."""

from __future__ import annotations

import functools
import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from cudafilter.formats import (
    pillow,
)
from cudafilter.operations.pixels import Pixels

Patch = pytest.MonkeyPatch


@functools.cache
def photo(height: int = 600, width: int = 803) -> Pixels:
    """RGB like a photo: smooth structure, an edge and a sensor's noise."""
    rng = np.random.default_rng(5)
    rough = rng.normal(0, 1, (7, 9, 3)).astype(np.float32)
    scene = 110 + 45 * cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(scene, (width // 3, height // 2), height // 4, (200, 120, 40), -1)
    noisy = scene + rng.normal(0, 2, scene.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


@functools.cache
def drawing(height: int = 600, width: int = 803) -> Pixels:
    """RGB of flat areas and text."""
    rng = np.random.default_rng(6)
    canvas = np.full((height, width, 3), 240, np.uint8)
    for _ in range(40):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        colour = [int(value) for value in rng.integers(0, 255, 3)]
        cv2.rectangle(canvas, (x, y), (x + 90, y + 60), colour, -1)
        cv2.putText(canvas, "cudafilter", (x, y), 0, 1, (0, 0, 0), 2)
    return canvas


def forbid(monkeypatch: Patch, owner: Any, *names: str) -> None:
    """Let the test fail if the functions *names* of *owner* are called."""
    for name in names:

        def called(*_: Any, _name: str = name, **__: Any) -> Any:
            pytest.fail(f"{_name} was called")

        monkeypatch.setattr(owner, name, called)


@pytest.fixture
def no_pillow(monkeypatch: Patch) -> None:
    forbid(monkeypatch, pillow, "open_pillow", "save_pillow")


def from_pillow(data: bytes) -> Pixels:
    with Pil.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def outside(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run another program, or skip where it is not installed."""
    if not shutil.which(str(command[0])):
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=False)
