"""Workflows as they are put together, without a database."""

from __future__ import annotations

import json
from typing import Any

import pytest

from absurd import Workflow
from absurd.errors import (
    InvalidNameError,
    InvalidOptionError,
    InvalidParamsError,
    MissingResultError,
    UnknownParentError,
)
from absurd.references import check, resolve
from absurd.workflow import Node


def spawned(workflow: Workflow) -> dict[str, dict[str, Any]]:
    """What a spawn sends, by node, with the names of nodes in the place of ids."""
    args = workflow.spawn_call("default").args
    _, _, ids, _, _, params, options = args
    read = [json.loads(each) for each in options]
    names = {str(own): each["node"] for own, each in zip(ids, read, strict=True)}

    def named(text: str) -> Any:
        for own, name in names.items():
            text = text.replace(own, name)
        return json.loads(text)

    return {
        each["node"]: {
            "params": named(given),
            "after": [names[parent] for parent in each.get("depends_on", ())],
            "when": each.get("when"),
        }
        for given, each in zip(params, read, strict=True)
    }


def test_nodes_come_after_those_named_and_those_referred_to() -> None:
    """`after` and result references in params, however deep, both make parents, each once."""
    wf = Workflow("tile")
    a = wf.task("bare.add")
    b = wf.task("bare.add", name="b")
    wf.task("demo.sum", {"deep": [{"x": a.result["list"][0]}], "y": a.result}, after=[b, a], name="c")

    sent = spawned(wf)

    assert list(sent) == ["bare.add", "b", "c"]
    assert sent["c"]["after"] == ["b", "bare.add"]
    reference = {"$result": {"task": "bare.add", "path": ["list", 0], "node": "bare.add"}}
    assert sent["c"]["params"]["deep"] == [{"x": reference}]


def test_a_map_fans_out_and_in_again() -> None:
    """A node for each of the params, in order; `.results` refers to the list of what they return."""
    wf = Workflow("tile")
    cal = wf.task("demo.cal")
    images = wf.map("demo.image", [{"n": n} for n in range(3)], after=cal, when="all_done")
    wf.task("demo.mosaic", {"images": images.results["path"]})

    sent = spawned(wf)

    assert [node.name for node in images] == ["demo.image[0]", "demo.image[1]", "demo.image[2]"]
    assert all(
        sent[node.name] | {"params": None} == {"params": None, "after": ["demo.cal"], "when": "all_done"}
        for node in images
    )
    assert sent["demo.mosaic"]["after"] == ["demo.image[0]", "demo.image[1]", "demo.image[2]"]
    assert sent["demo.mosaic"]["params"]["images"]["$results"]["path"] == ["path"]


def test_an_empty_group_holds_nobody_up() -> None:
    """What comes after an empty group comes after what the group came after: at once, if that is nothing (B87)."""
    wf = Workflow("tile")
    first = wf.task("bare.add", name="first")
    none = wf.map("demo.image", [])
    late = wf.map("demo.image", [], after=first)
    wf.task("demo.sum", {"all": none.results}, after=none, when="all_done", name="at once")
    wf.task("demo.sum", after=late, name="then")

    sent = spawned(wf)

    assert sent["at once"] == {"params": {"all": {"$results": {"tasks": [], "path": []}}}, "after": [], "when": None}
    assert sent["then"]["after"] == ["first"]
    with pytest.raises(InvalidOptionError, match="comes after nothing"):
        wf.task("demo.sum", after=none, when="any_success")


def test_an_included_workflow_is_inlined_under_a_prefix() -> None:
    """Copies of its nodes, references among them too; its roots come after `after`, the group is its leaves."""
    sub = Workflow("block")
    load = sub.task("demo.load", name="load")
    sub.task("demo.solve", {"ms": load.result["ms"]}, name="solve")
    wf = Workflow("night")
    start = wf.task("demo.start", name="start")
    one = wf.include(sub, after=start)
    two = wf.include(sub, prefix="second")
    wf.task("demo.end", {"x": two["load"].result}, after=[one, two], name="end")

    sent = spawned(wf)

    assert list(sent) == ["start", "block/load", "block/solve", "second/load", "second/solve", "end"]
    assert sent["block/load"]["after"] == ["start"]
    assert sent["second/load"]["after"] == []
    assert sent["second/solve"]["params"]["ms"]["$result"] == {
        "task": "second/load",
        "path": ["ms"],
        "node": "second/load",
    }
    assert sent["end"]["after"] == ["block/solve", "second/solve", "second/load"]
    assert len(sub) == 2
    with pytest.raises(InvalidOptionError, match="include itself"):
        wf.include(wf)


