"""What the commands for blocks have in common: their configuration, the work, what is printed of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.output import Cell, Table, clean, duration, emit, note, plural, settings_of
from absurd.cli.pipeline import need_the_extra
from absurd.cli.pipeline_configured import log_as

if TYPE_CHECKING:
    from absurd.client import AbsurdClient
    from absurd.tasks.pipeline.blocks import ProcessingBlock
    from absurd.tasks.pipeline.config import PipelineConfig
    from absurd.tasks.pipeline.health import HealthCheck
    from absurd.tasks.pipeline.orchestrator import PipelineOrchestrator
    from absurd.tasks.pipeline.outcome import ProcessingResult

WORKFLOWS = ("standard", "quick-imaging", "calibrator", "target", "ingestion", "nightly-mosaic", "night")
"""As in `absurd.tasks.pipeline.workflows`, which is not loaded for the help."""
Command = Callable[..., None]


def with_config(command: Command) -> Command:
    """Give a command ``--config`` and ``--environment``, and the configuration by them as `config`.

    A file that is called as an environment, ``production.yaml``, is of that one unless another is named.
    """

    @click.option(
        "--config",
        "--file",
        "path",
        metavar="FILE",
        type=click.Path(),
        help="A .toml or .yaml laid over the environment's.",
    )
    @click.option("--environment", "-e", metavar="NAME", help="Whose configuration.  [FILE's name, or development]")
    @wraps(command)
    def configured_command(*args: Any, path: str | None, environment: str | None, **given: Any) -> None:
        need_the_extra("numpy", "pydantic")
        from absurd.tasks.pipeline.environments import environment_names, load_pipeline_config
        from absurd.tasks.pipeline.stages import stage_params

        named = PurePath(path).stem if path else ""
        chosen = environment or (named if named in environment_names() else "development")
        config = load_pipeline_config(chosen, path)
        log_as(**stage_params(config, "pipeline run")["log"])
        command(*args, config=config, **given)

    return configured_command


def work_options(command: Command) -> Command:
    """Options that say what is done with blocks."""
    for option in (
        click.option("--no-wait", is_flag=True, help="Print the workflow's id and leave; workers go on."),
        click.option("--again", is_flag=True, help="Do all of it, also what was done before."),
        click.option(
            "--workflow", type=click.Choice(WORKFLOWS), default="standard", show_default=True, help="What is done."
        ),
    ):
        command = option(command)
    return command


def work(
    ctx: click.Context,
    config: PipelineConfig,
    find: Callable[[PipelineOrchestrator], Sequence[ProcessingBlock]],
    *,
    workflow: str,
    again: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Have blocks worked on, and print what came of each; exit code 1 if one failed."""
    from absurd.client import AbsurdClient
    from absurd.tasks.pipeline.orchestrator import PipelineOrchestrator

    async def run() -> None:
        async with AbsurdClient(settings=settings_of(ctx)) as client:
            orchestrator = PipelineOrchestrator(config, workflow=workflow, client=client, again=again)
            blocks = find(orchestrator)
            for each in blocks:
                if each.is_partial:
                    note(f"Block {each.block_id} is partial: {plural(each.missing, 'recording')} missing.")
            if no_wait:
                await _leave(orchestrator, blocks, client, as_json=as_json)
                return
            await _say_who_works(client)
            results = await orchestrator.process_blocks(blocks, lambda each: None if as_json else note(_line(each)))
            document = {"blocks": [each.told() for each in results]}
            emit(document, as_json=as_json, text=_table(results))
            if not all(each.success for each in results):
                ctx.exit(1)

    asyncio.run(run())


async def _leave(
    orchestrator: PipelineOrchestrator, blocks: Sequence[ProcessingBlock], client: AbsurdClient, *, as_json: bool
) -> None:
    begun = await orchestrator.begin(blocks, client)
    document = {"workflow": str(begun.workflow_id), "blocks": {name: str(task) for name, task in begun.reports.items()}}
    text = (
        f"Workflow {begun.workflow_id} has {plural(len(blocks), 'block')}; the same command without --no-wait joins it."
    )
    emit(document, as_json=as_json, text=text)


async def _say_who_works(client: AbsurdClient) -> None:
    status = await client.get_status()
    if not any(each["state"] == "running" for each in status["workers"]):
        note("No worker runs: nothing happens until one is started (absurd-worker).")


def _line(result: ProcessingResult) -> str:
    how = "is done" if result.success else "failed"
    return f"Block {result.block_id} {how}, {duration(result.processing_time)}."


def _table(results: Sequence[ProcessingResult]) -> str:
    rows = [
        (
            each.block_id,
            Cell("ok", "ok") if each.success else Cell("failed", "failed"),
            each.ms_count,
            each.image_count,
            duration(each.processing_time),
        )
        for each in results
    ]
    lines = [str(Table(("block", "outcome", "recordings", "images", "took"), rows, right=("recordings", "images")))]
    for each in results:
        lines += [f"{clean(node)}  {clean(path)}" for node, path in each.output_files.items()]
        lines += [click.style(f"{each.block_id}: {clean(error)}", fg="red") for error in each.errors]
    return "\n".join(lines)


# Health ------------------------------------------------------------------------------------------


def tell_health(ctx: click.Context, config: PipelineConfig, hours: float, *, as_json: bool) -> None:
    """Print what is measured, and how blocks went; exit code 1 if something is unhealthy."""
    from absurd.cli.connection import client_of
    from absurd.client import AbsurdClient
    from absurd.errors import DatabaseUnavailableError
    from absurd.tasks.pipeline.health import HealthChecker
    from absurd.tasks.pipeline.metrics import PipelineMetrics

    def status() -> Any:
        with client_of(ctx) as client:
            return client.get_status()

    async def metrics() -> PipelineMetrics:
        async with AbsurdClient(settings=settings_of(ctx)) as client:
            return await PipelineMetrics.of(client, hours)

    checks = HealthChecker(status).check_all_health(config)
    try:
        recent: dict[str, Any] | None = asyncio.run(metrics()).get_recent_metrics(hours)
    except DatabaseUnavailableError:  # the checks tell
        recent = None
    document = {"checks": [asdict(each) for each in checks], "metrics": recent}
    emit(document, as_json=as_json, text=f"{_checks(checks)}\n\n{_recent(recent)}")
    if any(each.status == "unhealthy" for each in checks):
        ctx.exit(1)


_WORDS = {"healthy": "ok", "degraded": "warn", "unhealthy": "fail"}


def _checks(checks: Sequence[HealthCheck]) -> Table:
    rows = [
        (
            each.name,
            Cell(each.status, _WORDS.get(each.status, "")),
            "" if each.value is None else f"{each.value:.3g} {each.unit}".strip(),
            clean(each.error_message or ""),
        )
        for each in checks
    ]
    return Table(("check", "status", "measured", "what is wrong"), rows, shrink="what is wrong")


def _recent(recent: dict[str, Any] | None) -> str:
    if recent is None:
        return "How blocks went is not known: the database cannot be reached."
    if not recent["blocks"]:
        return f"No block has ended in the last {recent['hours']:g} hours."
    told = f"{plural(recent['blocks'], 'block')} in the last {recent['hours']:g} hours, {recent['failed']} failed; "
    told += f"{plural(recent['recordings'], 'recording')}, {plural(recent['images'], 'image')}, "
    return told + f"{duration(recent['average_processing_time'])} a block."
