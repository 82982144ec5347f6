"""What a filter's users see of it: its parameters with their limits, as plain data.

Imported by ``cudafilter --help``, so it imports nothing heavy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from cudafilter.errors import ParameterError

GROUPS = ("smooth", "sharpen", "edges", "rank and shape", "point", "your own")
"""What filters are for, in the order in which they are listed."""


class Parameter(NamedTuple):
    """One parameter of a filter. ``default`` None with ``required`` False means "derived"."""

    name: str
    kind: type
    default: Any
    help: str
    above: float | None = None
    """Exclusive lower limit."""
    least: float | None = None
    """Inclusive lower limit."""
    most: float | None = None
    """Inclusive upper limit."""
    required: bool = False
    words: tuple[str, ...] = ()
    """Words that have a meaning of their own, of a parameter that takes a file's name too."""

    @property
    def limits(self) -> str:
        """The allowed range in words, or an empty string."""
        words = []
        if self.above is not None:
            words.append(f"> {self.above:g}")
        if self.least is not None:
            words.append(f">= {self.least:g}")
        if self.most is not None:
            words.append(f"<= {self.most:g}")
        return " and ".join(words)

    def validate(self, value: Any) -> Any:
        """Return *value* as this parameter's kind, or raise ParameterError naming it."""
        if value is None and not self.required:
            return self.default
        if self.kind not in (int, float):
            return value
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ParameterError(self.name, f"must be a number, not {value!r}") from None
        if not math.isfinite(number):
            raise ParameterError(self.name, f"must be a finite number, not {value}")
        if self.kind is int and number != int(number):
            raise ParameterError(self.name, f"must be a whole number, not {value}")
        if (
            (self.above is not None and number <= self.above)
            or (self.least is not None and number < self.least)
            or (self.most is not None and number > self.most)
        ):
            raise ParameterError(self.name, f"must be {self.limits}, not {value}")
        return self.kind(number)


class FilterSpec(NamedTuple):
    """A filter as its users see it."""

    name: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    example: str
    group: str
    """One of GROUPS."""

    def validate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, defaults filled in. Raises ParameterError for unknown or bad ones."""
        known = {parameter.name for parameter in self.parameters}
        for name in given:
            if name not in known:
                choice = ", ".join(sorted(known)) or "none"
                raise ParameterError(
                    name, f"{self.name} has no parameter {name!r} (it has {choice})"
                )
        return {p.name: p.validate(given.get(p.name, p.default)) for p in self.parameters}
