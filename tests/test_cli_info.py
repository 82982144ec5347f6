"""The commands that tell of filters, engines and devices."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from command_line import cli
from cudafilter.errors import EngineUnavailable
from cudafilter.operations.catalogue import CATALOGUE, grouped
from cudafilter.operations.parameter import GROUPS

pytestmark = pytest.mark.usefixtures("here")


class TestFilters:
    def test_lists_all_within_80_columns(self) -> None:
        shown = cli("filters").stdout
        assert max(map(len, shown.splitlines())) <= 80
        for spec in CATALOGUE.values():
            assert f"{spec.name}: {spec.summary}" in shown
            assert spec.example in shown

    def test_lists_them_by_group(self) -> None:
        shown = cli("filters").stdout
        expected = []
        for group, specs in grouped():
            expected += [group.upper(), *(f"{spec.name}:" for spec in specs)]
        assert re.findall(r"^(?:[A-Z ]+$|[a-z]+:)", shown, re.MULTILINE) == expected

    def test_json_is_the_catalogue(self) -> None:
        listed = json.loads(cli("filters", "--json").stdout)
        assert [entry["name"] for entry in listed] == list(CATALOGUE)
        groups = dict.fromkeys(entry["group"] for entry in listed)
        assert list(groups) == [group for group in GROUPS if group in groups]
        sigma = listed[0]["parameters"][0]
        assert (sigma["name"], sigma["kind"], sigma["above"]) == ("sigma", "float", 0)


class TestInfo:
    def test_tells_engines_versions_and_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDAFILTER_CACHE", "/somewhere/else")
        result = cli("info")
        assert result.exit_code == 0, result.stderr
        for word in ("cuda ", "cpu ", "NumPy", "Pillow", "PyCUDA", "/somewhere/else"):
            assert word in result.stdout

    @pytest.mark.parametrize("library", [None, "/lib/libnvjpeg.so.13"])
    def test_tells_whether_the_gpu_codes_jpeg(
        self, library: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from cudafilter.engines.cuda import device as cuda
        from cudafilter.nvidia import nvjpeg

        device = cuda.Gpu(0, "a GPU", (9, 0), 1 << 30, "13.0")
        monkeypatch.setattr(cuda, "gpus", lambda: [device])
        monkeypatch.setattr(nvjpeg, "find", lambda major: library if major == 13 else "wrong")
        assert (library or "the extra nvcodec") in cli("info").stdout
        assert json.loads(cli("info", "--json").stdout)["nvjpeg"] == library

    def test_names_what_is_missing_and_what_mends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from cudafilter.engines.cuda import device as cuda
        from cudafilter.nvidia import toolkit

        def none() -> list[Any]:
            raise EngineUnavailable("no driver answers")

        monkeypatch.setattr(cuda, "gpus", none)
        monkeypatch.setattr(toolkit, "missing", lambda: [toolkit.Missing("no GPU", "buy one")])
        shown = cli("info").stdout
        assert "not available: no driver answers" in shown
        assert "buy one" in shown
        found = json.loads(cli("info", "--json").stdout)
        assert found["engines"]["cuda"]["available"] is False
        assert found["engines"]["cuda"]["missing"] == [{"what": "no GPU", "mend": "buy one"}]
        assert found["engines"]["cpu"]["available"] is True
        assert found["devices"] == []

    def test_lists_devices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from cudafilter.engines import nvcc
        from cudafilter.engines.cuda import device as cuda
        from cudafilter.nvidia import toolkit

        device = cuda.Gpu(0, "Some GPU", (9, 0), 80 << 30, "13.0")
        monkeypatch.setattr(cuda, "gpus", lambda: [device])
        monkeypatch.setattr(nvcc, "require_cuda", lambda: None)
        monkeypatch.setattr(toolkit, "missing", list)
        shown = cli("info").stdout
        assert "Some GPU, compute capability 9.0, 80.0 GiB" in shown
        listed = json.loads(cli("info", "--json").stdout)["devices"]
        assert listed[0]["compute_capability"] == "9.0"
        assert listed[0]["memory_bytes"] == 80 << 30
