"""The documents against the program: commands run, excerpts are what it prints, names exist."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from command_line import ENVIRONMENT
from cudafilter.cli import app
from cudafilter.engines.cuda.variants import LADDER
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.errors import LimitError
from cudafilter.operations.borders import Border
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.choices import BORDERS
from cudafilter.operations.correlation import Correlation
from cudafilter.operations.make import make

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cudafilter"
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
"""What a user reads."""
DOCUMENTS = [
    *PAGES, "cuda_src/README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md",
    "samples/README.md",
]  # fmt: skip
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
README_LINES = 200
"""Most lines of the README; what is longer goes into a page."""


def blocks(language: str, document: str) -> list[str]:
    """The code blocks of *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXTS[document], re.DOTALL | re.MULTILINE)


COMMANDS = [
    line
    for page in DOCUMENTS
    for block in blocks("sh", page)
    for line in block.splitlines()
    if line.startswith("cudafilter ")
]
SPOKEN = sorted(
    span
    for text in TEXTS.values()
    for span in set(re.findall(r"`(cudafilter [^`\n]+)`", text))
    if "FILTER" not in span  # a place for a name
)
"""Commands within sentences."""
FILTERING = [
    line
    for line in COMMANDS
    if line.split()[1] in (*CATALOGUE, "chain") and "--explain" not in line
]
CUDA_OPTIONS = {"--gpu", "--variant", "cuda"}

