"""A user's kernel weights: inline text, a text or CSV file, or a .npy file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cudafilter.errors import ParameterError

_HINT = 'inline: "0 -1 0; -1 5 -1; 0 -1 0"; or the name of a .txt, .csv or .npy file'


def parse_weights(text: str, parameter: str = "weights") -> npt.NDArray[np.float64]:
    """The 2-D float64 weights that *text* spells out, or that the file it names holds.

    Inline rows end in ``;``; in a file a line is a row, which a ``;`` may end, and ``#`` starts a
    comment. Numbers are set apart by spaces, tabs or commas. Raises ParameterError (*parameter*)
    for what is empty, ragged, not a number or not a readable file.
    """
    if _is_inline(text):
        return _parse_rows(text.split(";"), "the inline kernel", parameter)
    path = Path(text)
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "biuf":
                raise ParameterError(
                    parameter,
                    f"{path} holds {array.dtype} {array.shape}, not a 2-D array of numbers",
                )
            return np.asarray(array, dtype=np.float64)
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ParameterError(parameter, f"no such file: {text}", hint=_HINT) from None
    except ParameterError:
        raise
    except UnicodeDecodeError as error:
        raise ParameterError(parameter, f"{path} is no text in UTF-8", hint=_HINT) from error
    except (OSError, ValueError, EOFError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(parameter, f"cannot read {path}: {reason}", hint=_HINT) from error
    lines = [line for text in content.splitlines() if (line := text.split("#")[0].strip())]
    if len(lines) == 1:
        lines = lines[0].split(";")
    return _parse_rows([line.removesuffix(";") for line in lines], str(path), parameter)


def _is_inline(text: str) -> bool:
    """Whether *text* is weights and not a file's name: it starts as a number or has a ``;``."""
    return (
        ";" in text or not text.strip() or re.match(r"\s*[-+.\d][-+.\deE,\s]*$", text) is not None
    )


def _parse_rows(lines: list[str], source: str, parameter: str) -> npt.NDArray[np.float64]:
    if lines and not lines[-1].strip():
        lines = lines[:-1]  # a closing ';' ends the last row, it opens no new one
    rows = []
    for number, line in enumerate(lines, start=1):
        row = []
        for word in re.split(r"\s*,\s*|\s+", line.strip().removesuffix(",").rstrip()):
            try:
                row.append(float(word))
            except ValueError:
                what = f"{word!r} is not a number" if word else "a number is missing"
                raise ParameterError(
                    parameter, f"row {number} of {source}: {what}", hint=_HINT
                ) from None
        rows.append(row)
        if len(row) != len(rows[0]):
            raise ParameterError(
                parameter,
                f"row {number} of {source} has {len(row)} numbers, row 1 has {len(rows[0])}",
            )
    if not rows:
        raise ParameterError(parameter, f"{source} is empty", hint=_HINT)
    array = np.array(rows, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ParameterError(parameter, f"{source} holds NaN or infinity")
    return array
