"""Exchange the functions of an installed schema for those of this release.

``create or replace`` can neither change what a function returns nor take an argument away, and it
leaves an older overload where it is: a call that fits both is then refused as ambiguous.  So the new
functions are made once on trial, behind a savepoint, to see what they are; then what stands in their
way is dropped, and they are made for good.  What they can replace keeps its identity, and with it the
views that people have built on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Cursor(Protocol):
    """What is needed of its cursors."""

    def fetchall(self) -> Sequence[Any]: ...


class Session(Protocol):
    """What is needed of a connection inside a transaction."""

    def execute(self, query: Any, params: Sequence[Any] | None = None, /) -> Cursor: ...


@dataclass(frozen=True, slots=True)
class Function:
    """A function, as calls and ``create or replace`` see it."""

    signature: str
    name: str
    arguments: tuple[str, ...]
    required: int
    shape: str
    """What ``create or replace`` cannot change: its kind, its result, the names of its arguments."""

    def replaces(self, old: Function) -> bool:
        """Whether ``create or replace`` of this one turns `old` into it."""
        return (
            (self.name, self.arguments, self.shape) == (old.name, old.arguments, old.shape)
            and self.required <= old.required  # a default cannot be taken away
        )

    def clashes(self, old: Function) -> bool:
        """Whether some call would fit both: as many arguments as both take, of the same types."""
        both = max(self.required, old.required)
        return (
            self.name == old.name
            and both <= min(len(self.arguments), len(old.arguments))
            and self.arguments[:both] == old.arguments[:both]
        )


def exchange(connection: Session, code: Sequence[str], *, keep: bool) -> None:
    """Make the functions of the schema on the search path those that the scripts `code` define.

    What they do not define any more is dropped.  With `keep` it stays for programs of the version
    before, unless some call would fit it and a new function alike, or it is private: an old helper
    would write what the new ones misread.
    """
    connection.execute("savepoint trial")
    _drop(connection, _functions(connection), "cascade")
    _run(connection, code)
    made = _functions(connection)
    connection.execute("rollback to savepoint trial")
    connection.execute("release savepoint trial")
    old = _functions(connection)
    gone = [each for each in old if not any(new.replaces(each) for new in made)]
    if keep:
        gone = [each for each in gone if each.name.startswith("_") or any(new.clashes(each) for new in made)]
    _drop(connection, gone)
    _run(connection, code)


def _functions(connection: Session) -> list[Function]:
    """The functions of the current schema, but not those of an extension that was put there."""
    rows = connection.execute(
        """
        select oid::regprocedure::text, proname, array(
                   select format_type(t, null) from unnest(proargtypes::oid[]) with ordinality a (t, n) order by n),
               pronargs - pronargdefaults,
               concat_ws(' ', prokind, pg_get_function_result(oid), proargnames, proargmodes, array(
                   select format_type(t, null) from unnest(proallargtypes) with ordinality a (t, n) order by n))
        from pg_proc
        where pronamespace = current_schema()::regnamespace
          and not exists (select from pg_depend where classid = 'pg_proc'::regclass and objid = oid and deptype = 'e')
        order by 1
        """
    ).fetchall()
    return [
        Function(signature, name, tuple(arguments), required, shape)
        for signature, name, arguments, required, shape in rows
    ]


def _drop(connection: Session, functions: Sequence[Function], rule: str = "restrict") -> None:
    if functions:  # at once: they may use one another
        connection.execute(f"drop routine {', '.join(each.signature for each in functions)} {rule}")


def _run(connection: Session, code: Sequence[str]) -> None:
    for text in code:
        connection.execute(text)
