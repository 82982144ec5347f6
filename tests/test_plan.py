"""Which file goes where, and what stops a job before it starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cudafilter.errors import ParameterError
from cudafilter.jobs import places
from cudafilter.jobs.plan import Plan, make_plan
from cudafilter.operations.choices import EXISTING
from many_images import touch

pytestmark = pytest.mark.usefixtures("here")


def pairs(made: Plan) -> list[tuple[str, str]]:
    return [(str(job.source), str(job.destination)) for job in made.jobs]


def refusal(*arguments: str, **options: object) -> ParameterError:
    *given, destination = arguments
    with pytest.raises(ParameterError) as caught:
        make_plan(given, destination, **options)  # type: ignore[arg-type]
    return caught.value


class TestOneFile:
    def test_goes_to_the_named_file_in_the_format_of_its_extension(self) -> None:
        touch("a.png")
        made = make_plan(["a.png"], "b.jpg")
        assert pairs(made) == [("a.png", "b.jpg")]
        assert made.jobs[0].format == "jpeg"
        assert not made.many

    @pytest.mark.parametrize("destination", ["out", "out/"])
    def test_goes_into_an_existing_folder(self, destination: str) -> None:
        touch("in/a.png")
        Path("out").mkdir()
        assert pairs(make_plan(["in/a.png"], destination)) == [("in/a.png", "out/a.png")]

    def test_goes_into_a_folder_to_be_made_if_it_ends_in_a_slash(self) -> None:
        touch("a.png")
        assert pairs(make_plan(["a.png"], "new/deep/")) == [("a.png", "new/deep/a.png")]
        assert not Path("new").exists()

    @pytest.mark.parametrize("name", ["b.png/c.png", "b.png/new/c.png"])
    def test_a_file_in_the_place_of_its_folder_is_told(self, name: str) -> None:
        touch("a.png", "b.png")
        error = refusal("a.png", name)
        assert (str(error), error.hint) == (f"{name}: b.png is no folder", None)

    def test_a_file_is_no_folder_for_one_image(self) -> None:
        touch("a.png", "b.png")
        assert str(refusal("a.png", "b.png/")) == "b.png is a file, not a folder"

    def test_a_missing_folder_is_not_made_unasked(self) -> None:
        touch("a.png")
        error = refusal("a.png", "new/b.png")
        assert "new does not exist" in str(error)
        assert refusal("a.png", "my pictures/b.png").hint == (
            "make it first: mkdir -p 'my pictures'"
        )
        assert error.hint == "make it first: mkdir -p new"

    @pytest.mark.parametrize("name", ["out.xyz", "out", "out.pbm"])
    def test_an_output_that_cannot_be_written_is_found_first(self, name: str) -> None:
        touch("a.png")
        error = refusal("a.png", name)
        assert name in str(error)
        assert "png" in str(error.hint)

    def test_a_format_may_stand_in_for_an_extension(self) -> None:
        touch("a.png")
        assert make_plan(["a.png"], "out", format="tif").jobs[0].format == "tiff"

    def test_a_format_may_not_contradict_the_name(self) -> None:
        touch("a.png")
        assert refusal("a.png", "b.png", format="jpeg").parameter == "format"

    @pytest.mark.parametrize("name", ["xyz", "pbm", ""])
    def test_an_unknown_format_lists_the_known(self, name: str) -> None:
        touch("a.png")
        error = refusal("a.png", "out", format=name)
        assert error.parameter == "format"
        assert "png, jpeg" in str(error)


class TestManyFiles:
    def test_go_into_a_folder_by_their_names(self) -> None:
        touch("x/a.png", "y/b.jpg")
        assert pairs(make_plan(["x/a.png", "y/b.jpg"], "out")) == [
            ("x/a.png", "out/a.png"),
            ("y/b.jpg", "out/b.jpg"),
        ]

    def test_a_forgotten_folder_does_not_become_one_that_is_named_as_an_image(self) -> None:
        touch("a.png", "b.png")
        error = refusal("a.png", "b.png", "c.png")
        assert "c.png is the name of an image" in str(error)
        assert "end it with '/'" in str(error.hint)
        assert len(make_plan(["a.png", "b.png"], "c.png/").jobs) == 2

    @pytest.mark.parametrize("destination", ["c.png", "c.png/out"])
    def test_a_file_is_no_folder(self, destination: str) -> None:
        touch("a.png", "b.png", "c.png")
        assert "c.png is a file" in str(refusal("a.png", "b.png", destination))

    def test_the_same_file_twice_is_one_job(self) -> None:
        touch("a.png")
        Path("link.png").symlink_to("a.png")
        assert len(make_plan(["a.png", "./a.png"], "out/").jobs) == 1

    @pytest.mark.parametrize("name", ["a.pbm", "a.xyz"])
    def test_one_named_that_cannot_be_written_stops_all(self, name: str) -> None:
        touch(name, "b.png")
        assert name in str(refusal(name, "b.png", "out/"))

    def test_a_missing_source_stops_all(self) -> None:
        touch("a.png")
        assert str(refusal("a.png", "none.png", "out/")) == "none.png: no such file or folder"


class TestFolders:
    def test_the_tree_is_mirrored_and_the_rest_left_alone(self) -> None:
        touch("in/b.PNG", "in/s/t/a.jpg", "in/notes.txt", "in/desktop.ini", "in/.a.png", "in/.c/x")
        made = make_plan(["in"], "out", recursive=True)
        assert pairs(made) == [("in/b.PNG", "out/b.PNG"), ("in/s/t/a.jpg", "out/s/t/a.jpg")]
        assert made.left_alone == 4
        assert made.many

    def test_needs_recursive(self) -> None:
        touch("in/a.png")
        assert "add -r" in str(refusal("in", "out"))

    def test_a_folder_without_images_is_an_empty_plan(self) -> None:
        touch("in/notes.txt")
        made = make_plan(["in"], "out", recursive=True)
        assert (made.jobs, made.left_alone, made.many) == ((), 1, True)

    def test_a_destination_inside_the_source_is_not_read(self) -> None:
        touch("in/a.png", "in/out/a.png", "in/out/b.png")
        assert pairs(make_plan(["in"], "in/out", recursive=True)) == [("in/a.png", "in/out/a.png")]

    def test_links_that_go_round_end(self) -> None:
        touch("in/s/a.png")
        Path("in/s/up").symlink_to("..")
        Path("in/self.png").symlink_to("self.png")
        made = make_plan(["in"], "out", recursive=True)
        assert [source for source, _ in pairs(made)] == ["in/s/a.png", "in/self.png"]

    def test_linked_folders_and_broken_links_are_not_passed_over(self) -> None:
        touch("elsewhere/a.png", "in/x.txt")
        Path("in/linked").symlink_to("../elsewhere")
        Path("in/gone.png").symlink_to("nowhere.png")
        made = make_plan(["in"], "out", recursive=True)
        assert [source for source, _ in pairs(made)] == ["in/gone.png", "in/linked/a.png"]

    def test_pipes_named_as_images_are_left_alone(self) -> None:
        touch("in/a.png")
        os.mkfifo("in/pipe.png")
        made = make_plan(["in"], "out", recursive=True)
        assert (len(made.jobs), made.left_alone) == (1, 1)

    def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_goes_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch("in/a.png", "in/locked/b.png")
        scandir = os.scandir

        def refuse(folder: Any) -> object:
            if Path(folder).name == "locked":
                raise PermissionError(13, "Permission denied")
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        made = make_plan(["in"], "out", recursive=True)
        assert pairs(made) == [("in/a.png", "out/a.png")]
        assert made.refused == ((Path("in/locked"), "Permission denied"),)

    def test_an_image_whose_format_is_not_written_is_told_and_the_rest_goes_on(self) -> None:
        touch("in/a.pbm", "in/a.pfm", "in/b.png")
        made = make_plan(["in"], "out", recursive=True)
        assert pairs(made) == [("in/b.png", "out/b.png")]
        assert [path for path, _ in made.refused] == [Path("in/a.pbm"), Path("in/a.pfm")]
        with_format = make_plan(["in/a.pfm", "in/b.png"], "out", format="tiff")
        assert len(with_format.jobs) == 2

    def test_a_format_changes_extensions_that_do_not_name_it(self) -> None:
        touch("in/a.jpg", "in/b.jpeg", "in/c.png")
        made = make_plan(["in"], "out", recursive=True, format="jpeg")
        assert [Path(d).name for _, d in pairs(made)] == ["a.jpg", "b.jpeg", "c.jpg"]


class TestGlobs:
    def test_go_below_the_fixed_prefix(self) -> None:
        touch("p/a.jpg", "p/s/b.jpg", "p/s/c.png", "p/.h/d.jpg")
        made = make_plan(["p/**/*.jpg"], "out")
        assert pairs(made) == [("p/a.jpg", "out/a.jpg"), ("p/s/b.jpg", "out/s/b.jpg")]
        assert made.many

    def test_a_file_of_that_very_name_comes_first(self) -> None:
        touch("a[1].png", "a1.png")
        assert pairs(make_plan(["a[1].png"], "out/")) == [("a[1].png", "out/a[1].png")]

    def test_without_a_match_are_refused(self) -> None:
        assert "*.png" in str(refusal("*.png", "out"))


class TestNothingIsLost:
    @pytest.mark.parametrize("kind", ["itself", "symlink", "hard link", "folder link"])
    def test_an_output_that_is_an_input_is_refused(self, kind: str) -> None:
        touch("in/a.png")
        Path("out").mkdir()
        if kind == "itself":
            destination = "in/../in/a.png"
        elif kind == "symlink":
            Path("out/a.png").symlink_to("../in/a.png")
            destination = "out/a.png"
        elif kind == "hard link":
            os.link("in/a.png", "out/a.png")
            destination = "out/a.png"
        else:
            Path("same").symlink_to("in")
            destination = "same/"
        error = refusal("in/a.png", destination)
        assert "would overwrite the input" in str(error)
        assert "--in-place" in str(error.hint)

    def test_neither_is_another_input(self) -> None:
        touch("in/a.png", "out/a.png")
        assert "out/a.png" in str(refusal("in/a.png", "out/a.png", "out/"))

    def test_nor_under_skip(self) -> None:
        touch("in/a.png")
        assert "--in-place" in str(refusal("in", "in", recursive=True, existing="skip").hint)

    def test_two_inputs_for_one_output_are_both_named(self) -> None:
        touch("x/a.png", "y/a.png")
        error = refusal("x/a.png", "y/a.png", "out/")
        assert "x/a.png and y/a.png would both become out/a.png" in str(error)

    def test_equal_stems_meet_under_a_format(self) -> None:
        touch("in/a.png", "in/a.jpg")
        assert len(make_plan(["in"], "out", recursive=True).jobs) == 2
        error = refusal("in", "out", recursive=True, format="png")
        assert "in/a.jpg and in/a.png" in str(error)

    def test_names_that_differ_in_case_meet_where_the_file_system_says_so(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch("x/a.png", "y/A.png")
        assert len(make_plan(["x/a.png", "y/A.png"], "out/").jobs) == 2
        monkeypatch.setattr(places, "ignores_case", lambda folder: True)
        assert "y/A.png" in str(refusal("x/a.png", "y/A.png", "out/"))

    def test_this_file_system_is_asked_for_its_case(self, here: Path) -> None:
        Path("word").mkdir()
        assert places.ignores_case(str(here / "word" / "42")) == Path("WORD").exists()


class TestInPlace:
    def test_each_image_is_its_own_output(self) -> None:
        touch("in/a.png", "in/s/b.jpg")
        assert pairs(make_plan(["in"], None, recursive=True)) == [
            ("in/a.png", "in/a.png"),
            ("in/s/b.jpg", "in/s/b.jpg"),
        ]

    def test_by_whatever_names_an_image_is_done_once(self) -> None:
        touch("a.png")
        Path("link.png").symlink_to("a.png")
        assert len(make_plan(["a.png", "a.png", "link.png"], None).jobs) == 1

    @pytest.mark.parametrize(
        ("option", "value"), [("format", "png"), ("existing", "skip"), ("existing", "error")]
    )
    def test_options_without_a_meaning_are_refused(self, option: str, value: str) -> None:
        touch("a.png")
        with pytest.raises(ParameterError) as caught:
            make_plan(["a.png"], None, **{option: value})  # type: ignore[arg-type]
        assert caught.value.parameter == option


class TestStreams:
    def test_keep_the_format_of_the_input_unless_given(self) -> None:
        assert make_plan(["-"], "-").jobs[0].format is None
        assert make_plan(["-"], "-", format="jpg").jobs[0].format == "jpeg"
        touch("a.jpg")
        assert make_plan(["a.jpg"], "-").jobs[0].format == "jpeg"

    def test_standard_input_goes_to_a_file(self) -> None:
        made = make_plan(["-"], "out.png")
        assert (made.jobs[0].source, str(made.jobs[0].destination)) == (None, "out.png")

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (("-", "a.png", "out/"), "goes alone"),
            (("-", "out/"), "no name"),
            (("a.png", "b.png", "-"), "takes one image"),
            (("in", "-"), "takes one image"),
        ],
    )
    def test_serve_one_image(self, arguments: tuple[str, ...], reason: str) -> None:
        touch("a.png", "b.png", "in/a.png")
        assert reason in str(refusal(*arguments, recursive=True))

    def test_standard_input_is_not_changed_in_place(self) -> None:
        with pytest.raises(ParameterError, match="in place"):
            make_plan(["-"], None)


class TestExisting:
    def test_is_overwritten_unless_asked_otherwise(self) -> None:
        touch("in/a.png", "out/a.png")
        assert [job.skip for job in make_plan(["in/a.png"], "out").jobs] == [False]

    def test_is_skipped_so_that_a_run_can_be_resumed(self) -> None:
        touch("in/a.png", "in/b.png", "out/a.png")
        made = make_plan(["in"], "out", recursive=True, existing="skip")
        assert [job.skip for job in made.jobs] == [True, False]

    def test_is_an_error_that_counts(self) -> None:
        touch("in/a.png", "in/b.png", "out/a.png", "out/b.png")
        error = refusal("in", "out", recursive=True, existing="error")
        assert str(error) == "out/a.png exists, and 1 more"
        assert error.parameter == "existing"

    @pytest.mark.parametrize("existing", EXISTING)
    def test_a_folder_is_never_replaced(self, existing: str) -> None:
        touch("in/a.png", "out/a.png/keep.txt")
        assert "out/a.png is a folder" in str(
            refusal("in", "out", recursive=True, existing=existing)
        )
