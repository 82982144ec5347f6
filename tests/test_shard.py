"""--shard: shares that have nothing in common and leave nothing out, whatever arrives meanwhile."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import cli, folder, picture, snapshot
from cudafilter.errors import ParameterError
from cudafilter.jobs.plan import Plan, make_plan
from cudafilter.jobs.shard import MOST, Shard
from cudafilter.operations.choices import EXISTING
from many_images import touch
from test_docs import TEXTS, blocks

__all__ = ["folder"]

RUN = ("blur", "-r", "in", "out")

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
PATHS = st.sets(NAMES, max_size=40)


def shards(of: int) -> list[Shard]:
    return [Shard(number, of) for number in range(1, of + 1)]


def plan(shard: Shard | None = None, existing: str = "overwrite", strict: bool = False) -> Plan:
    return make_plan(["in"], "out", recursive=True, existing=existing, strict=strict, shard=shard)


@given(PATHS, PATHS, st.integers(1, 50))
def test_each_file_is_of_one_share_and_stays_there_when_others_arrive(
    at_first: set[str], arrived: set[str], of: int
) -> None:
    def owners(names: set[str]) -> dict[str, list[int]]:
        return {name: [s.number for s in shards(of) if s.has(Path(name))] for name in sorted(names)}

    before, after = owners(at_first), owners(at_first | arrived)
    assert all(len(numbers) == 1 for numbers in after.values())
    assert before.items() <= after.items()


@pytest.mark.parametrize("of", [2, 3, 8, 64])
def test_shares_are_of_about_one_size(of: int) -> None:
    counts = Counter(
        next(shard.number for shard in shards(of) if shard.has(Path(f"out/IMG_{n:05}.JPG")))
        for n in range(100 * of)
    )
    assert all(50 < counts[shard.number] < 150 for shard in shards(of))  # five deviations


def test_a_name_is_of_the_same_share_in_every_version_and_process() -> None:
    """A change here parts the machines of one job that have two versions of the program."""
    mine = [next(s.number for s in shards(8) if s.has(Path(f"out/{n}.png"))) for n in range(12)]
    assert mine == [3, 3, 6, 3, 5, 7, 8, 7, 7, 2, 8, 8]
    assert Shard(1, 1).has(Path("in/\udcff.png"))  # a name that is no text


class TestThePlans:
    @pytest.fixture(autouse=True)
    def tree(self, here: Path) -> None:
        touch(*(f"in/{n}.png" for n in range(20)), *(f"in/deep/{n}.jpg" for n in range(20)))
        touch("in/.hidden.png", "in/notes.txt", "in/a.cr2", "in/b.mp4", "in/c.psd", "in/d.svg")

    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("of", [1, 2, 7, 100])
    def test_together_are_the_whole(self, of: int, strict: bool) -> None:
        whole = plan(strict=strict)
        parts = [plan(shard, strict=strict) for shard in shards(of)]
        for name in ("jobs", "left", "refused"):
            told = [each for part in parts for each in getattr(part, name)]
            assert sorted(told) == sorted(getattr(whole, name)), name
        assert sum(part.left_alone for part in parts) == whole.left_alone > 0
        assert {(part.whole, part.many) for part in parts} == {(40, True)}

    def test_keep_the_order(self) -> None:
        whole = list(plan().jobs)
        mine = list(plan(Shard(1, 3)).jobs)
        assert mine == [job for job in whole if job in mine]

    @pytest.mark.parametrize("existing", EXISTING)
    def test_look_only_at_their_own_outputs(self, existing: str) -> None:
        """The second machine may begin when the first one has ended."""
        first, second = (plan(shard) for shard in shards(2))
        touch(*(str(job.destination) for job in first.jobs))
        assert plan(Shard(2, 2), existing) == second

    def test_are_stopped_by_what_stops_the_whole(self) -> None:
        """Whichever share the two are of, none may write one over the other."""
        touch("in/1.tif", "in/1.bmp")
        for shard in shards(5):
            with pytest.raises(ParameterError, match="would both become"):
                make_plan(["in"], "out", recursive=True, format="webp", shard=shard)

    @pytest.mark.parametrize("paths", [("-", "out.png"), ("in/1.png", "-"), ("-", "-")])
    def test_are_of_files_not_of_streams(self, paths: tuple[str, str]) -> None:
        with pytest.raises(ParameterError, match="'-' is a stream") as caught:
            make_plan([paths[0]], paths[1], shard=Shard(1, 2))
        assert caught.value.parameter == "shard"


class TestTheCommand:
    def test_shares_make_together_what_one_run_makes(self, folder: Path) -> None:
        cli(*RUN)
        whole = snapshot("out")
        Path("out").rename("before")
        ends = [cli(*RUN, "--shard", f"{n}/3") for n in (1, 2, 3)]
        assert snapshot("out") == whole
        assert sorted(end.exit_code for end in ends) == [0, 0, 1]  # one has the broken image
        assert all(re.search(r"^shard \d/3: \d of 4 images$", e.stderr, re.M) for e in ends)

    def test_a_chain_has_them_too(self, folder: Path) -> None:
        words = ("chain", "blur | invert", "-r", "in", "out", "--dry-run", "--shard")
        parts = [cli(*words, f"{n}/2").stdout for n in (1, 2)]
        assert sum(part.count(" -> ") for part in parts) == 4

    def test_a_dry_run_prints_the_share_only(self, folder: Path) -> None:
        before = snapshot()
        parts = [cli(*RUN, "--dry-run", "--shard", f"{n}/2") for n in (1, 2)]
        lines = [part.stdout.splitlines() for part in parts]
        assert all(0 < len(some) < 4 for some in lines)
        assert sorted(chain(*lines)) == sorted(cli(*RUN, "--dry-run").stdout.splitlines())
        assert snapshot() == before

    def test_an_empty_share_is_done_at_once(self, folder: Path) -> None:
        ends = [cli(*RUN, "--shard", f"{n}/40") for n in range(1, 41)]
        empty = [end for end in ends if "0 of 4" in end.stderr]
        assert len(empty) >= 36
        assert {(end.exit_code, len(end.stderr.splitlines())) for end in empty[1:]} == {(0, 1)}

    def test_quiet_says_nothing(self, here: Path) -> None:
        picture("in/a.png")
        assert [cli(*RUN, "-q", "--shard", f"{n}/2").output for n in (1, 2)] == ["", ""]

    def test_in_place_each_picture_is_changed_once(self, here: Path) -> None:
        for n in range(6):
            picture(f"in/{n}.png")
        cli(*RUN)
        for n in (1, 2, 1):  # the first one again: its job had finished, so it begins anew
            before = snapshot("in")
            assert cli("blur", "-r", "--in-place", "in", "--shard", f"{n}/2").exit_code == 0
            changed = {k for k, v in snapshot("in").items() if before[k] != v}
            assert 0 < len(changed) < 6
            if n == 2:
                made = {Path(k).name: v for k, v in snapshot("in").items()}
                assert made == {Path(k).name: v for k, v in snapshot("out").items()}

    def test_the_report_tells_the_share(self, folder: Path) -> None:
        for n in (1, 2):
            cli(*RUN, "--shard", f"{n}/2", "--report", "r.jsonl")
        lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
        assert Counter(line["shard"] for line in lines).keys() == {"1/2", "2/2"}
        assert len(lines) == 4

    @pytest.mark.parametrize("of", [1, 2, 5])
    def test_what_failed_is_retried_from_reports_put_together(self, folder: Path, of: int) -> None:
        for n in (1, 2):
            cli(*RUN, "--shard", f"{n}/2", "--report", "r.jsonl")
        Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes())
        told = [cli(*RUN, "--retry-failed", "r.jsonl", "--shard", f"{n}/{of}")
                for n in range(1, of + 1)]  # fmt: skip
        assert [end.exit_code for end in told] == [0] * of
        nothing = [n for n, end in enumerate(told, 1) if "nothing failed" in end.stderr]
        assert len(nothing) == of - 1
        for n in nothing:
            assert f"nothing failed in r.jsonl of shard {n}/{of}\n" in told[n - 1].stderr
        assert Path("out/broken.png").exists()

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            ("0/8", "numbers count from 1, and '0/8' has 0"),
            ("0/8", "$((INDEX + 1))/8"),
            *((wrong, f"must be I/N with I from 1 to N, and N at most {MOST:,}") for wrong in (
                "9/8", "0/0", "1/0", "-1/8", "1", "", "/", "1/2/3", "a/b", "1.0/2", "1 /2", "²/3",
                f"1/{MOST + 1}", "1/" + "9" * 5000,
            )),
        ],
    )  # fmt: skip
    def test_wrong_values_are_told(self, value: str, told: str, folder: Path) -> None:
        done = cli(*RUN, "--shard", value)
        assert done.exit_code == 2
        assert told in " ".join(done.stderr.split())
        assert not Path("out").exists()

    def test_a_watch_has_none(self, folder: Path) -> None:
        done = cli(*RUN, "--watch", "--shard", "1/2")
        assert done.exit_code == 2
        assert "--watch does not end" in done.stderr


class TestTheExamplesOfClusters:
    """They run on no cluster here; what a cluster adds are variables."""

    def last_word(self, line: str, variables: str) -> str:
        words = ["sh", "-c", f"{variables}; printf '%s ' {line}"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
        return shlex.split(done.stdout)[-1]

    def test_of_slurm_the_first_task_has_1(self) -> None:
        (line,) = re.findall(r"^srun .*$", TEXTS["docs/many-images.md"], re.MULTILINE)
        variables = "SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_TASK_COUNT=8"
        assert Shard.parsed(self.last_word(line, variables)) == Shard(1, 8)

    def test_of_kubernetes_the_first_pod_has_0(self) -> None:
        (text,) = blocks("yaml", "docs/many-images.md")
        (line,) = re.findall(r'args: \["(.*)"\]', text)
        (pods,) = re.findall(r"completions: (\d+)", text)
        for index in (0, int(pods) - 1):
            word = self.last_word(line, f"JOB_COMPLETION_INDEX={index}")
            assert Shard.parsed(word) == Shard(index + 1, int(pods))
