"""Folders of stores are planned page by page, where no later page can stop the job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import cli, picture
from cudafilter.errors import ImageError, ParameterError
from cudafilter.jobs import buckets, sizing
from cudafilter.jobs.job import Job
from cudafilter.jobs.paged import make_plans
from cudafilter.stores import remote
from cudafilter.stores.url import Url, path_of

pytestmark = pytest.mark.usefixtures("here")
pytest.importorskip("obstore")

PAGES, SIZE = 50, 100


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pages of a listing that were asked for; there are PAGES of SIZE objects each."""
    asked: list[int] = []

    def walk(top: Url, deep: bool) -> Iterator[list[Url]]:
        if not deep or top.key != "in":
            return
        for page in range(PAGES):
            asked.append(page)
            yield [Url(top.root, f"in/{page}/{n}.jpg", 1) for n in range(SIZE)]

    monkeypatch.setattr(remote, "walk", walk)
    return asked


@pytest.mark.parametrize("destination", ["out", "memory://m/out/"])
@pytest.mark.parametrize("existing", ["overwrite", "skip"])
def test_the_first_plan_comes_before_the_listing_ends(
    listed: list[int], destination: str, existing: str
) -> None:
    plans = make_plans(["memory://m/in"], destination, recursive=True, existing=existing)
    first = next(plans)
    assert len(listed) <= 2  # one tells that there is a folder
    jobs = [*first.jobs, *(job for plan in plans for job in plan.jobs)]
    assert len({job.source for job in jobs}) == len(jobs) == PAGES * SIZE
    assert str(jobs[-1].destination) == f"{destination.rstrip('/')}/{PAGES - 1}/{SIZE - 1}.jpg"
    assert {job.existing for job in jobs} == (
        {existing} if destination.startswith("memory") else {"overwrite"}
    )


@pytest.mark.parametrize(
    ("destination", "options"),
    [
        ("out", {"format": "png"}),
        ("out", {"existing": "error"}),
        ("out", {"whole": True}),
        ("memory://m/", {}),
    ],
)
def test_a_job_that_a_later_page_could_stop_is_planned_as_a_whole(
    listed: list[int], destination: str, options: dict[str, str]
) -> None:
    plans = list(make_plans(["memory://m/in"], destination, recursive=True, **options))  # type: ignore[arg-type]
    assert len(listed) >= PAGES
    assert [len(plan.jobs) for plan in plans] == [PAGES * SIZE]


def test_a_folder_into_itself_is_refused_before_any_work(listed: list[int]) -> None:
    with pytest.raises(ParameterError, match="would overwrite the input"):
        next(make_plans(["memory://m/in"], "memory://m/in", recursive=True))


def test_a_folder_of_results_inside_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture("a.png").read_bytes()
    for key in ("in/a.png", "in/out/b.png"):
        remote.write_whole(remote.Target(Url("memory://inside", key)), data)
    (plan,) = make_plans(["memory://inside/in"], "memory://inside/in/out/", recursive=True)
    assert [str(job.source) for job in plan.jobs] == ["memory://inside/in/a.png"]


def test_the_first_picture_is_written_before_the_listing_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = picture("a.png").read_bytes()
    written = []

    def walk(top: Url, deep: bool) -> Iterator[list[Url]]:
        for n in range(3):
            url = Url(top.root, f"in/{n}.png")
            remote.write_whole(remote.Target(url), data)
            yield [url]
            written.append(len(list(Path("out").glob("*"))))

    monkeypatch.setattr(remote, "walk", walk)
    result = cli("blur", "-r", "memory://first/in", "out")
    assert result.exit_code == 0, result.output
    assert written == [1, 2, 3]
    assert "3 done, 0 skipped, 0 failed, 0 left alone" in result.stderr


def test_a_listing_that_breaks_off_fails_and_what_came_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = Url("memory://broken", "in/a.png")
    remote.write_whole(remote.Target(url), picture("a.png").read_bytes())

    def walk(top: Url, deep: bool) -> Iterator[list[Url]]:
        yield [url]
        raise ImageError(f"{top}: cannot be listed: the store cannot be reached")

    monkeypatch.setattr(remote, "walk", walk)
    result = cli("blur", "-r", "memory://broken/in", "out")
    assert result.exit_code == 1
    assert Path("out/a.png").exists()
    assert "error: memory://broken/in: cannot be listed" in result.stderr
    assert "1 done, 0 skipped, 1 failed" in result.stderr


def test_a_tree_lists_each_folder_of_its_results_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "FOLDERS", 3)
    asked: list[str] = []

    def walk(top: Url, deep: bool) -> Iterator[list[Url]]:
        asked.append(top.key)
        yield [top / "there.png"]

    monkeypatch.setattr(remote, "walk", walk)
    listed = buckets.Listed()
    for n in range(20):
        assert listed.has(Url("memory://m", f"a/{n}/there.png"))
        assert not listed.has(Url("memory://m", f"a/{n}/none.png"))
        assert listed.has(Url("memory://m", "a/there.png"))
    assert sorted(asked) == sorted({*asked})
    assert len(asked) == 21


@pytest.mark.parametrize(
    ("source", "destination", "more"),
    [("a.png", "b.png", 1), ("memory://m/a.png", "b.png", 4), ("a.png", "memory://m/b.png", 4)],
)
def test_more_images_are_in_work_where_they_wait_for_a_store(
    source: str, destination: str, more: int
) -> None:
    job = Job(path_of(source), path_of(destination), "png")
    assert sizing.for_each_core((job,)) == more
    assert sizing.for_each_core(iter([job])) == 1
