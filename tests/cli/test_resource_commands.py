"""``absurd resource``, and where other commands tell what is needed and held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from packing import Site

if TYPE_CHECKING:
    from cli.conftest import Run

Connection = psycopg.Connection[tuple[object, ...]]


def test_resources_are_set_listed_and_removed(run: Run, connection: Connection) -> None:
    """The total may be changed; the list tells who holds and how many wait; an unknown name is not found."""
    assert run("resource", "list").out == "Nothing is shared; `absurd resource set NAME TOTAL` tells what is.\n"
    assert run("resource", "set", "licence:casa", "2", "--json").document == {"name": "licence:casa", "total": 2}
    assert run("resource", "set", "licence:casa", "1.5").out == "All workers share 1.5 licence:casa.\n"
    site = Site(connection)
    tasks = [site.spawn(needs={"licence:casa": 1}) for _ in range(2)]
    assert site.take(site.add({})) == tasks[:1]

    assert run("resource", "list", "--json").document == [
        {"name": "licence:casa", "total": 1.5, "held": 1, "tasks": [str(tasks[0])], "waiting": 1}
    ]
    assert run("resource", "list").out.splitlines()[1].split() == ["licence:casa", "1.5", "1", "1", str(tasks[0])]
    assert run("resource", "remove", "licence:casa", "--json").document == {"name": "licence:casa", "removed": True}
    again = run("resource", "remove", "licence:casa")
    assert (again.code, "there is no shared resource called 'licence:casa'" in again.err) == (3, True)


def test_wrong_resources_are_refused(run: Run) -> None:
    """A name that none may have, a file's, and a total below 0: usage, with the value."""
    for name, total, told in (("a b", "1", "'a b'"), ("file:/a", "1", "'file:/a'"), ("a", "nan", "nan")):
        refused = run("resource", "set", name, total)
        assert (refused.code, told in refused.err) == (2, True), refused


def test_workers_show_what_is_held(run: Run, connection: Connection) -> None:
    """Beside how many slots are busy, of what is offered; the document has both."""
    site = Site(connection)
    worker = site.add({"cpu": 4})
    site.spawn(needs={"cpu": 1.5})
    site.take(worker)

    assert "1/4 (cpu 1.5/4)" in run("worker", "list").out
    shown = next(each for each in run("worker", "list", "--json").document if each["id"] == worker)
    assert (shown["offers"], shown["held"]) == ({"cpu": 4}, {"cpu": 1.5})


def test_an_executor_shows_its_needs(run: Run) -> None:
    """With its name and amount; and where it has none."""
    assert "needs nothing in particular" in " ".join(run("executor", "show", "cli.add").out.split())
    assert "needs cpu 2, memory_gib 0.5" in " ".join(run("executor", "show", "cli.heavy").out.split())
    assert run("executor", "show", "cli.heavy", "--json").document["needs"] == {"cpu": 2, "memory_gib": 0.5}