def test_no_graph_can_be_built_that_cannot_be_spawned() -> None:
    """Other workflows' nodes, names that are taken or no names, and the workflow's own options are refused (B83)."""
    wf, other = Workflow("a"), Workflow("b")
    foreign = other.task("bare.add")

    with pytest.raises(UnknownParentError, match="belongs to the workflow 'b'"):
        wf.task("bare.add", after=foreign)
    with pytest.raises(UnknownParentError, match="belongs to"):
        wf.task("bare.add", {"x": foreign.result})
    with pytest.raises(UnknownParentError, match="belongs to"):
        wf.map("bare.add", [], after=foreign)
    wf.task("bare.add", name="x")
    with pytest.raises(InvalidNameError, match="has a node 'x' already"):
        wf.task("bare.add", name="x")
    with pytest.raises(InvalidNameError, match="node name"):
        wf.task("bare.add", name="a\nb")
    with pytest.raises(InvalidNameError, match="workflow name"):
        Workflow("")
    with pytest.raises(InvalidOptionError, match="depends_on"):
        wf.task("bare.add", depends_on=[])
    with pytest.raises(InvalidOptionError, match="after is 'x'"):
        wf.task("bare.add", after="x")  # type: ignore[arg-type]
    assert list(wf.nodes) == ["x"]


def test_check_tells_what_a_spawn_would_refuse() -> None:
    """Names and options are checked in Python before anything is sent."""
    wf = Workflow("a")
    wf.task("no such name!")
    with pytest.raises(InvalidNameError, match="no such name!"):
        wf.check()


def test_a_workflow_can_be_spawned_again_under_new_ids() -> None:
    """Each spawn makes ids of its own, and references name those."""
    wf = Workflow("a")
    wf.task("demo.sum", {"x": wf.task("bare.add").result})
    first, second = wf.spawn_call("default"), wf.spawn_call("default")
    assert {first.args[0], *first.args[2]}.isdisjoint({second.args[0], *second.args[2]})
    assert all(str(each.args[2][0]) in each.args[5][1] for each in (first, second))


def test_a_result_reference_is_no_sequence() -> None:
    """Iterating over one raises at once instead of never ending, and only texts and numbers lead into it."""
    node: Node = Workflow("a").task("bare.add")
    with pytest.raises(TypeError):
        list(node.result)  # type: ignore[call-overload]
    with pytest.raises(InvalidOptionError, match="cannot lead"):
        node.result[1.5]  # type: ignore[index]


TASK = "0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e"


def test_references_are_resolved_from_results() -> None:
    """One, several, at any depth, with a path or whole; a null that stands there is a value (B88)."""
    one = {"$result": {"task": TASK, "path": ["a", -1]}}
    many = {"$results": {"tasks": [TASK, TASK], "path": ["b"]}}
    assert resolve({"x": [one, 1], "y": many}, {TASK: {"a": [1, 2], "b": None}}) == {"x": [2, 1], "y": [None, None]}
    assert resolve({"$result": {"task": TASK}}, {TASK: None}) is None


@pytest.mark.parametrize(
    ("path", "result"),
    [(["b"], {"a": 1}), ([3], [1, 2]), ([0], "text"), (["a"], [1]), (["a", "b"], {"a": None}), ([0], {"a": 1})],
)
def test_what_is_not_there_is_named(path: list[str | int], result: Any) -> None:
    """The error names node, path and what was found instead."""
    reference = {"$result": {"task": TASK, "path": path, "node": "cal"}}
    with pytest.raises(MissingResultError, match=r"the node 'cal'.*there is no"):
        resolve({"x": reference}, {TASK: result})
    with pytest.raises(MissingResultError, match=r"the node 'cal'.*has not completed"):
        resolve({"x": reference}, {})


@pytest.mark.parametrize(
    "bad",
    [
        {"$result": 1},
        {"$result": {"task": "x", "path": []}},
        {"$result": {"task": TASK, "path": [1.5]}},
        {"$result": {"task": TASK, "path": "a"}},
        {"$result": {"task": TASK}, "more": 1},
        {"$results": {"task": TASK}},
        {"$result": {"task": TASK, "way": []}},
    ],
)
def test_a_malformed_reference_is_refused(bad: Any) -> None:
    """It is told what one looks like."""
    with pytest.raises(InvalidParamsError, match="no reference to a result"):
        check({"x": [bad]}, {TASK})


def test_a_reference_to_a_task_that_is_no_parent_is_refused() -> None:
    """Its result might not be there when the run begins."""
    with pytest.raises(InvalidParamsError, match="not in depends_on"):
        check({"$result": {"task": TASK}}, set())


def test_a_root_that_is_included_keeps_its_condition() -> None:
    """It came after an empty group where it was made; where it is included, after a node: then its condition holds."""
    inner = Workflow("inner")
    inner.task("bare.add", after=inner.map("bare.add", []), name="root", when="all_done")
    outer = Workflow("outer")
    first = outer.task("bare.add", name="first")
    [root] = outer.include(inner, after=first)
    alone = Workflow("alone")
    [free] = alone.include(inner)

    assert (root.parents, root.options.get("when")) == ((first,), "all_done")
    assert free.parents == ()
    assert "all_done" in str(outer.spawn_call("default").args)
    assert "all_done" not in str(alone.spawn_call("default").args)
