"""--retry-failed: what failed by a report of the same command, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import cli, folder, snapshot

__all__ = ["folder"]

RUN = ("blur", "-r", "in", "out")
REPORT = ("--report", "r.jsonl")
RETRY = ("--retry-failed", "r.jsonl")


@pytest.fixture
def report(folder: Path) -> Path:
    """That of a run on a folder of which one image is broken."""
    assert cli(*RUN, *REPORT).exit_code == 1
    return Path("r.jsonl")


def mended() -> None:
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes())


class TestDoes:
    def test_only_what_failed(self, report: Path) -> None:
        mended()
        before = snapshot("out")
        done = cli(*RUN, *RETRY)
        assert done.exit_code == 0, done.stderr
        assert "1 done, 0 skipped, 0 failed, 0 left alone" in done.stderr
        added = snapshot("out").keys() - before.keys()
        assert added == {"out/broken.png"}

    def test_what_failed_at_last(self, report: Path) -> None:
        """A report that the second run adds to says that nothing is left."""
        mended()
        assert cli(*RUN, *RETRY, *REPORT).exit_code == 0
        before = snapshot()
        done = cli(*RUN, *RETRY, *REPORT)
        assert done.exit_code == 0
        assert done.stderr == "nothing failed in r.jsonl\n"
        assert cli(*RUN, *RETRY, "--quiet").stderr == ""
        assert snapshot() == before

    def test_it_again_where_it_fails_again(self, report: Path) -> None:
        done = cli(*RUN, *RETRY, *REPORT)
        assert done.exit_code == 1
        assert "0 done, 0 skipped, 1 failed" in done.stderr
        assert len(report.read_text().splitlines()) == 5

    def test_and_prints_only_that(self, report: Path) -> None:
        done = cli(*RUN, *RETRY, "--dry-run")
        assert done.stdout == "in/broken.png -> out/broken.png\n"

    def test_other_ways_to_run_are_the_same_command(self, report: Path) -> None:
        mended()
        done = cli(*RUN, *RETRY, "--check", "--jobs", "2", "--compress-level", "9")
        assert done.exit_code == 0, done.stderr

    def test_in_place(self, folder: Path) -> None:
        words = ("blur", "-r", "--in-place", "in")
        assert cli(*words, *REPORT).exit_code == 1
        mended()
        before = snapshot("in")
        assert cli(*words, *RETRY).exit_code == 0
        after = snapshot("in")
        assert [name for name in after if after[name] != before[name]] == ["in/broken.png"]

    def test_what_was_refused_in_a_folder(self, folder: Path) -> None:
        Path("in/film.mp4").write_bytes(b"x")
        assert cli(*RUN, "--strict", *REPORT).exit_code == 1
        mended()
        done = cli(*RUN, "--strict", *RETRY)
        assert "film.mp4" in done.stderr
        assert "1 done, 0 skipped, 1 failed" in done.stderr

    def test_and_tells_what_is_there_no_more(self, report: Path) -> None:
        lines = report.read_text().splitlines()
        failed = next(line for line in lines if '"failed"' in line)
        report.write_text("\n".join([*lines, failed.replace("broken", "gone")]) + "\n")
        mended()
        done = cli(*RUN, *RETRY)
        assert done.exit_code == 0
        assert "note: 1 more failed in r.jsonl, and are not among these" in done.stderr


class TestRefuses:
    def told(self, *words: str) -> str:
        before = snapshot()
        done = cli(*words)
        assert done.exit_code == 2, done.stderr
        assert snapshot() == before
        return done.stderr

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("box", "-r", "in", "out"), 'its filter is "blur", not "box"'),
            ((*RUN, "--sigma", "3"), "its sigma is 2.0, not 3.0"),
            ((*RUN, "--border", "wrap"), 'its border is "edge", not "wrap"'),
            ((*RUN, "--region", "0,0,9,9"), 'its region is [], not ["0,0,9,9"]'),
            ((*RUN, "--linear"), "its linear is false, not true"),
            ((*RUN, "--gray"), "its gray is false, not true"),
        ],
        ids=range(6),
    )
    def test_a_report_of_another_command(
        self, report: Path, words: tuple[str, ...], told: str
    ) -> None:
        text = self.told(*words, *RETRY)
        assert "line 1 of r.jsonl is of another job: " in text
        assert told in text

    def test_a_report_with_a_parameter_that_there_is_none_of(self, report: Path) -> None:
        report.write_text(report.read_text().replace('"radius": null', '"radios": null'))
        assert "line 1 of r.jsonl is of another job: its parameters are" in self.told(*RUN, *RETRY)

    @pytest.mark.parametrize(
        "line", ["", "{", "[1]", "3", '{"source": "a"}', '{"source": "cu', "\0", "[" * 5000]
    )
    def test_a_damaged_line_by_its_number(self, report: Path, line: str) -> None:
        first, *others = report.read_text().splitlines()
        report.write_text("\n".join([first, line, *others]) + "\n")
        assert "line 2 of r.jsonl is damaged" in self.told(*RUN, *RETRY)

    def test_other_images(self, report: Path) -> None:
        Path("in").rename("other")
        text = self.told("blur", "-r", "other", "out", *RETRY)
        assert "none of the 1 that failed in r.jsonl is among these images" in text
        assert "give the same SRC and DEST, from the same folder" in text

    def test_a_report_that_is_not_there(self, folder: Path) -> None:
        assert "cannot read no.jsonl: No such file" in self.told(*RUN, "--retry-failed", "no.jsonl")

    def test_watch(self, report: Path) -> None:
        assert "--watch does not end" in self.told(*RUN, *RETRY, "--watch")


def test_a_report_of_an_older_version_that_tells_less_will_do(report: Path) -> None:
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    for line in lines:
        line["version"] = "0.0.1"
        del line["mask"], line["linear"]
    report.write_text("".join(json.dumps(line) + "\n" for line in lines))
    mended()
    assert cli(*RUN, *RETRY).exit_code == 0
