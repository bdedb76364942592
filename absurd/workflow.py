"""Graphs of tasks, put together in Python and spawned as one (pure).

Nodes can only refer to nodes made before them, so that no cycle can be built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack
from uuid import UUID

from absurd.call import Call
from absurd.errors import InvalidNameError, InvalidOptionError, UnknownParentError
from absurd.executor import Executor
from absurd.middleware import SpawnMiddleware, through
from absurd.model import TaskSpec
from absurd.queue import Spawned, new_task_id, spawn_workflow
from absurd.references import MANY, ONE
from absurd.spawning import SpawnOptions, prepare

LONGEST_NAME = 500


class ResultReference:
    """The result of a node, or of each node of a group, as a value inside params.

    ``node.result["path"][0]`` goes into it.  The task that is given one depends on the node.
    """

    __slots__ = ("many", "nodes", "path")
    __iter__ = None  # else an endless sequence

    def __init__(self, nodes: tuple[Node, ...], path: tuple[str | int, ...] = (), *, many: bool = False) -> None:
        self.nodes = nodes
        self.path = path
        self.many = many

    def __getitem__(self, key: str | int) -> ResultReference:
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise InvalidOptionError(f"{key!r} cannot lead into a result; it must be a text or a whole number")
        return ResultReference(self.nodes, (*self.path, key), many=self.many)

    def __repr__(self) -> str:
        names = ", ".join(node.name for node in self.nodes)
        return f"<result of {names}{''.join(f'[{each!r}]' for each in self.path)}>"

    def to_json(self, ids: Mapping[Node, str]) -> dict[str, Any]:
        """The reference as params hold it."""
        if self.many:
            return {MANY: {"tasks": [ids[node] for node in self.nodes], "path": list(self.path)}}
        return {ONE: {"task": ids[self.nodes[0]], "path": list(self.path), "node": self.nodes[0].name}}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A task of a workflow that is being put together."""

    workflow: Workflow = field(repr=False)
    name: str
    executor: str | Executor[Any]
    params: Any = field(repr=False)
    parents: tuple[Node, ...] = field(repr=False)
    options: SpawnOptions = field(repr=False)

    @property
    def result(self) -> ResultReference:
        """A stand-in for what the node will return, for the params of other nodes."""
        return ResultReference((self,))


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Nodes that are named together: ``after=group`` is after all of them.

    What comes after an empty group comes after what the group itself would have come after.
    """

    nodes: tuple[Node, ...]
    after: tuple[Node, ...] = field(default=(), repr=False)
    members: Mapping[str, Node] = field(default_factory=dict, repr=False)

    @property
    def results(self) -> ResultReference:
        """A stand-in for the list of what the nodes will return, in their order."""
        return ResultReference(self.nodes, many=True)

    def __getitem__(self, key: str | int) -> Node:
        """A node by its place in the group; one of an included workflow by its name there."""
        return self.members[key] if isinstance(key, str) else self.nodes[key]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)


After = Node | Group | Iterable[Node | Group] | None
"""What a node comes after."""


@dataclass(frozen=True, slots=True)
class WorkflowRun:
    """A workflow that was spawned."""

    id: UUID
    tasks: dict[str, UUID]
    """Ids of the tasks by the names of their nodes."""


class Workflow:
    """A graph of tasks under a name.  It can be spawned any number of times."""

    def __init__(self, name: str) -> None:
        self.name = _checked("workflow", name)
        self.nodes: dict[str, Node] = {}
        self._tried: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def task(
        self,
        executor: str | Executor[Any],
        params: Any = None,
        *,
        after: After = None,
        name: str | None = None,
        **options: Unpack[SpawnOptions],
    ) -> Node:
        """Add a node that runs once its parents have ended as the option `when` says.

        These are the nodes of `after`, and those whose results the params hold.  `name` defaults to the
        executor's, with a number if that is taken.  The options are those of a spawn.
        Raises InvalidNameError, InvalidOptionError, UnknownParentError for another workflow's node.
        """
        parents = self._parents(after, params)
        return self._add(executor, params, parents, self._conditioned(options, parents, after), name)

    def map(
        self,
        executor: str | Executor[Any],
        params: Iterable[Any],
        *,
        after: After = None,
        name: str | None = None,
        **options: Unpack[SpawnOptions],
    ) -> Group:
        """Add a node for each of `params`; they are named ``name[0]``, ``name[1]`` and so on."""
        base = self._free(name or _name_of(executor), "{}[0]")
        given = _flatten(after)
        self._check_own(given)
        nodes = []
        for place, each in enumerate(params):
            parents = self._parents(given, each)
            own = self._conditioned(options, parents, after)
            nodes.append(self._add(executor, each, parents, own, f"{base}[{place}]"))
        return Group(tuple(nodes), given)

    def include(self, workflow: Workflow, *, after: After = None, prefix: str | None = None) -> Group:
        """Add copies of all nodes of another workflow, named ``prefix/node``.

        Those without parents come after `after`.  The group holds the nodes that nothing in it comes
        after, in order; ``group["name"]`` is any of them by its name there.
        """
        if workflow is self:
            raise InvalidOptionError(f"workflow {self.name!r} cannot include itself", option="workflow")
        base = prefix if prefix is not None else self._free(workflow.name, "{}/")
        given = _flatten(after)
        self._check_own(given)
        copies: dict[Node, Node] = {}
        for node in workflow.nodes.values():
            parents = tuple(copies[each] for each in node.parents) or given
            params = _replaced(
                node.params, lambda old: ResultReference(tuple(copies[n] for n in old.nodes), old.path, many=old.many)
            )
            copies[node] = self._add(node.executor, params, parents, node.options, f"{base}/{node.name}")
        inner = {parent for node in workflow.nodes.values() for parent in node.parents}
        leaves = tuple(copy for node, copy in copies.items() if node not in inner)
        return Group(leaves, given, {node.name: copy for node, copy in copies.items()})

    def check(self) -> None:
        """Raise what a spawn of the workflow would raise in Python: for names, params and options."""
        self.spawn_call("default")

    def spawn_call(self, default_queue: str, middleware: Sequence[SpawnMiddleware] = ()) -> Call[WorkflowRun]:
        """The call that spawns the workflow, under ids made now; each task goes through `middleware`."""
        run_id = new_task_id()
        nodes = list(self.nodes.values())
        ids = {node: new_task_id() for node in nodes}
        texts = {node: str(each) for node, each in ids.items()}
        spawns = [
            prepare(
                through(
                    TaskSpec(
                        node.executor,
                        _replaced(node.params, lambda reference: reference.to_json(texts)),
                        **node.options  # type: ignore[arg-type]
                        | {
                            "depends_on": [texts[each] for each in node.parents],
                            "workflow": str(run_id),
                            "node": node.name,
                        }
                        | ({} if node.parents else {"when": None}),
                    ),
                    middleware,
                ),
                default_queue,
                ids[node],
            )
            for node in nodes
        ]
        call = spawn_workflow(run_id, self.name, spawns)

        def decode(rows: Any) -> WorkflowRun:
            spawned: Sequence[Spawned] = call.decode(rows)
            return WorkflowRun(run_id, {node.name: each.id for node, each in zip(nodes, spawned, strict=True)})

        return Call(call.sql, call.args, decode)

    def _add(
        self,
        executor: str | Executor[Any],
        params: Any,
        parents: tuple[Node, ...],
        options: SpawnOptions,
        name: str | None,
    ) -> Node:
        for each in ("depends_on", "workflow", "node"):
            if each in options:
                raise InvalidOptionError(f"option {each} is the workflow's own to set; use after and name", option=each)
        if name is None:
            name = self._free(_name_of(executor))
        elif name in self.nodes:
            raise InvalidNameError(f"workflow {self.name!r} has a node {name!r} already", name=name)
        node = Node(self, _checked("node", name), executor, params, parents, options)
        self.nodes[name] = node
        return node

    def _parents(self, after: After, params: Any) -> tuple[Node, ...]:
        """The nodes of `after` and those whose results stand in `params`, each once."""
        found = dict.fromkeys(_flatten(after))
        for reference in _references(params):
            found.update(dict.fromkeys(reference.nodes))
        self._check_own(found)
        return tuple(found)

    def _check_own(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.workflow is not self:
                raise UnknownParentError(
                    f"node {node.name!r} belongs to the workflow {node.workflow.name!r}, "
                    f"not to {self.name!r}; include that one"
                )

    def _conditioned(self, options: SpawnOptions, parents: tuple[Node, ...], after: After) -> SpawnOptions:
        """`options`, whose `when` fits who is waited for.  All of nobody have ended, and well."""
        when = options.get("when")
        if when is None or parents or (after is not None and when in ("all_success", "all_done")):
            return options
        raise InvalidOptionError(f"option when is {when!r}, but the node comes after nothing", option="when")

    def _free(self, name: str, form: str = "{}") -> str:
        """`name`, with a number if a node that begins so exists."""
        # From where the last search ended: from 1 each time, ten thousand nodes of a name take seconds.
        number = self._tried.get(form.format(name), 1)
        unique = name if number == 1 else f"{name}#{number}"
        while form.format(unique) in self.nodes or (
            form == "{}/" and any(each.startswith(f"{unique}/") for each in self.nodes)
        ):
            number += 1
            unique = f"{name}#{number}"
        self._tried[form.format(name)] = number
        return unique


def _name_of(executor: str | Executor[Any]) -> str:
    return executor.name if isinstance(executor, Executor) else executor


def _checked(kind: str, name: str) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidNameError(
            f"{kind} name {name!r:.100} is not a text of 1 to {LONGEST_NAME} printable characters", name=name
        )
    return name


def _flatten(after: After) -> tuple[Node, ...]:
    """The nodes of `after`, each once; of an empty group those that it came after itself."""
    if after is None:
        return ()
    if isinstance(after, Node):
        return (after,)
    if isinstance(after, Group):
        return after.nodes or after.after
    if isinstance(after, str | Mapping) or not isinstance(after, Iterable):
        raise InvalidOptionError(
            f"option after is {after!r:.100}; it must be nodes or groups of the workflow", option="after"
        )
    return tuple(dict.fromkeys(node for each in after for node in _flatten(each)))


def _references(params: Any) -> Iterator[ResultReference]:
    if isinstance(params, ResultReference):
        yield params
    elif isinstance(params, Mapping):
        for each in params.values():
            yield from _references(each)
    elif isinstance(params, list | tuple):
        for each in params:
            yield from _references(each)


def _replaced(params: Any, form: Callable[[ResultReference], Any]) -> Any:
    """`params` with `form` of every reference in it; what holds none stays the object it is."""
    if isinstance(params, ResultReference):
        return form(params)
    if next(_references(params), None) is None:
        return params
    if isinstance(params, Mapping):
        return {key: _replaced(each, form) for key, each in params.items()}
    return [_replaced(each, form) for each in params]