NO_GPU = {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}
"""What the documents show is the command line; the GPU has its own tests."""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with the files that the documents' commands name, and ``cudafilter`` in bin/."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for name in ("photo.jpg", "in.png", "a.png", "b.png", "photos/a.jpg", "photos/trip/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    for name in ("cat.gif", "stack.tif"):
        frames = [Image.fromarray(np.roll(pixels, n, axis=0)) for n in range(6)]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    Image.fromarray(pixels[..., 0]).save(tmp_path / "mask.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "weights.csv").write_text("1,2,1\n2,4,2\n1,2,1\n")
    program = tmp_path / "bin" / "cudafilter"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cudafilter "$@"\n')
    program.chmod(0o755)
    return tmp_path


def arguments_of(line: str) -> list[str]:
    """What the shell gives to cudafilter: *line* less its name, redirections and comment."""
    words = shlex.split(re.sub(r"\s[<>]\s*\S+", "", line), comments=True)
    return words[1:]


def test_the_readme_is_short_and_shows_every_command() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= README_LINES
    shown = {
        line.split()[1] for block in blocks("sh", "README.md") for line in block.splitlines()
        if line.startswith("cudafilter ")
    }  # fmt: skip
    assert {"blur", "sobel", "sharpen", "kernel", "info", "bench", "compile"} <= shown


@pytest.mark.parametrize("line", dict.fromkeys([*COMMANDS, *SPOKEN]))
def test_commands_of_the_documents_parse(line: str) -> None:
    name, *arguments = arguments_of(line)
    command = app.get_command(click.Context(app), name)
    assert command is not None, f"there is no command {name}"
    command.make_context(name, arguments)  # raises click.UsageError for what does not parse


@pytest.mark.parametrize("line", FILTERING)
def test_commands_of_the_documents_run(line: str, example: Path) -> None:
    if CUDA_OPTIONS & set(arguments_of(line)):
        line += " --dry-run"
    before = set(example.rglob("*"))
    done = subprocess.run(
        ["sh", "-c", line],
        env={**NO_GPU, "PATH": f"{example / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        cwd=example, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if "--dry-run" in line:
        assert set(example.rglob("*")) == before
    elif "--in-place" not in line:
        assert set(example.rglob("*")) > before
    if "--check" in line:
        assert "agree" in done.stderr


def test_python_of_the_documents_runs(example: Path) -> None:
    (code,) = (block for document in DOCUMENTS for block in blocks("python", document))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=NO_GPU, cwd=example, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("agrees with the reference: proven: ")


def make_docs(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script that writes the generated parts, of the checkout in *folder*."""
    script = [sys.executable, str(folder / "docs" / "make_docs.py"), *arguments]
    return subprocess.run(script, env=NO_GPU, capture_output=True, text=True, check=False)


def test_generated_parts_are_what_the_program_and_the_figures_say() -> None:
    done = make_docs(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_a_figure_changed_by_hand_is_found_and_made_right_again(tmp_path: Path) -> None:
    for name in ("README.md", "docs", "cuda_src"):
        copy = ["cp", "-r", str(ROOT / name), str(tmp_path / name)]
        subprocess.run(copy, check=True)
    page = tmp_path / "docs" / "ladder.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("| 4.91 |", "| 4.19 |"), encoding="utf-8")
    done = make_docs(tmp_path, "--check")
    assert done.returncode == 1
    assert "docs/ladder.md is out of date" in done.stderr
    assert make_docs(tmp_path).returncode == 0
    assert page.read_text(encoding="utf-8") == right


GENERATED = re.compile(r"<!-- made by docs/make_docs\.py: .*?<!-- end -->", re.DOTALL)
FIGURE = re.compile(r"^\|.*\|\s*\**\d[\d.,]*\**\s*\|", re.MULTILINE)
"""A row with a number in a cell after its first, which may be the name of a row, as exit code 2."""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_table_of_figures_is_written_by_hand(document: str) -> None:
    assert FIGURE.search("| a | 1.25 |")
    assert FIGURE.search("| a | - | 1,024 |")
    assert not FIGURE.search(GENERATED.sub("", TEXTS[document]))


@pytest.mark.parametrize("name", [*CATALOGUE, *BORDERS])
def test_a_table_of_the_documents_has_every_filter_and_border(name: str) -> None:
    page = "README.md" if name in CATALOGUE else "docs/options.md"
    assert re.search(rf"^\| `{name}`", TEXTS[page], re.MULTILINE)


def test_the_picture_has_every_filter() -> None:
    panels = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))["PANELS"]
    assert [panel.split(" ")[0] for panel in panels] == ["", *CATALOGUE]


@pytest.mark.parametrize("variant", LADDER)
def test_the_ladder_has_every_variant_with_its_file(variant: str) -> None:
    row = rf"^\| `{variant}` \| \[`\w+\.cu`\]"
    assert re.search(row, TEXTS["docs/ladder.md"], re.MULTILINE)


def box(side: int) -> Correlation:
    """A box of *side* pixels."""
    return make("box", radius=side // 2)


def blur(side: int) -> Correlation:
    """A Gaussian, of rank 1, of *side* taps."""
    return make("blur", sigma=side / 6, radius=side // 2)


def dense(side: int) -> Correlation:
    """A kernel of *side* taps each way that is no sum of a few of rank 1."""
    return make("kernel", weights=np.random.default_rng(0).random((side, side)))


WIDE = "`wide` for other kernels of rank 1 from 65 taps (from 49 in RGB and CMYK, from 33 in RGBA)"


@pytest.mark.parametrize(
    ("told", "filter_of", "side", "other", "dtype", "channels", "alpha"),
    [
        ("`box` for boxes from 9 taps a side", box, 9, 7, "uint8", 1, False),
        ("A window's sum must be below 2^32, so on 16 bits a window of 255x255 fits and one of"
         " 257x257 does not", box, 255, 257, "uint16", 1, False),
        ("`tensor` on 8 bits for kernels of rank 1 from 9x9", blur, 9, 7, "uint8", 1, False),
        (WIDE, blur, 65, 63, "float32", 1, False),
        (WIDE, blur, 49, 47, "uint16", 3, False),
        (WIDE, blur, 33, 31, "uint8", 4, True),
        ("`blocked` for dense kernels from 22x22", dense, 22, 21, "uint16", 1, False),
    ],
)  # fmt: skip
def test_the_ladder_tells_what_auto_takes(
    told: str, filter_of: Callable[[int], Correlation], side: int, other: int,
    dtype: str, channels: int, alpha: bool,
) -> None:  # fmt: skip
    assert told in " ".join(TEXTS["docs/ladder.md"].split())
    at, past = (
        prepare(filter_of(n), channels, dtype, Border(), alpha, "auto").variant
        for n in (side, other)
    )
    assert at == (told.split("`")[1] if "`" in told else "box")
    assert past != at


def test_the_ladder_quotes_the_limit_of_constant_memory() -> None:
    weights = np.random.default_rng(0).random((129, 129))
    with pytest.raises(LimitError) as limit:
        prepare(make("kernel", weights=weights), 1, "uint8", Border(), False, "tiled")
    assert f"error: {limit.value}\nhint: {limit.value.hint}\n" in TEXTS["docs/ladder.md"]
    fits = make("kernel", weights=weights[:128, :128])
    assert prepare(fits, 1, "uint8", Border(), False, "tiled").variant == "tiled"


RECIPES = ("Adding a filter", "Adding a kernel variant", "Adding a format")


def recipe(title: str) -> str:
    """The part *title* of CONTRIBUTING."""
    return TEXTS["CONTRIBUTING.md"].split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("title", RECIPES)
def test_what_is_added_takes_at_most_four_steps(title: str) -> None:
    numbers = re.findall(r"^(\d+)\. ", recipe(title), re.MULTILINE)
    assert numbers == ["1", "2", "3", "4"][: len(numbers)]
    assert len(numbers) > 1


@pytest.mark.parametrize("title", RECIPES)
def test_what_is_added_goes_where_the_steps_say(title: str) -> None:
    said = " ".join(recipe(title).split())
    for path in re.findall(r"`((?:\w+/)+\w+\.\w+)`", said):
        assert "NAME" in path or (ROOT / path).is_file(), path
    for name, path in re.findall(r"`(\w+)` (?:of|in) `((?:\w+/)+\w+\.py)`", said):
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(?:def )?{name}\b", source, re.MULTILINE), f"{name} of {path}"


NAMES = {
    "opencv-python-headless": "opencv",
    "nvidia-nvjpeg": "nvjpeg",
    "nvidia-cuda-nvrtc": "nvrtc",
}
"""Packages that the table of dependencies calls by another name."""


def test_the_architecture_lists_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = chain(project["dependencies"], *project["optional-dependencies"].values())
    packages = {re.split(r"[^\w-]", requirement)[0] for requirement in listed}
    packages -= {"cudafilter", "nvidia-nvjpeg-cu12"}  # itself; nvJPEG for an older driver
    table = TEXTS["docs/architecture.md"].split("\n## Dependencies\n")[1].lower()
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.split(r", | \(", row)}
    assert {NAMES.get(package, package) for package in packages} <= named


def floors() -> dict[str, int]:
    """Module -> floor, as the tree of modules in docs/architecture.md has them."""
    (tree,) = (b for b in blocks("text", "docs/architecture.md") if b.startswith("cudafilter/\n"))
    found = {}
    floor = 0
    for line in tree.splitlines()[1:]:
        if title := re.match(r"  floor (\d+):", line):
            floor = int(title[1])
        elif line.strip():
            found[line.split()[0]] = floor
    return found


FLOORS = floors()

ARROWS_UP: tuple[tuple[str, str, str], ...] = ()
"""(module, what it imports from a floor above, why) for each import that may go up."""


MOST_IN_ROOT = 8
"""Modules of the root package: its API's names, the process, and what is called by its name."""


def test_the_root_package_is_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_IN_ROOT


LONGEST = 400
"""Lines of a module."""


def test_no_module_is_long() -> None:
    lines = {path: len(path.read_bytes().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.name: count for path, count in lines.items() if count > LONGEST} == {}


def test_the_architecture_lists_every_module_and_no_other() -> None:
    assert set(FLOORS) == {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("module", FLOORS)
def test_imports_never_go_up_a_floor(module: str) -> None:
    up = {imported for imported in imports_of(module) if FLOORS[imported] > FLOORS[module]}
    assert up == {imported for importer, imported, _ in ARROWS_UP if importer == module}


def test_imports_make_no_circle() -> None:
    try:
        TopologicalSorter({module: imports_of(module) for module in FLOORS}).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_imports_for_type_checking_count() -> None:
    assert "engines/cuda/variants/task.py" in imports_of("engines/cuda/variants/ladder.py")
    guarded = "if TYPE_CHECKING:\n    from cudafilter.api import apply\n"
    assert imports_in(f"import cudafilter.jobs.plan\n{guarded}") == {"api.py", "jobs/plan.py"}
    both = {"__init__.py", "formats/__init__.py"}
    assert imports_in("from cudafilter import __version__, formats") == both


@cache
def imports_of(module: str) -> frozenset[str]:
    """The modules of cudafilter that *module* imports, wherever in it, for type checking too."""
    return frozenset(imports_in((PACKAGE / module).read_text(encoding="utf-8")))


def imports_in(source: str) -> set[str]:
    """The modules of cudafilter that *source* imports."""
    found: set[str | None] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {path_of(name) for name in names if name.startswith("cudafilter")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cudafilter"):
            for alias in node.names:
                found.add(path_of(f"{node.module}.{alias.name}") or path_of(f"{node.module}"))
    return {path for path in found if path}


def path_of(name: str) -> str | None:
    """The file of the module *name*, below the package; None where it is no module."""
    below = "/".join(name.split(".")[1:])
    for path in (f"{below}.py", f"{below}/__init__.py".lstrip("/")):
        if (PACKAGE / path).is_file():
            return path
    return None


def anchors(document: Path) -> set[str]:
    """The names by which a code host lets links lead to the headings of *document*."""
    text = without_blocks(document.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def without_blocks(text: str) -> str:
    """*text* less its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(TEXTS[document])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        led = (ROOT / document).parent / path if path else ROOT / document
        assert led.exists(), target
        assert led.resolve().is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(led), target


def test_the_readme_leads_to_every_document() -> None:
    linked = set(re.findall(r"\]\(([\w/.-]+\.md)\)", TEXTS["README.md"]))
    assert linked == set(DOCUMENTS) - {"README.md"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_and_files_in_code_exist(document: str) -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    code = [*blocks("sh", document), *re.findall(r"`([^`\n]+)`", TEXTS[document])]
    for line in "\n".join(code).splitlines():
        if found := re.match(r"make ([a-z]+)", line):
            assert re.search(rf"^{found[1]}:.*##", rules, re.MULTILINE), line
        for script in re.findall(r"\b((?:docs|benchmarks|tools|samples|tests)/\w+\.\w+)", line):
            assert (ROOT / script).is_file(), line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_of_prose_stay_readable(document: str) -> None:
    prose = without_blocks(GENERATED.sub("", TEXTS[document])).splitlines()
    assert [line for line in prose if len(line) > 120 and not line.startswith("|")] == []


def names_of(test_file: str) -> set[str]:
    """The tests of *test_file* and their classes: ``test_x``, ``TestY``, ``TestY::test_x``."""
    found = set()
    for node in ast.parse((ROOT / test_file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            inner = [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
            found |= {node.name, *(f"{node.name}::{name}" for name in inner)}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return {name for name in found if re.match(r"(Test\w+::)?test_|Test\w+$", name)}


PROMISES = [
    line
    for line in GENERATED.sub("", TEXTS["docs/promises.md"]).splitlines()
    if re.match(r"\| (?!promise \|)", line)
]


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_has_tests_that_exist(promise: str) -> None:
    tests = re.findall(r"`(tests/\w+\.py)::([\w:]+)`", promise)
    assert tests
    for test_file, name in tests:
        assert name in names_of(test_file), f"{test_file}::{name}"


def test_pictures_stay_small() -> None:
    pictures = [path for path in (ROOT / "docs").iterdir() if path.suffix not in (".py", ".md")]
    assert sum(path.stat().st_size for path in pictures if path.is_file()) < 150_000
