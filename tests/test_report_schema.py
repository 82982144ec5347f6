"""Every line of a report is as docs/report.schema.json says, whatever became of the image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError
from PIL import Image

from command_line import cli, picture

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "report.schema.json").read_text("utf-8"))
VALID = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)


def animation() -> None:
    frames = [Image.fromarray(np.full((6, 8, 3), 40 * n, np.uint8)) for n in range(3)]
    frames[0].save("in.gif", save_all=True, append_images=frames[1:])


def float_without_a_number() -> None:
    Image.fromarray(np.full((6, 8), np.nan, np.float32)).save("in.tif")


def broken() -> None:
    Path("in.png").write_bytes(b"no image")


def folder() -> None:
    picture("in/a.png")
    Path("in/raw.cr2").write_bytes(b"II*\0")


def deep() -> None:
    Image.fromarray(np.zeros((6, 8), np.uint16)).save("in.png")


def png() -> None:
    picture("in.png")


@pytest.mark.parametrize(
    ("made", "command", "told"),
    [
        (png, "blur in.png out.png", {"status": "done", "colour": "RGB", "agreement": None}),
        (png, "blur in.png out.png --check", {"status": "done"}),
        (png, "blur in.png out.png --check=quick", {"status": "done"}),
        (png, "blur --gray in.png out.png", {"status": "done"}),
        (deep, "blur in.png out.jpg", {"status": "failed", "dtype": "uint16"}),
        (broken, "blur in.png out.png", {"status": "failed", "width": None}),
        (animation, "blur in.gif out.gif --check", {"status": "done", "frames": 3}),
        (float_without_a_number, "blur in.tif out.tif --check", {"dtype": "float32"}),
        (folder, "blur -r in out", {"status": "left alone"}),
        (folder, "blur -r in out --shard 1/1", {"status": "left alone", "shard": "1/1"}),
        (png, "threshold --otsu in.png out.png", {"filter": "threshold"}),
        (png, "kernel --weights 1 in.png out.png", {"filter": "kernel"}),
        (png, "invert in.png out.png --border constant --border-value 0.5", {"border_value": 0.5}),
    ],
)  # fmt: skip
def test_a_line_is_as_the_schema_says(
    made: Callable[[], None], command: str, told: dict[str, Any], here: Path
) -> None:
    made()
    cli(*command.split(), "--report", "r.jsonl")
    lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert lines
    for line in lines:
        VALID.validate(line)
    assert {name: lines[0][name] for name in told} == told


def test_of_a_chain(here: Path) -> None:
    picture("in.png")
    arguments = ("chain", "blur | sobel", "in.png", "out.png", "--engine", "cpu", "--report", "r")
    assert cli(*arguments).exit_code == 0
    line = json.loads(Path("r").read_text())
    VALID.validate(line)
    assert line["parameters"] == {"steps": ["blur", "sobel"]}


def test_of_an_image_that_was_there_already(here: Path) -> None:
    picture("in.png"), picture("out.png")
    cli("blur", "in.png", "out.png", "--existing", "skip", "--report", "r")
    line = json.loads(Path("r").read_text())
    VALID.validate(line)
    assert line["status"] == "skipped"


def test_by_rows(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDAFILTER_MEMORY", "6000000")
    picture("in.png", (900, 900))
    assert cli("blur", "in.png", "out.png", "--check", "--report", "r").exit_code == 0
    line = json.loads(Path("r").read_text())
    VALID.validate(line)
    assert line["elapsed"] is not None


@pytest.mark.parametrize(
    "change",
    [
        {"status": "perhaps"}, {"width": 0}, {"start": "yesterday"}, {"more": 1}, {"frames": None},
        {"seconds": {"thinking": 1.0}}, {"agreement": {}},
    ],
)  # fmt: skip
def test_another_line_is_refused(change: dict[str, Any], here: Path) -> None:
    picture("in.png")
    cli("blur", "in.png", "out.png", "--report", "r")
    line = json.loads(Path("r").read_text())
    VALID.validate(line)
    with pytest.raises(ValidationError):
        VALID.validate(line | change)


def test_every_field_is_told() -> None:
    def fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
        inner = [field for each in schema["properties"].values() for field in fields(each)
                 ] if "properties" in schema else []  # fmt: skip
        return [schema, *inner]

    for field in fields(SCHEMA):
        assert field["description"].endswith("."), field
