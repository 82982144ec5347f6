"""The documents against the program: commands run, excerpts are what it prints, names exist."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from cudafilter.borders import Border
from cudafilter.catalogue import BORDERS, CATALOGUE
from cudafilter.cli import app
from cudafilter.engines.cuda.variants import LADDER
from cudafilter.engines.cuda.variants.ladder import prepare
from cudafilter.errors import LimitError
from cudafilter.filter import make

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
DOCUMENTS = ["README.md", *PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "samples/README.md"]
MANUAL = README + "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
"""What a user reads."""


def blocks(language: str, text: str = MANUAL) -> list[str]:
    """The code blocks of *language*."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


COMMANDS = [
    line for block in blocks("sh") for line in block.splitlines() if line.startswith("cudafilter ")
]
FILTERING = [line for line in COMMANDS if line.split()[1] in CATALOGUE]
CUDA_OPTIONS = {"--gpu", "--variant", "cuda"}

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "CUDA_VISIBLE_DEVICES": "",  # what is shown is the command line; the GPU has its own tests
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the files that the README's commands name, and ``cudafilter`` in bin/."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for name in ("photo.jpg", "in.png", "a.png", "b.png", "photos/a.jpg", "photos/trip/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
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


def test_the_readme_is_read_in_three_minutes_and_names_every_page() -> None:
    assert len(README.splitlines()) <= 200
    for page in PAGES:
        assert f"]({page})" in README, page


def test_the_readme_shows_every_command() -> None:
    shown = {line.split()[1] for line in COMMANDS}
    assert {"blur", "sobel", "sharpen", "kernel", "info", "bench"} <= shown


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_readme_parse(line: str) -> None:
    name, *arguments = arguments_of(line)
    command = app.get_command(click.Context(app), name)
    assert command is not None, f"there is no command {name}"
    command.make_context(name, arguments)  # raises click.UsageError for what does not parse


@pytest.mark.parametrize("line", FILTERING)
def test_commands_of_the_readme_run(line: str, here: Path) -> None:
    if CUDA_OPTIONS & set(arguments_of(line)):
        line += " --dry-run"
    before = set(here.rglob("*"))
    done = subprocess.run(
        ["sh", "-c", line],
        env={**ENVIRONMENT, "PATH": f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        cwd=here, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if "--dry-run" in line:
        assert set(here.rglob("*")) == before
    elif "--in-place" not in line:
        assert set(here.rglob("*")) > before
    if "--check" in line:
        assert "agree" in done.stderr


def test_python_of_the_readme_runs(here: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT, cwd=here, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("agrees with the reference: largest")


def test_generated_parts_are_what_the_program_says() -> None:
    script = [sys.executable, str(ROOT / "docs" / "make_docs.py"), "--check"]
    done = subprocess.run(script, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*CATALOGUE, *BORDERS])
def test_a_table_of_the_readme_has_every_filter_and_border(name: str) -> None:
    assert re.search(rf"^\| `{name}`", MANUAL, re.MULTILINE)


@pytest.mark.parametrize("variant", LADDER)
def test_the_ladder_of_the_readme_has_every_variant_with_its_file(variant: str) -> None:
    assert re.search(rf"^\| `{variant}` \| \[`\w+\.cu`\]", MANUAL, re.MULTILINE)


def test_the_readme_quotes_the_limit_of_constant_memory() -> None:
    weights = np.random.default_rng(0).random((129, 129))
    with pytest.raises(LimitError) as limit:
        prepare(make("kernel", weights=weights), 1, "uint8", Border(), False, "tiled")
    assert f"error: {limit.value}\nhint: {limit.value.hint}\n" in MANUAL
    fits = make("kernel", weights=weights[:128, :128])
    assert prepare(fits, 1, "uint8", Border(), False, "tiled").variant == "tiled"


def floors() -> dict[str, int]:
    """Module -> floor, as the tree of modules in docs/architecture.md has them."""
    (tree,) = (block for block in blocks("text") if block.startswith("cudafilter/\n"))
    found = {}
    floor = 0
    for line in tree.splitlines()[1:]:
        if title := re.match(r"  floor (\d):", line):
            floor = int(title[1])
        else:
            found[line.split()[0]] = floor
    return found


FLOORS = floors()


def test_the_architecture_lists_every_module_and_no_other() -> None:
    package = ROOT / "cudafilter"
    assert set(FLOORS) == {path.relative_to(package).as_posix() for path in package.rglob("*.py")}


@pytest.mark.parametrize("module", FLOORS)
def test_imports_never_go_up_a_floor(module: str) -> None:
    for imported in imports_of(ROOT / "cudafilter" / module):
        assert FLOORS[imported] <= FLOORS[module], f"{module} imports {imported}"


def test_imports_make_no_circle() -> None:
    imports = {name: imports_of(ROOT / "cudafilter" / name) - {name} for name in FLOORS}
    while leaves := [name for name, needed in imports.items() if not needed]:
        for leaf in leaves:
            del imports[leaf]
        for needed in imports.values():
            needed.difference_update(leaves)
    assert not imports, "these import each other"


def imports_of(module: Path) -> set[str]:
    """The modules of cudafilter that *module* imports, wherever in it, for its types too."""
    found: set[str] = set()

    def name_to_path(name: str) -> str | None:
        below = "/".join(name.split(".")[1:])
        for path in (f"{below}.py", f"{below}/__init__.py".lstrip("/")):
            if (ROOT / "cudafilter" / path).is_file():
                return path
        return None

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cudafilter"):
            for alias in node.names:
                path = name_to_path(f"{node.module}.{alias.name}") or name_to_path(f"{node.module}")
                # The package itself gives only its version, which no floor keeps from anyone.
                if path and (path != "__init__.py" or alias.name != "__version__"):
                    found.add(path)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(module.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (ROOT / document).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_and_files_in_code_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    code = [*blocks("sh", text), *re.findall(r"`([^`\n]+)`", text)]
    for line in "\n".join(code).splitlines():
        if found := re.match(r"make ([a-z]+)", line):
            assert re.search(rf"^{found[1]}:.*##", rules, re.MULTILINE), line
        for script in re.findall(r"\b((?:docs|benchmarks|tools|samples|tests)/\w+\.\w+)", line):
            assert (ROOT / script).is_file(), line


def test_pictures_stay_small() -> None:
    pictures = [p for p in (ROOT / "docs").iterdir() if p.suffix not in (".py", ".md")]
    assert sum(path.stat().st_size for path in pictures if path.is_file()) < 150_000
