"""Text from files and names, made safe to show: what would steer a terminal is written out."""

from __future__ import annotations

import re

_STEERING = (
    "[\x00-\x1f\x7f-\x9f"  # controls, line ends and escape sequences among them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of reading
    "\u2028\u2029"  # end a line
    "\ud800-\udfff]"  # bytes of names that are not UTF-8, and halves of characters
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escaped(text: str) -> str:
    r"""*text* in one line, without characters that steer a terminal: they become ``\x1b`` and such.

    A byte of a name that is no UTF-8 becomes ``\xNN``.
    """
    # Nearly all text is printable; the pattern is compiled for what is not.
    return text if text.isprintable() else re.sub(_STEERING, _written, text)


def escaped_lines(text: str) -> str:
    """Each line of *text*, escaped and indented, so that none looks like a line of ours."""
    return "\n".join("  " + escaped(line) for line in text.split("\n"))


def escaped_name(name: str) -> str:
    r"""The file name *name* escaped so that ``printf %b`` gives it back: a backslash is ``\\``."""
    return escaped(name.replace("\\", r"\\"))


def _written(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that is no text
        code -= 0xDC00
    elif code >= 0x80:
        return f"\\u{code:04x}"
    return _SHORT.get(character, f"\\x{code:02x}")
