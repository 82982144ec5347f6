"""Gathers the pages of the documents' site in a folder: python docs/make_site.py FOLDER.

FOLDER/pages gets the documents of this repository at their places, and a page for each filter of
the catalogue, with pictures that the real command line makes. FOLDER/mkdocs.yml gets the list of
the pages; the rest of the configuration is mkdocs.yml of the repository. `make docs` does both this
and the site. With ``--no-pictures`` the filters' pages have none.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from make_docs import FIGURES, ROOT, option_rows
from make_pictures import CHART, PANELS, PHOTO, pair

from cudafilter.operations.catalogue import CATALOGUE, grouped
from cudafilter.operations.parameter import FilterSpec

CONTENTS: dict[str, tuple[str, ...]] = {
    "Start": ("README.md", "docs/quick-start.md", "docs/install.md", "docs/troubleshooting.md"),
    "Use": (
        "docs/options.md", "docs/images.md", "docs/many-images.md", "docs/stores.md",
        "docs/cluster.md", "docs/report.md", "docs/chains.md", "docs/python.md",
        "docs/elsewhere.md", "docs/limits.md",
    ),
    "How it works": (
        "docs/check.md", "docs/promises.md", "docs/engines.md", "docs/speed.md", "docs/ladder.md",
        "cuda_src/README.md", "docs/architecture.md",
    ),
    "Project": ("CONTRIBUTING.md", "SECURITY.md", "samples/README.md", "CHANGELOG.md"),
}  # fmt: skip
"""The chapters with their pages; that of the filters comes after the first one."""
TOOLS = {
    "imagemagick": ("ImageMagick", "sh"),
    "opencv": ("OpenCV", "python"),
    "skimage": ("scikit-image and SciPy", "python"),
    "gmic": ("G'MIC", "sh"),
}
"""The tools of filters.toml: what each is called, and the language of its code."""
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def pages() -> list[str]:
    """Every document of the site that lies in the repository."""
    return [page for chapter in CONTENTS.values() for page in chapter]


@cache
def elsewhere() -> dict[str, dict[str, Any]]:
    """What filters.toml tells, filter by filter."""
    return tomllib.loads((ROOT / "docs" / "filters.toml").read_text(encoding="utf-8"))


@cache
def figures() -> dict[str, dict[str, Any]]:
    """How far each tool is from each filter: filter -> tool's title -> figure, None without one."""
    told = json.loads((FIGURES / "elsewhere.json").read_text(encoding="utf-8"))
    return {
        row[0].strip("`"): dict(zip(told["columns"][1:], row[1:], strict=True))
        for row in told["rows"]
    }


def filter_page(spec: FilterSpec) -> str:
    """The page of a filter. What filters.toml does not tell is left out."""
    more = elsewhere().get(spec.name, {})
    parts = [f"# {spec.name}", spec.summary]
    if picture := _panel(spec.name):
        parts += [
            f"![A photograph and a chart, before and after {spec.name}]({spec.name}.jpg)",
            f"Left as it is, right after `cudafilter {picture}`.",
        ]
    parts += [_options_as_code(spec.description), f"```sh\n{spec.example}\n```"]
    if spec.parameters:
        parts += ["## Parameters", "\n".join(_parameters(spec))]
    parts.append("[Options](../options.md) tells those that all filters share.")
    if more:
        parts += ["## Mathematics", f"```text\n{more['mathematics'].strip()}\n```", more["source"]]
        parts += ["## The same elsewhere", *_elsewhere(spec.name, more)]
    return "\n\n".join(parts) + "\n"


def _panel(name: str) -> str:
    """What follows ``cudafilter`` for the picture of the filter *name*; empty without one."""
    return next((panel for panel in PANELS if panel.split(" ")[0] == name), "")


def _options_as_code(text: str) -> str:
    """*text* of the help with its options set as code."""
    return re.sub(r"(?<![\w`])--[a-z-]*[a-z]", r"`\g<0>`", text)


def _parameters(spec: FilterSpec) -> Iterator[str]:
    yield "| option | what it is | range | default |"
    yield "|---|---|---|---|"
    for row in option_rows(spec):
        yield f"| {' | '.join(row)} |"


