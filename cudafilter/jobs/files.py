"""Files to files from Python: what the command line does, as records to be iterated over."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from cudafilter.engines import Engine, require_engine
from cudafilter.engines.open import open_engine
from cudafilter.errors import ParameterError
from cudafilter.jobs import crew, sizing
from cudafilter.jobs.paged import make_plans
from cudafilter.jobs.plan import Plan
from cudafilter.jobs.record import Record
from cudafilter.jobs.settings import Settings
from cudafilter.jobs.shard import Shard
from cudafilter.operations.borders import Border
from cudafilter.operations.choices import CHECKS, ENGINES, frame_numbers
from cudafilter.operations.make import made
from cudafilter.operations.operation import Operation
from cudafilter.start.words import STDIO

Path = str | os.PathLike[str]

_NAMES = {"src": "sources", "dest": "destination"}
"""What the command line calls arguments -> what they are called here."""


def filter_files(
    sources: Path | Sequence[Path],
    destination: Path,
    filter: str | Operation,
    *,
    border: str | Border = "edge",
    engine: str | Engine = "auto",
    recursive: bool = False,
    existing: str = "overwrite",
    follow: bool = False,
    strict: bool = False,
    shard: str | None = None,
    format: str | None = None,
    quality: int | None = None,
    gray: bool = False,
    linear: bool = False,
    check: str | None = None,
    frames: str | None = None,
    max_pixels: int | None = None,
    jobs: int | None = None,
    **parameters: Any,
) -> Generator[Record]:
    """Filter files into *destination*, and yield the record of each as it ends.

    *sources* are files, folders (with *recursive*) and patterns; *destination* is a file, or a
    folder for several. *filter*, *border* and *parameters* are those of apply(). The other
    arguments are the options of those names, by the same rules: *check* is ``all`` or ``quick``,
    *frames* a text such as ``0,2-4``, *shard* ``I/N``, *jobs* how many images are in work at a
    time. *engine* is a name, or an open engine, which stays open.

    What is wrong with one image is in its record, whose status is ``failed`` then, and the others
    go on. What is wrong with the job raises ParameterError at the call, before any file is
    touched; EngineUnavailable comes with the first record. Work begins when the first record is
    asked for, and goes on ahead of the records by the images in work. To leave early (``break``,
    ``close()``) drops what is in work, but finishes the files being written: each is whole or not
    there, and no temporary stays.

    Images are not changed in place, and streams are for the command line. Images run side by side
    in threads; one call at a time is enough, since it takes all cores.
    """
    given: Iterable[object] = [sources]
    if isinstance(sources, Iterable) and not isinstance(sources, (str, bytes)):
        given = sources
    names = [_name("sources", each) for each in given]
    into = _name("destination", destination)
    if not names:
        raise ParameterError("sources", "no file is given")
    for argument, each in (*(("sources", name) for name in names), ("destination", into)):
        if each in ("", STDIO):
            raise ParameterError(argument, f"must name a file or folder, not {each!r}")
    operation, edge = made(filter, parameters), Border.named(border)
    if isinstance(engine, str) and engine not in ENGINES:
        raise ParameterError("engine", f"must be one of {', '.join(ENGINES)}, not {engine!r}")
    if not isinstance(engine, str):
        require_engine(engine)
    if check is not None and check not in CHECKS:
        raise ParameterError("check", f"must be one of {', '.join(CHECKS)}, not {check!r}")
    _require_whole("quality", quality, 100)
    _require_whole("max_pixels", max_pixels)
    _require_whole("jobs", jobs, sizing.MOST_THREADS)
    settings = Settings(
        gray=gray,
        linear=linear,
        check=check,
        quality=quality,
        frames=None if frames is None else frame_numbers(frames),
        max_pixels=max_pixels,
        strict=strict,
        engine_codec=engine != "cpu",
    )
    part = None if shard is None else Shard.parsed(shard)
    try:
        plans = make_plans(
            names, into, recursive=recursive, format=format, existing=existing,
            follow=follow, strict=strict, shard=part,
        )  # fmt: skip
        first = next(plans)
    except ParameterError as error:
        name = _NAMES.get(error.parameter, error.parameter)
        raise ParameterError(name, str(error), hint=error.hint) from None
    return _records(chain([first], plans), operation, edge, settings, engine, jobs)


def _records(
    plans: Iterable[Plan],
    filter: Operation,
    border: Border,
    settings: Settings,
    engine: str | Engine,
    jobs: int | None,
) -> Generator[Record]:
    opened: list[Engine] = []

    def opening(plan: Plan) -> Engine:
        if not isinstance(engine, str):
            return engine
        if not opened:
            note = sizing.small(plan.jobs, filter) if engine == "auto" else None
            opened.append(open_engine(engine if note is None else "cpu", several=plan.many))
        return opened[0]

    try:
        for plan in plans:
            yield from plan.records()
            if plan.jobs:
                yield from crew.records(
                    plan.jobs, partial(opening, plan), filter, border, settings, threads=jobs
                )
    finally:
        for each in opened:
            each.close()


def _name(argument: str, path: object) -> str:
    """The name that *path* is. Raises ParameterError (*argument*)."""
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    if not isinstance(path, str):
        raise ParameterError(argument, f"must be the name of a file or folder, not {path!r}")
    return path


def _require_whole(name: str, value: int | None, most: int | None = None) -> None:
    """Raise ParameterError (*name*) unless *value* is a whole number from 1 to *most*, or None."""
    if value is None or (type(value) is int and 1 <= value <= (most or value)):
        return
    limits = f"from 1 to {most}" if most else "from 1"
    raise ParameterError(name, f"must be a whole number {limits}, not {value!r}")
