"""``--retry-failed``: of a plan, only what a report says has failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cudafilter.errors import ParameterError
from cudafilter.jobs.plan import Job, Plan
from cudafilter.jobs.record import FAILED
from cudafilter.start.words import STDIO
from cudafilter.stores.url import path_of

if TYPE_CHECKING:
    from cudafilter.jobs.shard import Shard

MOST_LINE = 1 << 20
"""Bytes of a line, at most: a file without lines, or a device, was named by mistake."""

_OWN = {"version", "shard"}
"""What may differ between two runs of one command."""


def only_failed(
    plan: Plan, path: str, facts: Mapping[str, Any], shard: Shard | None = None
) -> tuple[Plan, int]:
    """What of *plan* has failed by the report *path*, and how much that failed is not in the plan.

    *facts* are those of the job at hand, see report.job_facts(). The last line of an image and its
    destination counts, and of a *shard* only its own. Raises ParameterError ("retry_failed") where
    the report cannot be read, and with the line's number where one is damaged or of another job.
    """
    failed = _failed(path, facts)
    if shard is not None:  # by the result's name, or the image's own where it has none
        failed = {names for names in failed if shard.has(path_of(names[1] or names[0]))}
    jobs = tuple(job for job in plan.jobs if _names(job) in failed)
    refused = tuple(each for each in plan.refused if (str(each[0]), "") in failed)
    missing = len(failed) - len(jobs) - len(refused)
    if failed and missing == len(failed):
        raise ParameterError(
            "retry_failed",
            f"none of the {len(failed)} that failed in {path} is among these images",
            hint="give the same SRC and DEST, from the same folder",
        )
    return plan._replace(jobs=jobs, refused=refused, left=(), left_alone=0), missing


def _names(job: Job) -> tuple[str, str]:
    source, destination = (
        STDIO if path is None else str(path) for path in (job.source, job.destination)
    )
    return source, destination


def _failed(path: str, facts: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Source and destination of all that failed at last."""
    told = json.loads(json.dumps(facts))
    found: dict[tuple[str, str], bool] = {}
    try:
        with open(path, "rb") as file:
            for n, line in enumerate(iter(lambda: file.readline(MOST_LINE), b""), 1):
                where = f"line {n} of {path}"
                try:
                    record = json.loads(line)
                    names = record["source"], record["destination"]
                    failed = record["status"] == FAILED
                    present = all(isinstance(name, str) for name in names)
                except (ValueError, TypeError, KeyError, RecursionError):
                    present = False
                if not present:
                    raise ParameterError(
                        "retry_failed",
                        f"{where} is damaged: it is no record of an image",
                        hint="remove that line, and run its image again by itself",
                    )
                if differing := _differing(record, told):
                    name, its, ours = differing
                    be = "are" if name == "parameters" else "is"
                    raise ParameterError(
                        "retry_failed",
                        f"{where} is of another job: its {name.replace('_', ' ')} {be}"
                        f" {json.dumps(its)}, not {json.dumps(ours)}",
                        hint="give the filter and options of the run that wrote the report",
                    )
                found[names] = failed
    except OSError as error:
        raise ParameterError("retry_failed", f"cannot read {path}: {error.strerror}") from None
    return {names for names, failed in found.items() if failed}


def _differing(record: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """What first makes *record* one of another job than *told*: its name and both values."""
    for name, ours in told.items():
        its = record.get(name, ours)
        if name in _OWN or its == ours:
            continue
        if isinstance(its, dict) and its.keys() == ours.keys():  # the filter's parameters
            one = next(each for each in ours if its[each] != ours[each])
            return one, its[one], ours[one]
        return name, its, ours
    return None
