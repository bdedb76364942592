"""How fast graphs are spawned and worked through."""

from __future__ import annotations

import time

from absurd.bench.arena import Arena
from absurd.bench.figures import Figure
from absurd.errors import ExecutionError
from absurd.workflow import Node, Workflow

NOOP = "bench.noop"
WIDE = 100
"""Nodes side by side in a wide diamond."""


def diamonds(nodes: int, width: int = 2) -> Workflow:
    """A chain of diamonds: one node, `width` after it, one after these, and so on."""
    graph = Workflow(f"diamonds of {width}")
    last = graph.task(NOOP, name="0")
    made = 1
    while made + width + 1 <= nodes:
        sides = [graph.task(NOOP, name=str(made + n), after=last) for n in range(width)]
        last = graph.task(NOOP, name=str(made + width), after=sides)
        made += width + 1
    return graph


def fan(nodes: int) -> Workflow:
    """One node, all but two after it, one after these."""
    graph = Workflow("fan")
    first = graph.task(NOOP, name="first")
    middle = [graph.task(NOOP, name=str(n), after=first) for n in range(nodes - 2)]
    graph.task(NOOP, name="last", after=middle)
    return graph


def layers(nodes: int) -> Workflow:
    """As many layers as nodes in each, every node after all of the layer before."""
    width = max(1, round(nodes**0.5))
    graph = Workflow("layers")
    above: list[Node] = []
    for layer in range(max(1, nodes // width)):
        above = [graph.task(NOOP, name=f"{layer}.{n}", after=above or None) for n in range(width)]
    return graph


def measure(arena: Arena, *, nodes: int, concurrency: int) -> list[Figure]:
    """Spawn each graph in one call, and drain it with one worker process."""
    found = []
    for graph in (diamonds(nodes), diamonds(nodes, min(WIDE, nodes - 2)), fan(nodes), layers(nodes)):
        edges = sum(len(node.parents) for node in graph.nodes.values())
        with arena.paused():
            begun = time.perf_counter()
            run = arena.client.spawn_workflow(graph)
            spawned = time.perf_counter() - begun
            with arena.workers(1, concurrency):
                since = arena.now()
                arena.resume()
                arena.drained()
        ran = arena.ran(since)
        state = arena.client.get_workflow(run.id, nodes=0)["state"]
        if state != "completed" or not ran.exactly(len(graph)):
            raise ExecutionError(f"the graph {graph.name} ended {state}, with {ran.runs} runs of {len(graph)} nodes")
        title = f"{graph.name}, {len(graph):,} nodes, {edges:,} edges"
        found.append(Figure(f"{title}: spawned in", spawned, "s", higher=False))
        found.append(Figure(f"{title}: worked through", ran.rate, "nodes/s"))
    return found
