"""A share of a job that several machines do: each does its own, and none asks another."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

from cudafilter.errors import ParameterError, require_text

MOST = 1_000_000
"""Most shards of a job."""


class Shard(NamedTuple):
    """The share *number* of so many; numbers count from 1."""

    number: int
    of: int

    @classmethod
    def parsed(cls, text: str) -> Self:
        """The shard that *text* names: ``3/8`` is the third of eight.

        Raises ParameterError ("shard").
        """
        require_text("shard", text)
        words = text.split("/")
        known = len(words) == 2 and all(word.isascii() and word.isdecimal() for word in words)
        number, of = map(int, words) if known and len(text) < 20 else (-1, -1)
        if number == 0 and of > 0:
            raise ParameterError(
                "shard",
                f"numbers count from 1, and {text!r} has 0",
                hint=f"add 1 to an index that counts from 0: $((INDEX + 1))/{of}",
            )
        if not 1 <= number <= of <= MOST:
            raise ParameterError(
                "shard", f"must be I/N with I from 1 to N, and N at most {MOST:,}, not {text!r}"
            )
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, path: os.PathLike[str]) -> bool:
        """Whether the file *path* is of this share.

        Its name only decides, so that files which come or go move no other one to another share:
        by positions in a list that has grown meanwhile, some would be done twice and some never.
        The shares of many files are of about one size.
        """
        from hashlib import blake2b

        told = blake2b(os.fsencode(path), digest_size=8).digest()
        return int.from_bytes(told) % self.of == self.number - 1
