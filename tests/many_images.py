"""Files, plans, jobs and an engine that does what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import agreement
from cudafilter.engines import Engine, Result
from cudafilter.engines.codecs import JpegPath
from cudafilter.jobs import crew
from cudafilter.jobs.plan import Job, Plan, make_plan
from cudafilter.jobs.record import Record
from cudafilter.jobs.worker import Settings
from cudafilter.operations.borders import Border
from cudafilter.operations.make import make
from cudafilter.operations.operation import Operation
from cudafilter.operations.pixels import Pixels

BLUR = make("blur", sigma=1)


class StandIn(agreement.StandIn):
    """An engine that does with the pixels what a test wants."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        do: Callable[[Pixels], Pixels] = lambda pixels: pixels,
        parallel: int = 0,
        jpeg: JpegPath | None = None,
    ) -> None:
        self._do = do
        self.overwrites: list[bool] = []
        self.parallel = parallel
        self.jpeg = jpeg

    def run(
        self,
        pixels: Pixels,
        filter: Operation,
        border: Border = Border(),
        alpha: bool = False,
        *,
        overwrite: bool = False,
        rows: tuple[int, int] | None = None,
    ) -> Result:
        self.overwrites.append(overwrite)
        return Result(self._do(pixels), {"upload": 0.25, "kernel": 0.5}, self.notes)


@pytest.fixture
def photos(here: Path) -> Path:
    """Six pictures in a folder, which is the current one's ``in``."""
    folder = Path("in")
    folder.mkdir()
    rng = np.random.default_rng(2)
    for n in range(6):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return folder


def run(
    jobs: Sequence[Job],
    engine: Engine,
    settings: Settings = Settings(),  # noqa: B008
    **extra: Any,
) -> dict[str, Record]:
    records: dict[str, Record] = {}
    crew.run(
        jobs, lambda: engine, BLUR, Border(), settings,
        lambda r: records.update({r.source: r}), **extra,
    )  # fmt: skip
    return records


def folder_jobs(**options: Any) -> Sequence[Job]:
    return make_plan(["in"], "out", recursive=True, **options).jobs


def touch(*names: str) -> None:
    """Make empty files, which do where a test is of names and not of pixels."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def sources(made: Plan) -> list[str]:
    return [str(job.source) for job in made.jobs]
