"""--cluster: what of a run goes to the nodes of a cluster."""

from __future__ import annotations

import os

import click

from cudafilter.cli.options import Shared
from cudafilter.cli.tasks import Teller, task_of
from cudafilter.errors import ParameterError
from cudafilter.jobs import cluster
from cudafilter.jobs.nodes import Cluster, require_address
from cudafilter.jobs.plan import Plan
from cudafilter.operations.borders import Border
from cudafilter.operations.operation import Operation


def require_possible(shared: Shared) -> None:
    """Raise an error where the options do not go with --cluster."""
    assert shared.cluster is not None
    require_address(shared.cluster)
    if shared.in_place:
        raise click.UsageError(
            "--in-place keeps a journal on this machine, and --cluster works on others"
        )
    if shared.watch:
        raise click.UsageError("--watch does not end, and --cluster is for one job")
    if shared.gpu is not None:
        raise ParameterError("gpu", "is for this machine; each worker of a cluster gets its own")
    if shared.engine == "cpu" and shared.variant != "auto":
        raise ParameterError("variant", "is for the cuda engine, and --engine cpu was asked for")


def run_on(plan: Plan, filter: Operation, border: Border, shared: Shared, told: Teller) -> None:
    """Do *plan* on the cluster, all of it by one kind of engine."""
    assert shared.cluster is not None
    if not plan.jobs:
        told.start("nothing to do on the cluster")
        return
    joined = Cluster(shared.cluster)
    try:
        gpus = any(node.gpus for node in joined.nodes())
        wants = shared.engine == "cuda" or shared.variant != "auto"
        engine = "cuda" if wants or (gpus and shared.engine == "auto") else "cpu"
        task = task_of(
            plan, filter, border, shared, told.settings, engine,
            os.getcwd(), cluster.task_environment(),
        )  # fmt: skip
        run = cluster.Run(joined, plan.jobs, task, told.tell, told.note)
        told.start(f"cluster, {run.prepare()}")
        run.work()
    finally:
        joined.leave()
