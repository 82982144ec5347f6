"""``cudafilter compile``: common kernels into the cache, ahead of their use."""

from __future__ import annotations

import re
from threading import Lock
from time import monotonic

import click

from cudafilter.cli import options
from cudafilter.cli.command import Command
from cudafilter.cli.terminal import CLEAR, erases, put, tell
from cudafilter.errors import EngineUnavailable


def _architectures(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """The names set apart by commas, each once."""
    if value is None:
        return None
    names = tuple(dict.fromkeys(word.strip() for word in value.split(",")))
    for name in names:
        if not re.fullmatch(r"sm_\d{2,3}", name):
            raise click.BadParameter(
                f"{name!r} is no GPU architecture; their names are like sm_90", ctx, param
            )
    return names


def _present() -> tuple[str, ...]:
    """The architectures of the GPUs here."""
    from cudafilter.engines.cuda.device import gpus

    try:
        capabilities = dict.fromkeys(device.compute_capability for device in gpus())
    except EngineUnavailable as error:
        named = "to compile for a GPU that is not here, name it: --arch sm_90"
        hint = f"{error.hint}; {named}" if error.hint else named
        raise EngineUnavailable(str(error), hint=hint) from error
    return tuple(f"sm_{major}{minor}" for major, minor in capabilities)


class _Counter:
    """Counts compiled kernels: in one line on a terminal, elsewhere in a line each minute."""

    EVERY = 60.0
    """Seconds from one line to the next."""

    def __init__(self, arch: str, total: int, quiet: bool) -> None:
        self._arch, self._total, self._quiet = arch, total, quiet
        self._terminal = erases()
        self._done = 0
        self._told = self._started = monotonic()
        self._turn = Lock()

    def advance(self) -> None:
        """Count one more kernel."""
        with self._turn:
            self._done += 1
            now = monotonic()
            if self._quiet or (not self._terminal and now - self._told < self.EVERY):
                return
            self._told = now
            spent = now - self._started
            line = f"{self._arch}: {self._done} of {self._total} kernels, {spent:.0f} s"
            if self._terminal:
                click.echo(f"{CLEAR}{line}", err=True, nl=False)
            else:
                tell(line)

    def clear(self) -> None:
        """Remove the line on a terminal."""
        if self._terminal and not self._quiet:
            click.echo(CLEAR, err=True, nl=False)


def _run(
    arch: tuple[str, ...] | None, variant: str, jobs: int | None, quiet: bool, debug: bool
) -> None:
    from cudafilter.engines.cuda.ahead import common
    from cudafilter.engines.nvcc import compile_ahead, require_compiler
    from cudafilter.host.cores import cores

    architectures = arch or _present()
    compiler = require_compiler()
    kernels = common(variant)
    if not quiet:
        tell(f"{len(kernels)} kernels an architecture; {compiler}")
    for name in architectures:
        started = monotonic()
        counter = _Counter(name, len(kernels), quiet)
        try:
            compiled, kept = compile_ahead(
                kernels, name, compiler, jobs or cores(), counter.advance
            )
        finally:
            counter.clear()
        if not quiet:
            seconds = monotonic() - started
            put(f"{name}: {compiled} compiled, {kept} there already, {seconds:.1f} s")


command = Command(
    "compile",
    sections={
        "Options": [
            click.Option(
                ["--arch"],
                callback=_architectures,
                metavar="NAME,NAME",
                show_default="those of the GPUs here",
                help="GPU architectures, such as sm_90.",
            ),
            options.variant("CUDA kernel to compile; auto compiles those that filters run with."),
            click.Option(
                ["-j", "--jobs"],
                type=options.Whole(1, options.MAX_JOBS),
                metavar="N",
                show_default="one a core",
                help="Compilers that run at a time.",
            ),
            options.quiet(),
            options.debug(),
        ]
    },
    example="cudafilter compile --arch sm_90,sm_120",
    help="Compile the common kernels ahead of their first use.",
    callback=_run,
)
