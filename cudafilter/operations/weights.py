"""A user's kernel weights: inline text, a text or CSV file, or a .npy file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError

_HINT = 'inline: "0 -1 0; -1 5 -1; 0 -1 0"; or the name of a .txt, .csv or .npy file'

MOST_TEXT = 1 << 26
"""Characters of a file in text, at most: a larger one, or a device, was named by mistake."""

MOST_TOLD = 40
"""Characters of what is no number that an error repeats: a file may be none of ours."""


def parse_weights(text: str, parameter: str = "weights") -> npt.NDArray[np.float64]:
    """The 2-D float64 weights that *text* spells out, or that the file it names holds.

    Inline rows end in ``;``; in a file a line is a row, which a ``;`` may end, and ``#`` starts a
    comment. Numbers are set apart by spaces, tabs or commas. Raises ParameterError (*parameter*)
    for what is empty, ragged, not a number or not a readable file.
    """
    path = Path(text)
    if _is_inline(text):
        return _parse_rows(_inline_rows(text, "the inline kernel"), "the inline kernel", parameter)
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "biuf":
                raise ParameterError(
                    parameter,
                    f"{path} holds {array.dtype} {array.shape}, not a 2-D array of numbers",
                )
            return np.asarray(array, dtype=np.float64)
        with path.open(encoding="utf-8-sig") as file:
            content = file.read(MOST_TEXT + 1)
        if len(content) > MOST_TEXT:
            what = f"{path} is longer than {MOST_TEXT:,} characters"
            raise ParameterError(parameter, what, hint="a kernel so large goes into a .npy file")
    except FileNotFoundError:
        raise ParameterError(parameter, f"no such file: {text}", hint=_HINT) from None
    except ParameterError:
        raise
    except UnicodeDecodeError as error:
        raise ParameterError(parameter, f"{path} is no text in UTF-8", hint=_HINT) from error
    except MemoryError as error:
        what = f"cannot read {path}: there is not enough memory"
        raise ParameterError(parameter, what, hint=_HINT) from error
    except Exception as error:  # NumPy parses a damaged head as Python, and raises what that does
        reason = getattr(error, "strerror", None) or "it is damaged, or no array of numbers"
        raise ParameterError(parameter, f"cannot read {path}: {reason}", hint=_HINT) from error
    lines = [line.split("#")[0].strip() for line in content.splitlines()]
    rows = [
        (f"line {number} of {path}", line.removesuffix(";"))
        for number, line in enumerate(lines, start=1)
        if line
    ]
    if len(rows) == 1:
        rows = _inline_rows(rows[0][1], str(path))
    return _parse_rows(rows, str(path), parameter)


def _is_inline(text: str) -> bool:
    """Whether *text* is weights and not a file's name.

    It has a ``;`` or numbers only, or begins with one of several words and names no file.
    """
    if ";" in text or not text.strip() or re.match(r"\s*[-+.\d][-+.\deE,\s]*$", text):
        return True
    return re.match(r"\s*[-+.\d]\S*[\s,]", text) is not None and not os.path.exists(text)


def _inline_rows(text: str, source: str) -> list[tuple[str, str]]:
    """The rows of *text*, each with the words that name it in errors."""
    rows = text.split(";")
    if not rows[-1].strip():
        rows = rows[:-1]  # a closing ';' ends the last row, it opens no new one
    return [(f"row {number} of {source}", row) for number, row in enumerate(rows, start=1)]


def _parse_rows(
    rows: list[tuple[str, str]], source: str, parameter: str
) -> npt.NDArray[np.float64]:
    numbers: list[list[float]] = []
    for place, text in rows:
        words = re.split(r"\s*,\s*|\s+", text.strip().removesuffix(",").rstrip())
        numbers.append([_number(word, place, parameter) for word in words])
        if len(words) != len(numbers[0]):
            count = f"{len(words)} number{'s' * (len(words) != 1)}"
            what = f"{place} has {count}, {rows[0][0]} has {len(numbers[0])}"
            raise ParameterError(parameter, what)
    if not numbers:
        raise ParameterError(parameter, f"{source} is empty", hint=_HINT)
    array = np.array(numbers, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ParameterError(parameter, f"{source} holds NaN or infinity")
    return array


def _number(word: str, place: str, parameter: str) -> float:
    try:
        return float(word)
    except ValueError:
        short = word if len(word) <= MOST_TOLD else f"{word[:MOST_TOLD]}..."
        what = f"{short!r} is not a number" if word else "a number is missing"
        hint = _HINT
        if re.fullmatch(r"[-+.\d]+/[.\d]+", word):
            hint = "write a decimal number, or whole ones: --normalize divides by their sum"
        raise ParameterError(parameter, f"{place}: {what}", hint=hint) from None
