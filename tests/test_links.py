"""Links: what is read through them, and what is not written through them unless asked."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from cudafilter.errors import ParameterError
from cudafilter.jobs.plan import Plan, make_plan, output_owners, plan_arrival
from cudafilter.jobs.sources import AGAIN, LINK, ROUND, find
from cudafilter.start.words import first_files
from many_images import sources, touch

pytestmark = pytest.mark.usefixtures("here")


def link(name: str, target: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).symlink_to(target)


def left(made: Plan) -> list[tuple[str, str]]:
    return [(str(path), why) for path, why in made.left]


def refusal(given: list[str], destination: str | None) -> ParameterError:
    with pytest.raises(ParameterError) as caught:
        make_plan(given, destination, recursive=True)
    return caught.value


class TestInPlace:
    def test_links_in_a_folder_are_named_and_left_alone(self) -> None:
        touch("outside/a.png", "outside/c.png", "tree/b.png")
        link("tree/folder", "../outside")
        link("tree/file.png", "../outside/c.png")
        link("tree/raw.cr2", "../outside/c.png")
        link("tree/notes.txt", "../outside/c.png")
        made = make_plan(["tree"], None, recursive=True)
        assert sources(made) == ["tree/b.png"]
        named = ["tree/file.png", "tree/folder", "tree/raw.cr2"]
        assert left(made) == [(name, LINK) for name in named]
        assert made.left_alone == 4

    def test_they_are_followed_when_asked_each_file_once(self) -> None:
        touch("outside/a.png", "tree/b.png")
        link("tree/folder", "../outside")
        link("tree/file.png", "../outside/a.png")
        link("tree/again.png", "b.png")
        made = make_plan(["tree"], None, recursive=True, follow=True)
        assert sources(made) == ["tree/again.png", "tree/file.png"]

    def test_a_link_that_is_named_is_followed(self) -> None:
        touch("outside/a.png", "outside/s/b.png")
        link("file.png", "outside/a.png")
        link("folder", "outside/s")
        assert sources(make_plan(["file.png"], None)) == ["file.png"]
        assert sources(make_plan(["folder"], None, recursive=True)) == ["folder/b.png"]

    @pytest.mark.parametrize("pattern", ["tree/*.png", "tree/*/*.png", "tree/**/*.png"])
    def test_a_pattern_follows_none(self, pattern: str) -> None:
        touch("outside/a.png", "tree/b.png", "tree/s/b.png")
        link("tree/folder", "../outside")
        link("tree/file.png", "../outside/a.png")
        link("tree/s/file.png", "../../outside/a.png")
        made = make_plan([pattern], None)
        assert {os.path.basename(source) for source in sources(made)} == {"b.png"}
        assert made.left
        assert {why for _, why in left(made)} == {LINK}


class TestDestination:
    @pytest.mark.parametrize("kind", ["folder", "file", "to be made", "deep"])
    def test_outputs_do_not_leave_it(self, kind: str) -> None:
        touch("in/s/a.png", "elsewhere/a.png")
        if kind == "file":
            link("out/s/a.png", "../../elsewhere/a.png")
        elif kind == "to be made":
            link("out/s/a.png", "../../elsewhere/none.png")
        elif kind == "folder":
            link("out/s", "../elsewhere")
        else:
            link("out/s", "..")
        error = refusal(["in"], "out")
        assert error.parameter == "dest"
        assert "out/s/a.png leads out of out, to /" in str(error)
        assert "--follow" in str(error.hint)
        assert make_plan(["in"], "out", recursive=True, follow=True).jobs

    def test_it_may_be_a_link_itself_and_have_links_inside(self) -> None:
        touch("in/s/a.png", "real/other/x")
        link("out", "real")
        link("real/s", "other")
        assert len(make_plan(["in"], "out", recursive=True).jobs) == 1

    def test_a_folder_beside_it_whose_name_begins_alike_is_outside(self) -> None:
        touch("in/s/a.png", "out2/x")
        link("out/s", "../out2")
        assert "leads out" in str(refusal(["in"], "out"))

    def test_a_file_that_is_named_may_be_a_link(self) -> None:
        touch("a.png", "elsewhere/b.png")
        link("b.png", "elsewhere/b.png")
        assert make_plan(["a.png"], "b.png").jobs

    def test_an_arrival_does_not_leave_it_either(self) -> None:
        touch("in/s/a.png")
        link("out/s", "../elsewhere")
        (image,) = find(["in"], True, Path("out")).images
        with pytest.raises(ParameterError, match="leads out"):
            plan_arrival(image, "out", output_owners([]))
        assert plan_arrival(image, "out", output_owners([]), follow=True)

    def test_two_outputs_that_a_link_brings_together_are_refused(self) -> None:
        touch("in/a.png", "in/b.png")
        link("out/a.png", "b.png")
        assert "would both become" in str(refusal(["in"], "out"))


class TestReading:
    def test_many_paths_to_a_folder_are_one(self) -> None:
        folder = Path("in")
        for _ in range(40):
            (folder / "folder").mkdir(parents=True)
            link(str(folder / "a_link"), "folder")
            folder /= "folder"
        touch(str(folder / "a.png"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        made = make_plan(["in"], "out", recursive=True)
        assert sources(made) == [str(folder / "a.png")], "the path without links"
        patterns = ["in/" + "*/" * 40 + "*.png", "in/**/*/**/*.png"]
        for pattern in patterns:
            assert sources(make_plan([pattern], "out")) == [str(folder / "a.png")]
        assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 2
        assert (str(Path("in/a_link")), AGAIN) in left(made)
        assert len(left(made)) == 40

    def test_of_several_links_the_first_by_name_is_taken(self) -> None:
        touch("elsewhere/s/a.png", "in/z.png")
        link("in/b", "../elsewhere")
        link("in/a", "../elsewhere")
        link("in/0/deep", "../../elsewhere")
        made = make_plan(["in"], "out", recursive=True)
        assert sources(made) == ["in/0/deep/s/a.png", "in/z.png"]
        assert left(made) == [("in/a", AGAIN), ("in/b", AGAIN)]

    @pytest.mark.parametrize("target", ["..", ".", "../..", "/", "../../../in"])
    def test_a_link_to_a_folder_it_lies_in_is_not_followed(self, target: str) -> None:
        touch("p/in/s/a.png", "p/other/b.png", "c.png")
        link("p/in/s/up", target)
        made = make_plan(["p/in"], "out", recursive=True)
        assert sources(made) == ["p/in/s/a.png"]
        if target != "../../../in":
            assert left(made) == [("p/in/s/up", ROUND)]

    def test_nor_is_one_behind_another_link(self) -> None:
        touch("in/a.png", "data/set/b.png", "data/c.png")
        link("in/set", "../data/set")
        link("data/set/up", "..")
        made = make_plan(["in"], "out", recursive=True)
        assert sources(made) == ["in/a.png", "in/set/b.png"]
        assert left(made) == [("in/set/up", ROUND)]

    def test_links_that_lead_to_each_other_end(self) -> None:
        touch("one/a.png", "two/b.png")
        link("one/two", "../two")
        link("two/one", "../one")
        assert sources(make_plan(["one"], "out", recursive=True)) == ["one/a.png", "one/two/b.png"]

    def test_each_source_is_visited_for_itself(self) -> None:
        touch("in/s/a.png")
        assert len(make_plan(["in", "in/s"], "out", recursive=True).jobs) == 2
        assert len(make_plan(["in", "in/s"], None, recursive=True).jobs) == 1

    def test_a_tree_deeper_than_calls_can_be(self) -> None:
        here = os.getcwd()
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        touch("a.png")
        os.chdir(here)
        made = make_plan(["d"], "out", recursive=True), make_plan(["d/**/a.png"], "out")
        first = first_files(["d"])
        subprocess.run(["rm", "-r", "d"], check=True)  # shutil would call itself too deep
        assert [len(plan.jobs) for plan in made] == [1, 1]
        assert first == ["a.png"]
