"""Executors whose runs are traced: one that spawns another from a process of its own."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace

from absurd import RetryPolicy, executor


@executor("traced.spawning", runs_in="process", retry=RetryPolicy(max_attempts=2, base=0.0))
def spawning(ctx: Any, params: dict[str, Any]) -> None:
    """Fail once, then spawn."""
    if ctx.attempt == 1:
        raise ValueError("not the first time")
    ctx.spawn("traced.spawned", {"thread": True})
    ctx.spawn("traced.in_loop", {})


@executor("traced.spawned", runs_in="thread")
def spawned(ctx: Any, params: dict[str, Any]) -> None:
    """Make a span of its own."""
    with trace.get_tracer("own").start_as_current_span("own"):
        pass


@executor("traced.in_loop", runs_in="loop")
async def in_loop(ctx: Any, params: dict[str, Any]) -> None:
    """Add to the span of the run."""
    trace.get_current_span().set_attribute("seen", "by the executor")
