"""The command line's help: all of it is there, fits a terminal and is quick."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner
from PIL import Image

import cudafilter
from command_line import ENVIRONMENT, call, cli, picture
from cudafilter.cli import _OTHERS, app, options
from cudafilter.operations.catalogue import CATALOGUE, grouped

pytestmark = pytest.mark.usefixtures("here")

COMMANDS = [*CATALOGUE, *_OTHERS]


class TestHelp:
    @pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
    def test_fits_80_columns(self, arguments: Sequence[str]) -> None:
        result = cli(*arguments, "--help") if arguments else CliRunner().invoke(app, ["--help"])
        assert result.exit_code == 0
        assert max(map(len, result.stdout.splitlines())) <= 80

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_and_option_is_documented(self, name: str) -> None:
        with click.Context(app) as ctx:
            command = app.get_command(ctx, name)
            assert command is not None
            assert command.help
            shown = command.get_help(ctx)
            for param in command.params:
                if isinstance(param, click.Option):
                    assert param.help, param.name
                    assert param.opts[-1] in shown
        assert "Example:\n" in shown

    def test_the_first_page_has_all_commands_in_sections(self) -> None:
        done = CliRunner().invoke(app, ["-h"])
        assert done.exit_code == 0, done.output
        filters, others = done.stdout.split("Filters:\n")[1].split("Other commands:\n")
        for spec in CATALOGUE.values():
            assert f"{spec.name} " in filters
            assert spec.summary in filters
        sections = re.findall(r"^  (\w[\w ]*):\n(.*?)\n$", filters, re.MULTILINE | re.DOTALL)
        assert [section.lower() for section, _ in sections] == [group for group, _ in grouped()]
        for (_, shown), (_, specs) in zip(sections, grouped(), strict=True):
            assert [line.split()[0] for line in shown.splitlines()] == [s.name for s in specs]
        names = [line.split()[0] for line in others.splitlines()[: len(_OTHERS)]]
        assert names == list(_OTHERS)
        assert "..." not in others

    @pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
    def test_limits_and_defaults_are_shown(self, spec: Any) -> None:
        shown = " ".join(cli(spec.name, "--help").stdout.split())
        for parameter in spec.parameters:
            assert parameter.limits in shown
            if parameter.kind in (int, float) and parameter.default is not None:
                assert f"default: {parameter.default:g}" in shown

    def test_no_filter_parameter_hides_a_shared_option(self) -> None:
        shared = set(options.Shared._fields)
        assert {option.name for group in options.shared().values() for option in group} == shared
        for spec in CATALOGUE.values():
            assert not shared & {parameter.name for parameter in spec.parameters}

    @pytest.mark.parametrize("arguments", ["--help", "--version", "blur --help", "bench --help"])
    def test_starts_nothing_heavy(self, arguments: str) -> None:
        watch = (
            "import sys, cudafilter.cli as c\n"
            "try: c.app(sys.argv[1:])\n"
            "finally: assert not {'numpy', 'PIL', 'cv2', 'pycuda'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", watch, *arguments.split()],
            env=ENVIRONMENT, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def test_version(self) -> None:
        assert call("--version").stdout.decode().strip() == f"cudafilter {cudafilter.__version__}"

    @pytest.mark.parametrize("spec", CATALOGUE.values(), ids=lambda spec: spec.name)
    def test_the_example_runs(self, spec: Any) -> None:
        program, *arguments = shlex.split(spec.example)
        assert program == "cudafilter"
        picture(arguments[-2])
        result = cli(*arguments)
        assert result.exit_code == 0, result.stderr
        Image.open(arguments[-1]).load()
