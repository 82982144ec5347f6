"""What bounds a folder's run: one situation for each rule, and what lies between two of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cudafilter.jobs.bound import FULL, NAMES, Situation, bound

CPU: dict[str, Any] = {
    "seconds": 1.6, "cores": 2, "busy": 1.9, "others": 0.1, "pictures": 24, "in_work": 1.9,
    "stages": {"read": 0.0, "decode": 0.36, "run": 0.39, "encode": 0.23, "write": 0.01},
    "mostly": "run", "on_gpu": False,
}  # fmt: skip
"""JPEGs of 12 megapixels on 2 cores, as they were measured."""

SMALL: dict[str, Any] = {
    "seconds": 1.5, "cores": 2, "busy": 1.2, "others": 0.0, "pictures": 2000, "in_work": 2.0,
    "stages": {"read": 0.09, "decode": 0.19, "run": 0.11, "encode": 0.16, "write": 0.33},
    "mostly": "write", "on_gpu": False,
}  # fmt: skip
"""PNGs of 32x24 on 2 cores, as they were measured: mostly Python."""

GPU: dict[str, Any] = {
    "seconds": 20.0, "cores": 16, "busy": 15.2, "others": 0.2, "pictures": 9000, "in_work": 24.0,
    "stages": {"read": 0.02, "run": 0.93, "write": 0.03, "wait": 0.02},
    "mostly": "run", "on_gpu": True, "gpu": 0.19, "units": 0.0,
}  # fmt: skip
"""JPEGs of 12 megapixels on an H100 and 16 cores, whose Huffman decoding is done by cores."""

SITUATIONS = [
    (CPU, {}, "cores", "1.9 of 2 busy, mostly in run"),
    (CPU, {"seconds": 0.02, "pictures": 5}, "pictures", "5 in 0.02 s are too few to tell"),
    (CPU, {"busy": 1.3, "pictures": 3}, "pictures", "3 for 2 cores"),
    (CPU, {"busy": 1.2, "others": 0.8}, "others", "they keep 0.8 of 2 cores busy"),
    (CPU, {"busy": 1.0, "others": 1.0, "in_work": 1.0, "jobs": 1}, "jobs", "1.0 of 2 busy"),
    (CPU, {"busy": 1.5, "others": None}, "none", "1.5 of 2 busy, mostly in run"),
    (SMALL, {}, "lock", "1.2 cores busy, 2.0 pictures in work"),
    (SMALL, {"busy": 1.0, "in_work": 1.0}, "none", "1.0 of 2 busy, mostly in write"),
    # The same pictures written through to the disk each, beside other programs.
    (SMALL, {"busy": 0.4, "others": 1.2, "stages": {"read": 0.01, "write": 0.83}}, "disk",
     "writes: 84 % of the pictures' time"),
    # The same after the system's cache was emptied.
    (SMALL, {"busy": 0.4, "others": 1.6, "stages": {"read": 0.67, "write": 0.08}}, "disk",
     "reads: 75 %"),
    # To write takes long, but it takes cores, not a disk.
    (SMALL, {"busy": 1.5, "stages": {"read": 0.09, "write": 0.45}}, "none", "1.5 of 2 busy"),
    # Two of them need more memory than CUDAFILTER_MEMORY tells, and other programs work.
    (CPU, {"busy": 0.7, "others": 1.3, "stages": {"decode": 0.2, "run": 0.19, "wait": 0.49}},
     "memory", "for room 49 %"),
    (GPU, {}, "cores", "15.2 of 16 busy, mostly in run"),
    (GPU, {"busy": 2.0, "units": 0.98, "gpu": 0.5}, "units", "JPEG units: 98 % busy"),
    (GPU, {"busy": 15.9, "units": 0.9}, "cores", "15.9 of 16 busy"),
    (GPU, {"busy": 3.0, "gpu": 0.97}, "gpu", "kernels run 97 % of the time"),
    (GPU, {"busy": 15.2, "gpu": 0.97}, "cores", "15.2 of 16 busy"),
    (GPU, {"busy": 1.1}, "lock", "1.1 cores busy, 24.0 pictures in work"),
    (GPU, {"busy": 5.0}, "way", "93 % of the pictures' time; it is 19 % busy"),
    (GPU, {"busy": 5.0, "gpu": None, "units": None}, "way", "93 % of the pictures' time"),
]  # fmt: skip


@pytest.mark.parametrize(("measured", "but", "name", "told"), SITUATIONS)
def test_a_situation_has_one_bound(
    measured: dict[str, Any], but: dict[str, Any], name: str, told: str
) -> None:
    found = bound(Situation(**{**measured, **but}))
    assert found.name == name
    assert told in found.told
    assert found.hint
    for line in (f"bound: {found.told}", f"hint: {found.hint}"):
        assert len(line) <= 80


@pytest.mark.parametrize(("measured", "but", "name", "told"), SITUATIONS)
def test_the_documents_tell_of_each_bound(
    measured: dict[str, Any], but: dict[str, Any], name: str, told: str
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "many-images.md").read_text(encoding="utf-8")
    found = bound(Situation(**{**measured, **but})).told
    called = re.match("the disk|--jobs|[^:]*", found)
    assert called is not None
    assert name == "none" or f"\n| {called[0]}" in page.replace("`", "")


def test_the_situations_show_every_bound() -> None:
    assert {name for _, _, name, _ in SITUATIONS} == set(NAMES)


@pytest.mark.parametrize(("share", "name"), [(FULL, "cores"), (FULL - 0.01, "none")])
def test_cores_are_full_from_a_share_on(share: float, name: str) -> None:
    assert bound(Situation(**{**CPU, "busy": 2 * share, "others": 0.0})).name == name


@pytest.mark.parametrize(
    ("mostly", "on_gpu", "hint"),
    [
        ("run", False, "more cores, or a GPU"),
        ("decode (jpeg)", False, "more cores, or a GPU that decodes and encodes JPEGs"),
        ("decode (jpeg)", True, "more cores"),
        ("encode (png)", True, "more cores, or a lower --compress-level"),
        ("decode (png)", False, "more cores"),
    ],
)
def test_what_helps_full_cores_depends_on_what_they_do(
    mostly: str, on_gpu: bool, hint: str
) -> None:
    assert bound(Situation(**{**CPU, "mostly": mostly, "on_gpu": on_gpu})).hint == hint
