"""``cudafilter preview``: what stands on a sheet, and what is said with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from command_line import cli, picture, snapshot
from cudafilter.api import apply
from cudafilter.cli import compare, preview, sheet, weights
from cudafilter.cli.steps import parse_steps
from cudafilter.operations.catalogue import CATALOGUE
from cudafilter.operations.make import make
from image_files import ICC

Sheets = list[tuple[list[str], list[sheet.Panel], int]]

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Sheets:
    """Heading, panels and columns of each sheet that is drawn."""
    sheets = []
    draw = sheet.contact_sheet

    def watched(heading: list[str], panels: list[sheet.Panel], columns: int, *room: int) -> object:
        sheets.append((list(heading), list(panels), columns))
        return draw(heading, panels, columns, *room)

    for module in (sheet, compare, weights):
        monkeypatch.setattr(module, "contact_sheet", watched)
    return sheets


def shown(*arguments: str) -> Result:
    done = cli("preview", *arguments)
    assert done.exit_code == 0, done.stderr
    return done


def test_the_whole_catalogue_stands_on_a_sheet_beside_the_picture(
    drawn: Sheets,
) -> None:
    picture("photo.png", (60, 40))
    done = shown("photo.png")
    ((heading, panels, _),) = drawn
    assert [panel.title for panel in panels] == ["original", *CATALOGUE]
    assert heading[1].startswith("photo.png, 60x40 RGB uint8")
    by_name = {panel.title: panel for panel in panels}
    assert by_name["levels"].caption == "black 0, white 1, gamma 1"
    assert by_name["kernel"].caption.startswith("weights 0 -1 0; -1 5 -1; 0 -1 0")
    with Image.open("photo.png") as image:
        expected = apply(np.asarray(image), "blur", engine="cpu")
    times = by_name["blur"].picture.width // 60
    np.testing.assert_array_equal(np.asarray(by_name["blur"].picture)[::times, ::times], expected)
    with Image.open("photo-preview.png") as made:
        assert f"photo-preview.png {made.width}x{made.height}" in done.stderr


def test_a_large_picture_is_scaled_down_first_and_the_sheet_says_so(
    drawn: Sheets,
) -> None:
    Image.new("RGB", (1000, 500), (40, 80, 120)).save("photo.png")
    shown("photo.png", "--filter", "box")
    ((heading, panels, _),) = drawn
    assert heading[0] == "box"
    assert heading[1] == (
        "photo.png, 1000x500 RGB uint8, scaled down to 400x200 first: filters reach 2.5 times as"
        " far here as in the picture itself"
    )
    assert [panel.picture.size for panel in panels] == [(400, 200)] * 2
    assert panels[1].picture.getpixel((200, 100)) == (40, 80, 120)


@pytest.mark.parametrize(
    ("vary", "columns", "titles"),
    [
        (["amount=0.5,1"], 0, ["original", "amount 0.5", "amount 1"]),
        (["--amount=2"], 0, ["original", "amount 2"]),
        (
            ["amount=1,2", "sigma=3,4,5"], 3,
            [f"amount {amount}, sigma {sigma}" for amount in (1, 2) for sigma in (3, 4, 5)],
        ),
    ],
)  # fmt: skip
def test_one_option_is_varied_in_a_row_and_two_in_a_grid(
    vary: list[str], columns: int, titles: list[str],
    drawn: Sheets,
) -> None:  # fmt: skip
    picture("a.png")
    words = [word for one in vary for word in ("--vary", one)]
    shown("a.png", "--filter", "unsharp --threshold 0.02", *words)
    ((_, panels, drawn_columns),) = drawn
    assert [panel.title for panel in panels] == titles
    assert drawn_columns == columns
    assert "threshold 0.02" in panels[-1].caption


def test_before_and_after_are_split_and_enlarged_where_most_has_changed(
    drawn: Sheets,
) -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[200:204, 300:304] = 255
    Image.fromarray(pixels).save("a.png")
    shown("a.png", "--compare", "--filter", "invert | invert | box")
    ((_, (whole, before, after), columns),) = drawn
    assert columns == 3
    assert whole.picture.size == (400, 300)
    assert (before.picture.size, after.picture.size) == ((300, 300), (300, 300))
    x, y = map(int, before.caption.split(" around ")[1].split(", ")[0].split(","))
    assert abs(x - 302) <= 50
    assert abs(y - 202) <= 50
    assert "100x100 pixels" in before.caption
    assert "3 times" in before.caption
    assert np.asarray(before.picture).max() == 255
    expected = apply(pixels, "box", engine="cpu")
    part = np.asarray(after.picture)[1::3, 1::3]
    np.testing.assert_array_equal(part, expected[y - 50 : y + 50, x - 50 : x + 50])


def test_the_part_is_where_it_is_asked_for() -> None:
    picture("a.png", (300, 200))
    black = Image.new("RGB", (300, 200))
    assert compare.most_changed(black, black, 30) == (0, 0)
    done = cli("preview", "a.png", "--compare", "--filter", "blur", "--at", "300,10")
    assert done.exit_code == 2
    assert "'--at': 300,10 lies outside a picture of 300x200" in done.stderr
    shown("a.png", "--compare", "--filter", "blur", "--at", "299,10")


def test_a_turned_picture_is_shown_upright(
    drawn: Sheets,
) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (400, 200), (0, 90, 0)).save("a.jpg", exif=exif)
    shown("a.jpg", "--filter", "blur")
    assert [panel.picture.size for panel in drawn[0][1]] == [(200, 400)] * 2


@pytest.mark.parametrize(
    ("mode", "dtype", "name"),
    [("L", "uint8", "a.png"), ("RGBA", "uint8", "a.png"), ("CMYK", "uint8", "a.tif"),
     ("I;16", "uint16", "a.png"), ("F", "float32", "a.tif"), ("LA", "uint8", "a.png")],
)  # fmt: skip
def test_pictures_of_any_kind_are_shown(mode: str, dtype: str, name: str, drawn: Sheets) -> None:
    if mode == "I;16":
        Image.fromarray(np.full((500, 600), 0x8000, np.uint16)).save(name)
    else:
        fills: dict[str, Any] = {"F": 0.5, "L": 128, "LA": (128, 255), "CMYK": (0, 0, 0, 127)}
        Image.new(mode, (600, 500), fills.get(mode, (128,) * 4)).save(name)
    shown(name, "--filter", "median")
    ((heading, panels, _),) = drawn
    assert dtype in heading[1]
    for panel in panels:
        middle = panel.picture.getpixel((200, 160))
        assert isinstance(middle, tuple)
        if mode == "RGBA":  # the squares behind
            assert 150 < middle[0] < 200
        else:
            assert middle == (128, 128, 128)


def test_what_transparent_pixels_hide_is_not_seen_in_a_scaled_picture(
    drawn: Sheets,
) -> None:
    pixels = np.zeros((800, 800, 4), np.uint8)
    pixels[::2] = (200, 100, 50, 255)
    pixels[1::2] = (0, 255, 255, 0)
    Image.fromarray(pixels).save("a.png")
    shown("a.png", "--filter", "median")
    seen = np.asarray(drawn[0][1][0].picture)[200, 200]
    assert seen[0] > seen[1] > seen[2]


def test_the_weights_of_a_filter_are_drawn_as_the_help_tells_them() -> None:
    (sharpen,) = weights.drawn(make("sharpen"))
    np.testing.assert_array_equal(sharpen.values, [[0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    assert sharpen.anchor == (1, 1)
    assert sharpen.facts == "3x3, sum 1, largest 5"
    assert len(list(weights.drawn(make("sobel")))) == 2
    (disk,) = weights.drawn(make("dilate", shape="disk", radius=1))
    np.testing.assert_array_equal(disk.values, [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    assert disk.facts == "3x3, 5 pixels are ranked"


def test_weights_need_no_picture(drawn: Sheets) -> None:
    shown("--filter", "sobel", "--vary", "scale=1,2", "--show-kernel")
    ((_, panels, _),) = drawn
    assert [panel.title for panel in panels] == ["scale 1", "scale 1", "scale 2", "scale 2"]
    assert list(snapshot()) == ["sobel-kernel.png"]
    red, blue = (panels[0].picture.getpixel((4 * x, 120)) for x in (50, 10))
    assert isinstance(red, tuple)
    assert isinstance(blue, tuple)
    assert red[0] > red[2]
    assert blue[0] < blue[2]


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (5, "5"), (-1, "-1"), (0.25, ".25"), (-0.0837, "-.084"), (1e-9, "~0"), (1.38, "1.38"),
])  # fmt: skip
def test_numbers_of_weights_are_short(value: float, text: str) -> None:
    assert sheet._number(value) == text


@pytest.mark.parametrize("existing", ["error", "skip", "overwrite"])
def test_a_sheet_that_is_there_is_replaced_only_if_that_is_asked_for(existing: str) -> None:
    picture("a.png")
    Path("a-preview.png").write_bytes(b"mine")
    done = cli("preview", "a.png", "--filter", "box", "--existing", existing)
    assert done.exit_code == (2 if existing == "error" else 0)
    assert (Path("a-preview.png").read_bytes() == b"mine") == (existing != "overwrite")
    assert (existing == "error") == ("a-preview.png is there already" in done.stderr)


def test_the_picture_itself_is_never_replaced() -> None:
    picture("a.png")
    before = snapshot()
    done = cli("preview", "a.png", "-o", "./a.png", "--existing", "overwrite")
    assert done.exit_code == 2
    assert "a.png is the picture itself" in done.stderr
    assert snapshot() == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("", "Missing argument 'SRC'"),
        ("a.png --vary amount=1", "need --filter"),
        ("a.png --compare", "need --filter"),
        ("a.png --filter unsharp --vary amount", "--vary takes NAME=VALUE,VALUE, not 'amount'"),
        ("a.png --filter unsharp --vary amount=1,,2", "--vary takes NAME=VALUE,VALUE"),
        ("a.png --filter unsharp --vary amuont=1", "No such option '--amuont'"),
        ("a.png --filter unsharp --vary amount=x", "must be a number, not 'x'"),
        ("a.png --filter unsharpp", "no filter 'unsharpp'"),
        ("a.png --filter blur --vary sigma=1 --vary radius=1 --vary sigma=2", "at most twice"),
        ("a.png --filter blur --compare --vary sigma=1", "--compare stands by itself"),
        ("a.png --filter blur --at 1,2", "--at needs --compare"),
        ("a.png --filter blur --compare --at here", "must be X,Y in pixels, not 'here'"),
        ("--filter bilateral --show-kernel", "bilateral has neither weights nor a window"),
        ("a.png -o sheet.txt", "sheet.txt"),
        ("a.png -o no/sheet.png", "no/sheet.png: the folder no does not exist"),
        ("- -o sheet.png", "'-' is for filters"),
        ("a.png -o -", "'-' is for filters"),
    ],
)
def test_what_cannot_be_shown_is_told_and_nothing_is_written(arguments: str, error: str) -> None:
    picture("a.png")
    done = cli("preview", *arguments.split())
    assert done.exit_code == 2
    assert error in done.stderr
    assert list(snapshot()) == ["a.png"]


def test_a_picture_that_is_not_there_is_told() -> None:
    done = cli("preview", "none.png")
    assert done.exit_code == 1
    assert "none.png" in done.stderr
    assert list(snapshot()) == []


def test_the_first_frame_of_an_animation_is_shown(
    drawn: Sheets,
) -> None:
    frames = [Image.new("L", (300, 300), value) for value in (40, 200)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    shown("a.gif", "--filter", "box")
    assert drawn[0][1][0].picture.getpixel((150, 150)) == (40, 40, 40)


def test_words_never_leave_their_column() -> None:
    panel = sheet.Panel(Image.new("RGB", (10, 10)), "W" * 99, "word " * 30 + "W" * 200)
    made = np.asarray(sheet.contact_sheet(["H" * 300, "h " * 300], [panel] * 3, 2))
    edge = np.concatenate([made[:, : sheet.MARGIN - 1], made[:, -sheet.MARGIN + 1 :]], axis=1)
    assert (edge == sheet.PAPER).all()
    plain = np.asarray(sheet.contact_sheet(["h", "h"], [panel] * 3, 2))
    gap = plain[
        sheet.MARGIN + 60 :,
        sheet.MARGIN + sheet.LEAST + 1 : sheet.MARGIN + sheet.LEAST + sheet.GAP - 1,
    ]
    assert (gap == sheet.PAPER).all()


def test_titles_of_a_chain_are_its_steps() -> None:
    steps = parse_steps("median --radius 2 | unsharp")
    assert preview._named(steps, ()) == ("median | unsharp", "median --radius 2 | unsharp")


def test_gray_size_and_profile_are_those_asked_for(drawn: Sheets) -> None:
    Image.new("RGB", (300, 200), (200, 100, 50)).save("a.png", icc_profile=ICC)
    shown("a.png", "--filter", "box", "--size", "100")
    ((_, panels, _),) = drawn
    assert [panel.picture.size for panel in panels] == [(100, 67)] * 2
    with Image.open("a-preview.png") as sheet_made:
        assert sheet_made.info["icc_profile"] == ICC
    shown("a.png", "--filter", "box", "--gray", "--existing", "overwrite")
    red, green, blue = np.asarray(drawn[1][1][1].picture)[100, 150].tolist()
    assert red == green == blue


def test_a_place_counts_in_the_pixels_of_the_file_however_large(
    drawn: Sheets, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("a.png", (300, 200))
    shown("a.png", "--compare", "--filter", "blur", "--at", "150,60", "-o", "s.png")
    assert " around 150,60, " in drawn[0][1][1].caption
    monkeypatch.setattr(preview, "MOST", 300 * 200 // 4)
    shown("a.png", "--compare", "--filter", "blur", "--at", "150,60", "-o", "t.png")
    assert "scaled down to 150x100 first" in drawn[1][0][1]
    assert " around 75,30, " in drawn[1][1][1].caption
