"""``cudafilter chain``: several filters in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from cudafilter.cli import options
from cudafilter.cli.command import Command
from cudafilter.cli.options import Shared
from cudafilter.cli.terminal import put
from cudafilter.start.garbage import uncollected

if TYPE_CHECKING:
    from cudafilter.cli.steps import Step
    from cudafilter.operations.chain import Chain


@uncollected()
def _run(
    paths: tuple[str, ...],
    recipe: str | None,
    settings: tuple[str, ...],
    explain: bool,
    **values: Any,
) -> None:
    text, *others = paths
    steps = _steps(text, recipe, settings)
    if explain:
        return _explain(steps, chain_of(steps))
    if not others:
        raise click.UsageError("Missing argument 'SRC... DEST'.", click.get_current_context())
    shared = Shared(**values)
    told = {"steps": [step.text for step in steps]}
    from cudafilter.cli.filter import perform

    return perform(lambda: chain_of(steps), told, tuple(others), shared)


def _steps(text: str, recipe: str | None, settings: Sequence[str]) -> list[Step]:
    from cudafilter.cli.steps import parse_steps, recipe_steps

    given = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, not {setting!r}")
        given[name] = value
    if text.startswith("@"):
        return recipe_steps(text[1:], recipe, given)
    if recipe is not None or given:
        word = "--recipe" if recipe is not None else "--set"
        raise click.UsageError(f"{word} is for recipes: cudafilter chain @FILE ...")
    return parse_steps(text)


def chain_of(steps: Sequence[Step]) -> Chain:
    """The operation of *steps*. Raises ParameterError ("steps"), which names the step."""
    from cudafilter.errors import ParameterError
    from cudafilter.operations.borders import Border
    from cudafilter.operations.chain import Chain, Link
    from cudafilter.operations.make import make

    links = []
    for step in steps:
        try:
            if step.border is None and step.border_value:
                raise ParameterError("border_value", "needs --border constant in the same step")
            border = None if step.border is None else Border(step.border, step.border_value)
            links.append(Link(make(step.name, **step.parameters), border))
        except ParameterError as error:
            what = f"{step.place}: --{error.parameter.replace('_', '-')}: {error}"
            raise ParameterError("steps", what, hint=error.hint) from error
    return Chain(tuple(links))


def _explain(steps: Sequence[Step], chain: Chain) -> None:
    """Print what each step is, how far it reaches and what it costs."""
    from cudafilter.jobs.sizing import taps

    width = max(len(step.text) for step in steps)
    put(f"   {'step':{width}}  {'above below left right':21}  samples looked at")
    for n, (step, link) in enumerate(zip(steps, chain.links, strict=True), start=1):
        put(f"{n:2} {step.text:{width}}  {_reach(link.operation.reach)}  {taps(link.operation):8,}")
    put(f"   {'together':{width}}  {_reach(chain.reach)}  {taps(chain):8,}")
    for names in _together(chain):
        put(f"In one launch on a GPU, without alpha: {', '.join(names)}.")
    put(
        "Between steps pixels are float32, or float64 where that is too little for integers;"
        " neither rounded nor clamped, unless all steps pick samples; the result is rounded once."
    )


def _together(chain: Chain) -> Iterator[list[str]]:
    """The names of steps that one launch does, of float32 and of nearly all that is computed."""
    from cudafilter.engines.chains import picks
    from cudafilter.engines.cuda.variants.together import Together, grouped
    from cudafilter.operations.borders import Border
    from cudafilter.operations.operation import Stage

    plan = chain.unrolled(Border())
    stages = [step for step in plan if isinstance(step, Stage)]
    if len(stages) < len(plan) or picks(plan):
        return
    for stage in grouped(stages, alpha=False):
        if isinstance(stage.operation, Together):
            yield [each.operation.name for each in stage.operation.stages]


def _reach(reach: tuple[int, int, int, int]) -> str:
    above, below, left, right = reach
    return f"{above:5} {below:5} {left:4} {right:5}"


command = Command(
    "chain",
    arguments=[options.paths("STEPS SRC... DEST")],
    sections={
        "Chain": [
            click.Option(
                ["--recipe"],
                metavar="NAME",
                help="Which recipe of the file, where STEPS is @FILE and it holds several.",
            ),
            click.Option(
                ["--set", "settings"],
                multiple=True,
                metavar="NAME=VALUE",
                help="A parameter of the recipe. May be given several times.",
            ),
            click.Option(
                ["--explain"], is_flag=True, help="Print the steps and what they cost; do nothing."
            ),
        ],
        **options.shared(),
    },
    example='cudafilter chain "median --radius 1 | unsharp --sigma 1.5" photo.jpg fine.jpg',
    help="Several filters, one after the other.\n\nSTEPS is one text: each step is written as its"
    " own command is, with --border if it has a border of its own, and '|' stands between two. Or"
    " it is @FILE, a TOML file of recipes. Pixels are floats between steps, neither rounded nor"
    " clamped, and are rounded once at the end.",
    presets=True,
    callback=_run,
)
