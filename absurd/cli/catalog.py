"""Which executors there are: registered by workers, or importable in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from absurd.errors import UnknownExecutorError

if TYPE_CHECKING:
    from absurd.config import Settings
    from absurd.executor import Executor


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """An executor as far as it is known."""

    name: str
    queue: str | None
    runs_in: str | None
    description: str
    max_attempts: int | None
    timeout: float | None
    """Seconds; None for no limit of its own."""
    needs: dict[str, float]
    """What its tasks hold while they run, unless their spawn says otherwise."""
    params_schema: dict[str, Any]
    registered: bool
    """Whether a worker has registered it."""
    importable: bool
    """Whether this process can import it."""

    def document(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return dataclasses.asdict(self)


def with_modules(settings: Settings, modules: Sequence[str]) -> Settings:
    """`settings` with more modules to import."""
    return dataclasses.replace(settings, imports=(*settings.imports, *modules)) if modules else settings


def load_here(settings: Settings) -> list[str]:
    """Import executors into this process; returns a sentence for each shipped module that cannot be imported."""
    from absurd.executor import load_modules

    return load_modules(list(settings.imports))


def known_executors(rows: Iterable[dict[str, Any]]) -> list[Known]:
    """The executors imported here and those that workers registered (`rows`), by name."""
    from absurd.executor import registry

    registered = {row["name"]: row for row in rows}
    found = [_imported(each, each.name in registered) for each in registry]
    found += [_registered(row) for name, row in registered.items() if name not in registry]
    return sorted(found, key=lambda each: each.name)


def unknown(name: str, known: Iterable[str], missing: Sequence[str]) -> UnknownExecutorError:
    """The error that names near executors, and which of the shipped ones could not be imported."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else "`absurd executor list` shows the known ones"
    absent = [f"; {sentence}" for sentence in missing if f".{name.partition('.')[0]}." in sentence]
    return UnknownExecutorError(
        f"no worker has registered the executor {name!r} and no module imported here defines it"
        f"{''.join(absent)}; {hint}",
        name=name,
        near=near,
    )


def _imported(each: Executor, registered: bool) -> Known:
    return Known(
        name=each.name,
        queue=each.queue,
        runs_in=each.runs_in,
        description=each.description,
        max_attempts=each.retry.max_attempts if each.retry else None,
        timeout=each.timeout,
        needs=dict(each.needs or {}),
        params_schema=each.params_schema(),
        registered=registered,
        importable=True,
    )


def _registered(row: dict[str, Any]) -> Known:
    return Known(
        name=row["name"],
        queue=row["queue"],
        runs_in=row["runs_in"],
        description=row["description"] or "",
        max_attempts=row["max_attempts"],
        timeout=row["timeout"],
        needs=row.get("needs") or {},
        params_schema=row["params_schema"] or {"type": "object"},
        registered=True,
        importable=False,
    )
