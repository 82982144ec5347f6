"""Files in TOML that a user writes: presets and recipes."""

from __future__ import annotations

from typing import Any

MOST = 1 << 20
"""Characters of a file, at most: a larger one, or a device, was named by mistake."""


def read(path: str) -> tuple[str, dict[str, Any]]:
    """The text of the file *path*, and its tables.

    Raises OSError where it cannot be read, and ValueError, which names it, where it is no TOML.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(MOST + 1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8") from error
    if len(text) > MOST:
        raise ValueError(f"{path} is no TOML: it is longer than {MOST:,} characters")
    import tomllib

    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is no TOML: it is nested too deeply") from error