def _elsewhere(name: str, more: dict[str, Any]) -> Iterator[str]:
    options = f" {more['options']}" if more["options"] else ""
    kind = "a gray image" if more.get("gray") else "an image"
    yield f"What comes nearest to `cudafilter {name}{options}`, on {kind} of 8 bits:"
    for tool, (title, language) in TOOLS.items():
        if code := more.get(tool):
            yield f"**{title}**{_figure(name, title)}"
            yield f"```{language}\n{code.strip()}\n```"
    none = [title for tool, (title, _) in TOOLS.items() if tool not in more]
    if none:
        yield f"Not compared: {' and '.join(none)}."
    if note := more.get("note"):
        yield note
    yield "[Coming from other tools](../elsewhere.md) tells how these were compared."


def _figure(name: str, title: str) -> str:
    """How far a tool is from the filter *name*, in words."""
    row = figures().get(name, {})
    figure = next((row[column] for column in row if title.startswith(column)), None)
    if figure is None:
        return ""
    if figure == 0:
        return ": the same in every sample."
    largest, _, mean = str(figure).partition(" ")
    average = f", by {mean.strip('()')} on average" if mean else ""
    return f": differs by {largest} of 255 at most{average}."


def as_page(document: str, text: str, folder: Path) -> str:
    """A document as a page of the site. Files that it links to are copied; folders are no links.

    Pictures are links too.
    """

    def link(found: re.Match[str]) -> str:
        path = found["path"]
        if path.startswith(("https:", "http:", "mailto:")):
            return found[0]
        target = (ROOT / document).parent / path
        if target.is_dir():
            return found["text"]
        if target.suffix != ".md" and target.is_file():
            _copy(target, folder)
        return found[0]

    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def _copy(file: Path, folder: Path) -> None:
    to = folder / file.resolve().relative_to(ROOT)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


def with_links_to_filters(text: str) -> str:
    """*text* of docs/filters.md, each filter at the begin of a row linked to its page."""
    return re.sub(r"^\| `(\w+)` \|", r"| [`\1`](filters/\1.md) |", text, flags=re.MULTILINE)


def navigation() -> list[Any]:
    """The contents as MkDocs takes them."""
    chapters: list[Any] = [
        {title: [{_title(page): page} for page in listed]} for title, listed in CONTENTS.items()
    ]
    filters: list[Any] = ["docs/filters.md"]
    for group, specs in grouped():
        listed = [f"docs/filters/{spec.name}.md" for spec in specs]
        filters.append({group[0].upper() + group[1:]: listed})
    return [chapters[0], {"Filters": filters}, *chapters[1:]]


def _title(page: str) -> str:
    """The first heading of a document, as plain text."""
    first = (ROOT / page).read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("# ").replace("`", "")


def write(folder: Path, pictures: bool) -> None:
    """Write all pages and the configuration below *folder*, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    into = folder / "pages"
    for document in [*pages(), "docs/filters.md"]:
        text = (ROOT / document).read_text(encoding="utf-8")
        if document == "docs/filters.md":
            text = with_links_to_filters(text)
        path = into / document
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_page(document, text, into), encoding="utf-8")
    for spec in CATALOGUE.values():
        path = into / "docs" / "filters" / f"{spec.name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(filter_page(spec), encoding="utf-8")
        if pictures and (arguments := _panel(spec.name)):
            pair(arguments, PHOTO, CHART).save(path.with_suffix(".jpg"), quality=88, optimize=True)
    configuration = {
        "INHERIT": str(ROOT / "mkdocs.yml"),
        "docs_dir": "pages",
        "site_dir": "site",
        "nav": navigation(),
    }
    # JSON is YAML too.
    text = json.dumps(configuration, indent=1, ensure_ascii=False)
    (folder / "mkdocs.yml").write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Write the pages into the folder that is named."""
    folders = [argument for argument in arguments if not argument.startswith("-")]
    if len(folders) != 1:
        print("usage: python docs/make_site.py FOLDER [--no-pictures]", file=sys.stderr)
        return 2
    write(Path(folders[0]), "--no-pictures" not in arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
