"""What bounds a folder's run, by what was measured of it. A pure function, and its rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FULL = 0.85
"""Share of the time from which on something counts as busy throughout: the rest goes to the run's
first and last pictures, in which not all is at work."""

MOSTLY = 0.5
"""Share of the pictures' time from which on they are mostly there."""

OTHERS = 0.15
"""Share of the cores that other programs take from which on it matters."""

ONE = 0.7, 1.3
"""Cores busy that are one core: a lock lets one thread work at a time, and a few work without."""


SHORT = 0.5
"""Seconds: what is over sooner tells of its begin and end only."""


class Situation(NamedTuple):
    """What was measured of a run. Shares are 0 to 1."""

    seconds: float
    """That the run took."""
    cores: int
    """That the process may use."""
    busy: float
    """Cores that it kept busy, on average."""
    others: float | None
    """Cores of these that others kept busy; None where unknown."""
    pictures: int
    """How many were done."""
    in_work: float
    """How many of them were in work at a time, on average."""
    stages: Mapping[str, float]
    """Shares of the pictures' time in read, decode, run, check, encode, write, and wait: what is
    between the stages."""
    mostly: str
    """The largest part of the pictures' time, in words: ``decode (png)``."""
    on_gpu: bool
    """Whether the engine is a GPU's."""
    gpu: float | None = None
    """Share of the time in which the busiest GPU ran kernels; None where unknown."""
    units: float | None = None
    """The same of its JPEG units."""
    jobs: int | None = None
    """Most pictures in work at a time, as asked for by ``--jobs``."""


class Bound(NamedTuple):
    """What bounds a run."""

    name: str
    """One of NAMES, for programs."""
    told: str
    """In words, with the figures that it follows from."""
    hint: str
    """What would help."""


NAMES = (
    "pictures", "units", "cores", "gpu", "disk", "jobs", "memory", "others", "lock", "way", "none",
)  # fmt: skip


def percent(share: float) -> str:
    """*share* in words: ``19 %``."""
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def bound(of: Situation) -> Bound:
    """What bounds the run *of*. The first rule that holds names it:

    1. It is over in SHORT: there are too few pictures to tell.
    2. The GPU's JPEG units, or the cores, are FULL: the fuller one of the two.
    3. Kernels run on the GPU for FULL of the time. That is less sure, since a kernel that runs need
       not fill the GPU, so it comes after the second.
    4. Pictures spend MOSTLY of their time in reading and writing, and no core in MOSTLY of it.
    5. ``--jobs`` keeps fewer pictures in work than there are cores.
    6. Pictures wait between their stages for a third of their time: for memory.
    7. Others take OTHERS of the cores, and together with them the cores are FULL.
    8. There are fewer than two pictures for each core: the first and the last leave cores idle.
    9. ONE core is busy while more pictures are in work: they wait for a lock, Python's or the
       driver's.
    10. On a GPU, pictures are MOSTLY in run: they wait for copies and calls.
    11. Nothing is full.
    """
    share = of.busy / of.cores
    cores = f"{of.busy:.1f} of {of.cores} busy"
    disk = of.stages.get("read", 0.0) + of.stages.get("write", 0.0)
    if of.seconds < SHORT:
        return Bound(
            "pictures",
            f"the number of pictures: {of.pictures} in {of.seconds:.2f} s are too few to tell",
            "measure a folder with more",
        )
    if of.units is not None and of.units >= max(FULL, share):
        return Bound(
            "units",
            f"the GPU's JPEG units: {percent(of.units)} busy",
            "another GPU; --codec cpu where many cores are idle",
        )
    if share >= FULL:
        return Bound("cores", f"the cores: {cores}, mostly in {of.mostly}", _for_cores(of))
    if of.on_gpu and of.gpu is not None and of.gpu >= FULL:
        return Bound(
            "gpu",
            f"the GPU: kernels run {percent(of.gpu)} of the time",
            "another GPU, or a filter with fewer taps",
        )
    if disk >= MOSTLY and of.busy <= MOSTLY * of.in_work:
        reads = of.stages.get("read", 0.0) >= disk / 2
        return Bound(
            "disk",
            f"the disk, {'reads' if reads else 'writes'}: {percent(disk)} of the pictures' time",
            "a faster disk" + ("" if reads else " for the results, or a format with smaller files"),
        )
    if of.jobs is not None and of.jobs < of.cores:
        return Bound("jobs", f"--jobs {of.jobs}: {cores}", f"--jobs {of.cores}, or none")
    waiting = of.stages.get("wait", 0.0)
    if waiting >= 1 / 3:
        return Bound(
            "memory",
            f"memory: pictures wait for room {percent(waiting)} of their time",
            "more memory, or a larger share of it by CUDAFILTER_MEMORY",
        )
    others = of.others or 0.0
    if others >= OTHERS * of.cores and of.busy + others >= FULL * of.cores:
        return Bound(
            "others",
            f"other programs: they keep {others:.1f} of {of.cores} cores busy",
            "measure again when they have ended",
        )
    if of.pictures < 2 * of.cores:
        return Bound(
            "pictures",
            f"the number of pictures: {of.pictures} for {of.cores} cores",
            "measure a folder with more",
        )
    if ONE[0] <= of.busy <= ONE[1] and of.in_work > ONE[1]:
        return Bound(
            "lock",
            f"a lock of this process: {of.busy:.1f} cores busy, {of.in_work:.1f} pictures in work",
            "several processes, each with a share: --shard 1/2 and --shard 2/2",
        )
    if of.on_gpu and of.stages.get("run", 0.0) >= MOSTLY:
        kernels = "" if of.gpu is None else f"; it is {percent(of.gpu)} busy"
        return Bound(
            "way",
            f"the way to the GPU: {percent(of.stages['run'])} of the pictures' time{kernels}",
            "more pictures at a time: --jobs",
        )
    return Bound("none", f"nothing is full: {cores}, mostly in {of.mostly}", "try other --jobs")


def _for_cores(of: Situation) -> str:
    """What helps where cores are full, by what they mostly do."""
    if of.mostly.startswith("run") and not of.on_gpu:
        return "more cores, or a GPU"
    if of.mostly.startswith("encode (png)"):
        return "more cores, or a lower --compress-level"
    if "(jpeg)" in of.mostly and not of.on_gpu:
        return "more cores, or a GPU that decodes and encodes JPEGs"
    return "more cores"
