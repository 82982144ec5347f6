"""``cudafilter chain``: steps from words and from recipes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import cli, picture
from cudafilter.cli.steps import parse_steps, recipe_steps
from cudafilter.operations import reference
from cudafilter.operations.borders import Border
from cudafilter.operations.chain import Chain, Link
from cudafilter.operations.make import make

STEPS = "median --radius 1 | unsharp --sigma 1.5 --amount 0.8"

RECIPES = """\
# Two looks.
[film]
about = "soft, then crisp"
steps = [
    "median --radius 1",
    "unsharp --sigma {sigma}",  # the last one
]

[film.parameters]
sigma = 1.5

[soft]
steps = "blur --sigma 2 | box"
"""


@pytest.fixture(autouse=True)
def folder(here: Path) -> None:
    Path("looks.toml").write_text(RECIPES)


def test_steps_run_one_after_the_other() -> None:
    picture("in.png")
    result = cli("chain", STEPS, "in.png", "out.png", "--engine", "cpu", "--check")
    assert result.exit_code == 0, result.stderr
    assert "agrees with the reference" in result.stderr
    links = Link(make("median", radius=1)), Link(make("unsharp", sigma=1.5, amount=0.8))
    pixels = np.asarray(Image.open("in.png"))
    expected = reference.apply(pixels, Chain(links))
    assert np.abs(np.asarray(Image.open("out.png")).astype(int) - expected).max() <= 1


def test_a_step_may_have_a_border_of_its_own() -> None:
    picture("in.png")
    result = cli(
        "chain", "box --border constant --border-value 1 | box --radius 1", "in.png", "out.png",
        "--border", "wrap", "--engine", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    pixels = np.asarray(Image.open("in.png"))
    links = Link(make("box"), Border("constant", 1.0)), Link(make("box", radius=1))
    expected = reference.apply(pixels, Chain(links), Border("wrap"))
    assert np.abs(np.asarray(Image.open("out.png")).astype(int) - expected).max() <= 1


def test_the_report_tells_the_steps() -> None:
    picture("in.png")
    cli("chain", STEPS, "in.png", "out.png", "--engine", "cpu", "--report", "r.jsonl")
    line = json.loads(Path("r.jsonl").read_text())
    assert line["filter"] == "median then unsharp"
    steps = ["median --radius 1", "unsharp --sigma 1.5 --amount 0.8"]
    assert line["parameters"] == {"steps": steps}


def test_a_folder_a_stream_and_a_change_in_place() -> None:
    Path("in").mkdir()
    picture("in/a.png")
    picture("in/b.png")
    assert cli("chain", "median | box", "in", "out", "-r", "--engine", "cpu").exit_code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]
    assert cli("chain", "median | box", "in/a.png", "--in-place", "--engine", "cpu").exit_code == 0
    assert Path("in/a.png").read_bytes() == Path("out/a.png").read_bytes()


@pytest.mark.parametrize(
    ("steps", "told", "hint"),
    [
        ("medain", "step 1: no filter 'medain'", "did you mean median"),
        ("box | gaussian", "step 2: no filter 'gaussian'", "did you mean blur?"),
        ("box | blur --sigma -1", "step 2 (blur): Invalid value for '--sigma'", ""),
        ("box | blur --quality 3", "step 2 (blur): No such option", "follow the steps"),
        ("box --gray", "step 1 (box): No such option '--gray'.\n", "follow the steps"),
        ("blur --sgma 2", "No such option '--sgma'. Did you mean", "cudafilter blur --help"),
        ("box |", "step 2 is empty", ""),
        ("| box", "step 1 is empty", ""),
        ("", "step 1 is empty", ""),
        ("box 'x", "a quotation mark is never closed", ""),
        ("box | erode --shape circle", "step 2 (erode): --shape", "square, disk, cross"),
        ("kernel", "step 1 (kernel): Missing option", ""),
        ("box | chain", "step 2: no filter 'chain'", "cudafilter filters"),
        ("in.png", "step 1: no filter 'in.png'", "the first word is the chain"),
        ("looks.toml", "step 1: no filter 'looks.toml'", "@looks.toml"),
        ("box in.png", "step 1 (box): Got unexpected extra argument", "'|' stands between"),
        ("@none.toml", "cannot read the recipes none.toml: No such file", ""),
        ("@looks.toml", "looks.toml holds film, soft", "--recipe"),
    ],
)
def test_what_is_wrong_names_its_step(steps: str, told: str, hint: str) -> None:
    picture("in.png")
    result = cli("chain", steps, "in.png", "out.png")
    assert result.exit_code == 2
    assert told in result.stderr
    assert hint in result.stderr
    assert not Path("out.png").exists()


def test_quoted_words_and_weights_are_kept() -> None:
    (step,) = parse_steps("kernel --weights '0 -1 0; -1 5 -1; 0 -1 0'")
    assert step.parameters["weights"] == "0 -1 0; -1 5 -1; 0 -1 0"
    assert parse_steps("box --radius 1|box")[0].text == "box --radius 1"


def test_recipes() -> None:
    first, second = recipe_steps("looks.toml", "film", {})
    assert (first.name, first.parameters) == ("median", {"radius": 1})
    assert second.parameters["sigma"] == 1.5
    assert recipe_steps("looks.toml", "film", {"sigma": "3"})[1].parameters["sigma"] == 3
    assert [step.name for step in recipe_steps("looks.toml", "soft", {})] == ["blur", "box"]


def test_of_two_steps_alike_the_wrong_one_is_named() -> None:
    Path("looks.toml").write_text('[two]\nsteps = [\n  "box", # "box"\n  "box",\n  "bax",\n]\n')
    result = cli("chain", "@looks.toml", "in.png", "out.png")
    assert "looks.toml, line 5: step 3: no filter 'bax'" in result.stderr
    Path("looks.toml").write_text('[two]\nsteps = [\n  "median --radius x",\n  "median"]\n')
    result = cli("chain", "@looks.toml", "in.png", "out.png")
    assert "looks.toml, line 3: step 1 (median): Invalid value" in result.stderr
    Path("looks.toml").write_text('[two]\nsteps = [\n  "box",\n  "box | kernel -w \'1 |\'"]\n')
    result = cli("chain", "@looks.toml", "in.png", "out.png")
    assert "looks.toml, line 4: step 3 (kernel):" in result.stderr


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_in_a_text_of_several_lines_the_line_of_the_step_is_told(quotes: str) -> None:
    text = f"[two]\nsteps = {quotes}\nblur --sigma 2 |\n  median\n  | box --radius x\n{quotes}\n"
    Path("looks.toml").write_text(text)
    result = cli("chain", "@looks.toml", "in.png", "out.png")
    assert "looks.toml, line 5: step 3 (box): Invalid value" in result.stderr
    Path("looks.toml").write_text(text.replace("--radius x", "--radius {r}"))
    result = cli("chain", "@looks.toml", "in.png", "out.png")
    assert "looks.toml, line 5: no parameter 'r' is given" in result.stderr
    assert "hint: a line r = VALUE under [two.parameters]" in result.stderr


@pytest.mark.parametrize(
    ("recipes", "told"),
    [
        ("film = 3", "line 1: the recipe film is no table"),
        ("[film]\nsteps = 3", "line 1: the recipe film needs steps"),
        (
            "[film]\nsteps = 'box'\nparameters = [1]",
            "the parameters of the recipe film are no table",
        ),
    ],
)
def test_a_recipe_of_another_kind_is_told(recipes: str, told: str) -> None:
    Path("looks.toml").write_text(recipes)
    result = cli("chain", "@looks.toml", "in.png", "out.png")
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_recipe_runs() -> None:
    picture("in.png")
    arguments = "--recipe", "film", "--set", "sigma=2", "--engine", "cpu", "--check"
    result = cli("chain", "@looks.toml", "in.png", "out.png", *arguments)
    assert result.exit_code == 0, result.stderr
    assert Image.open("out.png").size == Image.open("in.png").size


@pytest.mark.parametrize(
    ("change", "arguments", "told"),
    [
        (("--radius 1", "--radius x"), [], "looks.toml, line 5: step 1 (median): Invalid value"),
        (("unsharp", "unsharpen"), [], "looks.toml, line 6: step 2: no filter 'unsharpen'"),
        (("{sigma}", "{amount}"), [], "looks.toml, line 6: no parameter 'amount' is given"),
        (("steps = [", "stepps = ["), [], "line 2: the recipe film has 'stepps'; it takes steps"),
        (("[film]", "[film"), [], "looks.toml is no TOML"),
        (("", ""), ["--set", "radius=2"], "the recipe film has no parameter 'radius'"),
        (("", ""), ["--set", "radius"], "--set takes NAME=VALUE"),
        (("", ""), ["--recipe", "none"], "looks.toml holds no recipe 'none', but film, soft"),
    ],
)
def test_a_wrong_line_is_named(change: tuple[str, str], arguments: list[str], told: str) -> None:
    Path("looks.toml").write_text(RECIPES.replace(*change, 1) if change[0] else RECIPES)
    picture("in.png")
    result = cli("chain", "@looks.toml", "in.png", "out.png", "--recipe", "film", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize("border", [[], ["--border", "constant"]])
def test_a_border_value_of_a_step_is_not_dropped(border: list[str]) -> None:
    picture("in.png")
    result = cli("chain", "blur | box --border-value 1", "in.png", "out.png", *border)
    assert result.exit_code == 2
    assert "step 2 (box): --border-value: needs --border constant in the same step" in result.stderr


def test_recipe_options_are_for_recipes() -> None:
    result = cli("chain", "box", "in.png", "out.png", "--recipe", "film")
    assert result.exit_code == 2
    assert "--recipe is for recipes" in result.stderr


def test_it_explains_itself_without_an_image() -> None:
    result = cli("chain", "median --radius 1 | box --radius 4", "--explain")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["1", "median", "--radius", "1", *"1111", "9"]
    assert lines[2].split() == ["2", "box", "--radius", "4", *"4444", "18"]
    assert lines[3].split() == ["together", *"5555", "27"]


def test_it_tells_which_steps_are_one_launch() -> None:
    steps = "blur --sigma 2 | sharpen | sobel | levels --gamma 2 | median"
    told = cli("chain", steps, "--explain").stdout
    assert "\nIn one launch on a GPU, without alpha: sharpen, sobel, levels.\n" in told
    assert "In one launch" not in cli("chain", "median | erode", "--explain").stdout


def test_an_image_is_missing() -> None:
    result = cli("chain", "box")
    assert result.exit_code == 2
    assert "Missing argument 'SRC... DEST'" in result.stderr
