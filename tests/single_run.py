"""One run of a shipped executor in this process, without a worker."""

from __future__ import annotations

import json
from typing import Any

from memory_port import MemoryPort, claim_of

from absurd.context import RunContext, run_here
from absurd.executor import load_modules, registry
from absurd.outcome import Completed, Failed
from absurd.retry import RetryPolicy
from absurd.tasks import EXECUTOR_MODULES
from absurd.workers.runs.artifacts import publish
from absurd.workers.runs.execution import Defaults, run_sync

load_modules(list(EXECUTOR_MODULES), shipped=False)


def run(name: str, params: dict[str, Any], port: MemoryPort | None = None) -> tuple[dict[str, Any], list[str]]:
    """Run to completion: the result, and the kinds of the files, which are then in place."""
    outcome = run_to_end(name, params, port or MemoryPort())
    assert isinstance(outcome, Completed), outcome
    for artifact in outcome.artifacts:
        publish(artifact)
    return json.loads(outcome.result or "null"), [artifact.kind for artifact in outcome.artifacts]


def run_with_products(name: str, params: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run to completion: the result, and what it told of its products."""
    outcome = run_to_end(name, params, MemoryPort())
    assert isinstance(outcome, Completed), outcome
    for artifact in outcome.artifacts:
        publish(artifact)
    return json.loads(outcome.result or "null"), list(outcome.products)


def fail(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Run to failure: the error as it is stored."""
    outcome = run_to_end(name, params, MemoryPort())
    assert isinstance(outcome, Failed), outcome
    return outcome.error


def run_to_end(name: str, params: dict[str, Any], port: MemoryPort) -> Any:
    """Run, and give the outcome, whatever it is."""
    claim = claim_of(name, params)
    return run_sync(RunContext(claim, port, run_here), claim, registry.require(name), Defaults(RetryPolicy(), None))
