"""Damaged and hostile files in great number against the readers; see fuzz_cases for the classes.

python tools/fuzz.py                                       20,000 files of each format
python tools/fuzz.py --formats png,tiff --count 1000
python tools/fuzz.py --only png:12345 --keep DIR           one file again, kept in DIR

A finding is damage that is accepted, pixels that are wrong, an exception other than ImageError,
words that are not the program's, output on the terminal, a crash, more than 5 s, or more than 1 GiB
for a file of less than 1 MiB. The exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# The readers of this checkout, whatever is installed; children are given the same path.
sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz_worker import CRASH, FORMATS, OTHER, REFUSED, SAME, TIME, Cases, Limits, Outcome, serve

Task = tuple[str, int]
LISTED = 10
"""Findings of a kind that are told of each format."""
_START_SECONDS = 120
_TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """One process that reads files, and the file that it is at."""

    def __init__(
        self,
        start: int,
        limits: Limits,
        prepare: Callable[[], None] | None,
        formats: Sequence[str],
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        arguments = (other, start, limits, prepare, formats)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        other.close()
        if not self.pipe.poll(_START_SECONDS):
            self.end()
            raise SystemExit("fuzz: a child does not start")
        self.pipe.recv()  # it is ready
        self.limits = limits
        self.task: Task | None = None

    def begin(self, task: Task) -> None:
        self.task = task
        self._clock, self._cpu = time.monotonic(), self._used()
        self.pipe.send(task)

    def _used(self) -> float:
        """Seconds of CPU time so far."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0
        return (int(stat[11]) + int(stat[12])) / _TICKS

    def overdue(self) -> bool:
        """Whether the file takes longer than is allowed, with a second to say so itself."""
        passed = time.monotonic() - self._clock
        if passed < self.limits.seconds:
            return False
        used = self._used() - self._cpu
        return passed > 3 * self.limits.seconds + 1 or used > self.limits.seconds + 1

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def run(
    tasks: Sequence[Task],
    start: int = 0,
    limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
    prepare: Callable[[], None] | None = None,
    workers: int = 2,
) -> Iterator[Outcome]:
    """What comes of each of *tasks*, in the order in which they end.

    *prepare* is called in each child before it reads anything.
    """
    cases, waiting = Cases(start), iter(tasks)
    formats = list(dict.fromkeys(format for format, _ in tasks))
    idle = [Child(start, limits, prepare, formats) for _ in range(workers)]
    busy: list[Child] = []
    try:
        while True:
            while idle and (task := next(waiting, None)) is not None:
                child = idle.pop()
                busy.append(child)
                child.begin(task)
            if not busy:
                return
            ready = multiprocessing.connection.wait([child.pipe for child in busy], 0.1)
            for child in list(busy):
                outcome = None
                if child.pipe in ready:
                    try:
                        outcome = child.pipe.recv()
                    except (EOFError, ConnectionError):
                        child.process.join()
                        code = child.process.exitcode
                        outcome = _ended(cases, child, CRASH, f"the process ended with {code}")
                elif child.overdue():
                    outcome = _ended(cases, child, TIME, "no end")
                if outcome is None:
                    continue
                busy.remove(child)
                if outcome.verdict:
                    idle.append(child)
                else:
                    child.end()
                    idle.append(Child(start, limits, prepare, formats))
                yield outcome
    finally:
        for child in (*idle, *busy):
            child.end()


def _ended(cases: Cases, child: Child, kind: str, seen: str) -> Outcome:
    """The outcome of the file at which *child* died or has to be ended."""
    assert child.task is not None
    case = cases.get(*child.task)
    found = ((kind, seen),)
    seconds = child.limits.seconds if kind == TIME else 0.0
    words = (case.oracle, case.mutation, case.seed.name, "")
    return Outcome(*child.task, *words, found, seconds, 0)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 where there are findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--formats", default=",".join(FORMATS), help="as png,tiff")
    parser.add_argument("--count", type=int, default=20_000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0, help="another number gives other files")
    parser.add_argument("--only", help="one file, as png:12345")
    parser.add_argument("--keep", type=Path, help="a folder for the files of findings")
    chosen = parser.parse_args(arguments)
    formats = chosen.formats.split(",")
    if unknown := set(formats) - set(FORMATS):
        parser.error(f"no such format: {', '.join(sorted(unknown))}")
    tasks = [(format, number) for format in formats for number in range(chosen.count)]
    if chosen.only:
        format, _, number = chosen.only.partition(":")
        if format not in FORMATS or not number.isdecimal():
            parser.error("--only takes FORMAT:NUMBER")
        tasks = [(format, int(number))]
    cases, outcomes, wall = Cases(chosen.seed), list[Outcome](), time.monotonic()
    for outcome in run(tasks, chosen.seed, workers=1 if chosen.only else 2):
        outcomes.append(outcome)
        if chosen.keep and (outcome.findings or chosen.only):
            chosen.keep.mkdir(parents=True, exist_ok=True)
            name = f"{outcome.number}-{outcome.oracle}-{outcome.mutation}.{outcome.format}"
            data = cases.get(outcome.format, outcome.number).data
            (chosen.keep / name.replace(" ", "-").replace("'", "")).write_bytes(data)
        if sys.stderr.isatty() and len(outcomes) % 100 == 0:
            print(f"\r{len(outcomes)} of {len(tasks)}", end="", file=sys.stderr)
    tell(outcomes)
    print(f"{len(outcomes)} files in {time.monotonic() - wall:.0f} s, --seed {chosen.seed}")
    return int(any(outcome.findings for outcome in outcomes))


def tell(outcomes: list[Outcome]) -> None:
    """Print a line for each format, and each kind of findings with its first files."""
    print("format   files  refused     same    other  findings  CPU s  slowest s  largest MiB")
    for format in dict.fromkeys(outcome.format for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.format == format]
        verdicts = Counter(outcome.verdict for outcome in own)
        print(
            f"{format:6}{len(own):8}{verdicts[REFUSED]:9}{verdicts[SAME]:9}{verdicts[OTHER]:9}"
            f"{sum(bool(outcome.findings) for outcome in own):10}"
            f"{sum(outcome.seconds for outcome in own):7.0f}"
            f"{max(outcome.seconds for outcome in own):11.2f}"
            f"{max(outcome.memory for outcome in own) / (1 << 20):13.0f}"
        )
    unread = [o for o in outcomes if o.oracle == "seed" and o.verdict == REFUSED]
    for outcome in unread:
        print(f"not read: {outcome.format}:{outcome.number} {outcome.seed}")
    groups: dict[tuple[str, str, str, str], list[tuple[Outcome, str]]] = {}
    for outcome in outcomes:
        for kind, seen in outcome.findings:
            key = (kind, outcome.format, outcome.oracle, outcome.mutation)
            groups.setdefault(key, []).append((outcome, seen))
    for (kind, format, oracle, mutation), found in sorted(groups.items()):
        print(f"\n{kind}: {format}, {oracle}, {mutation}: {len(found)}")
        for outcome, seen in found[:LISTED]:
            line = " ".join(seen.split()).encode("unicode_escape").decode()
            print(f"  --only {format}:{outcome.number}  [{outcome.seed}]  {line[:200]}")


if __name__ == "__main__":
    sys.exit(main())
