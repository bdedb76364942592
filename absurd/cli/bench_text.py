"""What `absurd bench` prints: tables of figures, and of contestants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from absurd.cli.output import Table, clean, plural, size

if TYPE_CHECKING:
    from absurd.bench.export import Comparison
    from absurd.bench.figures import Figure, Report


def query_text(found: Comparison, query: str) -> str:
    """The contestants of a query, with what failed and who is best."""
    from absurd.bench.export import FLOOR, OURS

    ours, floor, best = found.of(query, OURS), found.of(query, FLOOR), found.best_peer(query)
    headers = ["contestant", "wall s", "CPU s", "server CPU s", "memory", "file", "to ours", "to COPY"]
    results = [each for each in found.results if each.query == query]
    rows = [
        [
            each.contestant,
            f"{each.wall:.2f}",
            f"{each.cpu:.2f}",
            None if each.server_cpu is None else f"{each.server_cpu:.2f}",
            size(each.peak or None),
            size(each.size or None),
            f"{each.wall / ours.wall:.2f}" if ours else None,
            f"{each.wall / floor.wall:.2f}" if floor else None,
        ]
        for each in results
        if each.failed is None
    ]
    told = f"{query}, {plural(found.rows[query], 'row')}\n{Table(headers, rows, right=headers[1:])}"
    for each in results:
        if each.failed is not None:
            told += f"\n{each.contestant} fails: {clean(each.failed)[:200]}"
    if ours and best:
        told += f"\nThe best peer, {best.contestant}, takes {best.wall / ours.wall:.2f} times as long as {OURS}."
    return told


def report_text(made: Report, before: dict[tuple[str, str], float]) -> str:
    """The figures, beside those of an earlier report if there are any, and on what machine they were measured."""
    from absurd.bench.figures import change

    headers, right = ["figure", "value", "unit"], ["value"]
    rows: list[list[Any]] = [[each.name, value_text(each), each.unit] for each in made.figures]
    if before:
        headers += ["before", "change"]
        right.append("before")
        for row, each in zip(rows, made.figures, strict=True):
            old = before.get((made.benchmark, each.name))
            row += ["" if old is None else _number(old), change(each, old)]
    return f"{Table(headers, rows, right=right)}\n\n{machine_text(made)}"


def machine_text(made: Report) -> str:
    """How often, on what machine and with which programs it was measured."""
    machine = made.machine
    server = f"PostgreSQL {machine['postgresql']}, " if machine["postgresql"] else ""
    return (
        f"{plural(made.rounds, 'round')}, {plural(machine['cores'], 'core')}, {machine['system']}, {server}"
        f"Python {machine['python']}, absurd {machine['absurd']}"
    )


def value_text(figure: Figure) -> str:
    """A value with as many digits as it is worth."""
    return _number(figure.value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
