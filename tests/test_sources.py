"""What sources name: patterns, what is left alone, and how much is asked of the system for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import cli
from cudafilter.cli.left import MOST_NAMES, left_lines
from cudafilter.errors import ParameterError
from cudafilter.formats import table, unread
from cudafilter.jobs.plan import make_plan
from cudafilter.jobs.sources import NO_FILE, Left
from cudafilter.jobs.watch import watch
from many_images import sources, touch

pytestmark = pytest.mark.usefixtures("here")


def picture(name: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(name)


RAW = "a raw photo, which is not read (develop it into a TIFF first)"
UNREAD = {
    "in/b.BPG": "a picture of a rare kind", "in/s/c.cr2": "a raw photo", "in/d.mp4": "a film",
    "in/e.psd": "a file of layers", "in/f.dng": "a raw photo",
    "in/g.svg": "a drawing or document", "in/h.tga": "a picture of a rare kind",
}  # fmt: skip


class TestWhatIsNotRead:
    def test_is_named_in_a_plan_with_what_to_do_and_the_rest_counted(self) -> None:
        touch("in/a.png", *UNREAD, "in/notes.txt", "in/desktop.ini", "in/.i.cr2", "in/README")
        made = make_plan(["in"], "out", recursive=True)
        told = {str(path): why for path, why in made.left}
        assert told.keys() == UNREAD.keys()
        for name, kind in UNREAD.items():
            assert told[name].startswith(f"{kind}, which is not read (")
            assert told[name].endswith(" first)")
        assert made.left_alone == len(UNREAD) + 4

    def test_is_named_when_a_pattern_matches_it(self) -> None:
        touch("in/a.png", "in/b.nef", "in/notes.txt")
        made = make_plan(["in/*"], "out")
        assert (sources(made), made.left) == (["in/a.png"], (Left(Path("in/b.nef"), RAW),))
        assert made.left_alone == 2

    def test_is_a_failure_if_that_is_asked(self) -> None:
        picture("in/a.png")
        touch("in/b.nef", "in/notes.txt", "in/.c.nef")
        made = make_plan(["in"], "out", recursive=True, strict=True)
        assert (made.left, made.left_alone, made.refused) == ((), 2, ((Path("in/b.nef"), RAW),))
        for words in (["-r", "in"], ["in/*"]):
            ran = cli("blur", "--engine", "cpu", "--strict", *words, "out")
            assert ran.exit_code == 1
            assert f"error: in/b.nef: {RAW}" in ran.stderr.splitlines()
            assert "1 done, 0 skipped, 1 failed, " in ran.stderr
            assert Path("out/a.png").exists()
        assert cli("blur", "--strict", "-r", "in", "out", "--dry-run").exit_code == 1
        assert cli("blur", "--engine", "cpu", "-r", "in", "out").exit_code == 0
        touch("only/b.nef")
        assert cli("blur", "--engine", "cpu", "--strict", "-r", "only", "out").exit_code == 1

    @pytest.mark.parametrize(
        ("name", "data", "words"),
        [
            ("x.cr2", b"II*\0", "develop it into a TIFF first"),
            ("x.psd", b"8BPS\0\1", "it is a file of layers, which is not read"),
            ("x.jpg", b"8BPS\0\1", "it is a file of layers, which is not read"),
            ("x.mp4", b"\0\0\0\x18ftypisom", "it is a film, which is not read (extract its frames"),
            ("x.svg", b"<svg/>", "render it into pixels first"),
            ("x.raw", b"unknown", "it is no image of a known format (develop it"),
        ],
    )
    def test_a_single_one_is_an_error_that_says_what_to_do(
        self, name: str, data: bytes, words: str
    ) -> None:
        Path(name).write_bytes(data)
        ran = cli("blur", "--engine", "cpu", name, "out.png")
        assert ran.exit_code == 1
        assert words in ran.stderr
        if name != "x.jpg":
            for rest in (["out/"], ["--in-place"]):
                ran = cli("blur", "--engine", "cpu", name, *rest)
                assert ran.exit_code == 2
                assert "is not read or written" in ran.stderr
                assert " first" in ran.stderr

    def test_no_kind_is_also_read(self) -> None:
        known = [end for kind in unread.KINDS for end in kind.extensions.split()]
        assert len(known) == len(set(known))
        optional = [end for f in table.FORMATS.values() if f.needs for end in f.extensions]
        assert set(known) & set(table.BY_EXTENSION) == set(optional)

    def test_a_format_whose_extra_is_missing_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(table, "_is_there", lambda module: False)
        touch("in/a.png", "in/b.HEIC")
        made = make_plan(["in"], "out", recursive=True)
        ((path, why),) = made.left
        assert str(path) == "in/b.HEIC"
        assert "pip install 'cudafilter[heic]'" in why
        monkeypatch.setattr(table, "_is_there", lambda module: True)
        assert make_plan(["in"], "out", recursive=True, format="png").left == ()

    def test_so_is_what_has_an_images_name_and_is_none(self) -> None:
        touch("in/a.png")
        os.mkfifo("in/b.png")
        made = make_plan(["in"], "out", recursive=True)
        assert made.left == (Left(Path("in/b.png"), NO_FILE),)

    def test_is_told_at_the_end_and_in_the_report(self) -> None:
        picture("in/a.png")
        touch("in/b.dng", "in/c.cr2", "in/notes.txt")
        ran = cli("blur", "--engine", "cpu", "-r", "in", "out", "--report", "report")
        assert ran.exit_code == 0, ran.stderr
        assert f"left alone, {RAW}: in/b.dng, in/c.cr2" in ran.stderr.splitlines()
        assert "1 done, 0 skipped, 0 failed, 3 left alone" in ran.stderr
        records = [json.loads(line) for line in Path("report").read_text().splitlines()]
        left = [record for record in records if record["status"] == "left alone"]
        assert [record["source"] for record in left] == ["in/b.dng", "in/c.cr2"]
        assert left[0]["notes"] == [RAW]
        assert left[0]["error"] is None

    def test_is_told_before_it_as_well(self) -> None:
        picture("in/a.png")
        touch("in/b.dng")
        ran = cli("blur", "-r", "in", "out", "--dry-run")
        assert f"left alone, {RAW}: in/b.dng" in ran.stderr.splitlines()
        assert "in/b.dng" not in ran.stdout

    def test_thousands_are_told_by_kind(self) -> None:
        left = [Left(Path(f"in/{n}.{'dng' if n % 3 else 'CR2'}"), RAW) for n in range(3000)]
        (line,) = left_lines(left)
        assert line.endswith(": 2,000 .dng (such as in/1.dng), 1,000 .cr2 (such as in/0.CR2)")
        (line,) = left_lines([Left(Path(f"x.{n}"), "so it is") for n in range(5000)])
        assert len(line) < 100 * MOST_NAMES
        assert line.endswith("of other kinds")

    def test_is_told_once_under_watch(self) -> None:
        picture("in/a.png")
        touch("in/b.dng")
        plans = watch(["in"], "out", recursive=True, sleep=lambda _: picture("in/c.png"))
        first, second = next(plans), next(plans)
        assert [str(path) for path, _ in first.left] == ["in/b.dng"]
        assert second.jobs
        assert second.left == ()


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "matched"),
        [
            ("x/*.png", "x/a.png x/b.png"),
            ("x/**.png", "x/a.png x/b.png"),
            ("x/***", "x/a.png x/b.png x/c.jpg"),
            ("x/b**", "x/b.png"),
            ("*/**b.png", "x/b.png"),
            ("x/?.png", "x/a.png x/b.png"),
            ("x/[!a].png", "x/b.png"),
            ("x/[[]1].png", ""),
            ("x/**/*.png", "x/a.png x/b.png x/s/d.png x/s/t/e.png"),
            ("x/**/**/*.png", "x/a.png x/b.png x/s/d.png x/s/t/e.png"),
            ("x/**/*/*.png", "x/s/d.png x/s/t/e.png"),
            ("x/**/t/*", "x/s/t/e.png"),
            ("x/s/**", "x/s/d.png x/s/t/e.png"),
            ("**/e.png", "x/s/t/e.png"),
            ("./x/*/d.*", "x/s/d.png"),
        ],
    )
    def test_match_as_in_a_shell(self, pattern: str, matched: str) -> None:
        touch("x/a.png", "x/b.png", "x/c.jpg", "x/s/d.png", "x/s/t/e.png", "x/.h/f.png", "x/.g.png")
        if matched:
            assert sources(make_plan([pattern], "out")) == matched.split()
        else:
            with pytest.raises(ParameterError, match="matches none"):
                make_plan([pattern], "out")

    @pytest.mark.parametrize(
        "pattern", ["[", "***", "a/**b", "x/[", "x/**.tif", "no/*.png", "*/*/*/*/*"]
    )
    def test_that_match_nothing_are_wrong_usage(self, pattern: str) -> None:
        touch("x/a.png")
        ran = cli("blur", pattern, "out/")
        assert ran.exit_code == 2
        assert f"error: {pattern}: no such file, and as a pattern it matches none" in ran.stderr
        assert "--debug" not in ran.stderr

    def test_stars_that_stand_for_no_folder_get_a_hint(self) -> None:
        touch("x/s/a.png")
        with pytest.raises(ParameterError) as caught:
            make_plan(["x/**.png"], "out")
        assert str(caught.value.hint).endswith("**/*.png")

    @pytest.mark.parametrize("name", ["", "a\0b", "a\0*", "\0/*.png"])
    def test_what_is_no_name_is_refused(self, name: str) -> None:
        for given, into in (([name], "out"), (["*"], name)):
            with pytest.raises(ParameterError, match="file name"):
                make_plan(given, into)

    def test_dest_in_what_they_match_is_left_out(self) -> None:
        touch("x/a.png", "x/out/a.png", "x/out/b.png")
        assert sources(make_plan(["x/**/*.png"], "x/out")) == ["x/a.png"]


def test_a_name_without_a_format_gets_a_hint_that_stands_for_itself() -> None:
    picture("a.png")
    ran = cli("blur", "a.png", "out")
    assert ran.exit_code == 2
    (hint,) = (line for line in ran.stderr.splitlines() if line.startswith("hint: "))
    assert hint.startswith("hint: give it one, such as .png, or add --format")


@pytest.mark.parametrize("into", ["new", "out", None])
def test_planning_asks_each_folder_once_not_each_file(
    into: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{folder}/{n}.png" for folder in "abc" for n in range(50)]
    touch(*(f"in/{name}" for name in names), *(f"out/{name}" for name in names))
    calls = 0
    realpath = os.path.realpath

    def counted(path: str, **options: bool) -> str:
        nonlocal calls
        calls += 1
        return realpath(path, **options)

    monkeypatch.setattr(os.path, "realpath", counted)
    made = make_plan(["in"], into, recursive=True)
    assert len(made.jobs) == 150
    assert calls < 20
