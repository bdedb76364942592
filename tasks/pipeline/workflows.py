"""What is done with a block, as graphs of tasks: a function from configuration and block to a workflow (pure).

Each stage is an executor, given the params that the configuration has for it.  A task's key follows from its params and
from the tasks it comes after: what two blocks have in common is done once, and what was done is not done again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple

from absurd.tasks.pipeline.blocks import ProcessingBlock
from absurd.tasks.pipeline.config import PipelineConfig
from absurd.tasks.pipeline.stages import stage_params
from absurd.tasks.radio.errors import ValidationError
from absurd.workflow import Group, Node, ResultReference, Workflow

REPORT = "report"
"""The last node of each block."""
QUORUM = 0.75
"""Share of a block's images without which there is no mosaic."""
GATES: Mapping[str, str] = {"imaging.image": "qa.image", "imaging.mosaic": "qa.mosaic"}
"""Executors that judge what a stage has made, by the stage's; they take its path as ``image``, and where it passes hand
on its ``paths``, by which a mosaic knows its tiles."""


class Made(NamedTuple):
    """A product."""

    node: Node
    """What makes it, whose result tells of it."""
    passed: Node
    """What comes before whoever uses it: its gate, else the same node."""


class _Stages:
    """The nodes of a block's workflow as they are put together."""

    def __init__(self, config: PipelineConfig, block: ProcessingBlock, name: str, salt: str) -> None:
        self.config, self.block, self.name = config, block, name
        self.workflow = Workflow(f"{name} {block.block_id}")
        self._salt = salt
        self._keys: dict[Node, str] = {}

    def add(
        self,
        executor: str,
        of: str | None,
        about: Mapping[str, Any],
        *,
        after: Iterable[Node] = (),
        when: str = "all_success",
        version: str = "",
    ) -> Node:
        """A node that runs a stage by the configuration, `about` a recording or the block.

        Roots come after the block that has their place before them, however that ends.
        """
        node_params = {**stage_params(self.config, executor), **about}
        parents = tuple(dict.fromkeys(after))
        key = self._key(executor, node_params, parents, version)
        name = executor if of is None else f"{executor}[{of}]"
        is_root = not parents and not _refers(node_params)
        node = self.workflow.task(
            executor,
            node_params,
            after=parents,
            name=name,
            when="all_done" if is_root else when,
            key=key,
            headers={"node": name},
            tags=[self.block.block_id],
        )
        self._keys[node] = key
        return node

    def judged(self, node: Node, of: str | None, image: ResultReference) -> Made:
        """What a node makes, and the gate that it has to pass, if there is one for its stage."""
        gate = GATES.get(str(node.executor))
        if gate is None:
            return Made(node, node)
        return Made(node, self.add(gate, of, {"image": image}, after=[node]))

    def report(self) -> Workflow:
        """The workflow, with its last node: it tells what became of all others."""
        nodes = list(self.workflow.nodes.values())
        block = self.block
        about = {
            "block": block.block_id,
            "workflow": self.name,
            "start": block.start_time.astimezone(UTC).isoformat(),
            "end": block.end_time.astimezone(UTC).isoformat(),
            "recordings": len(block.ms_files),
            "missing": block.missing,
        }
        key = self._key("pipeline.report", about, nodes, "")
        self.workflow.task(
            "pipeline.report",
            about,
            after=nodes,
            when="all_done",
            name=REPORT,
            key=key,
            headers={"node": REPORT},
            tags=[block.block_id],
        )
        return self.workflow

    def _key(self, executor: str, params: Any, parents: Sequence[Node], version: str) -> str:
        def told(reference: Any) -> Any:
            return {"nodes": [self._keys[each] for each in reference.nodes], "path": reference.path}

        content = [executor, params, [self._keys[each] for each in parents], version, self._salt]
        text = json.dumps(content, sort_keys=True, default=told)
        return f"pipeline.{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    # Stages of a recording -----------------------------------------------------------------------

    def flagged(self, ms_files: Sequence[str] | None = None, **about: Any) -> dict[str, Node]:
        """Each recording, or some, flagged, by path."""
        versions = dict(zip(self.block.ms_files, self.block.versions, strict=False))
        return {
            ms: self.add("visibility.flag", Path(ms).stem, {"ms": ms, **about}, version=versions.get(ms, ""))
            for ms in (self.block.ms_files if ms_files is None else ms_files)
        }

    def calibrated(self, flagged: Mapping[str, Node]) -> list[Node]:
        """Gains of each recording that shows a calibrator, judged."""
        nodes = []
        for ms in self.block.calibrators:
            name = Path(ms).stem
            solved = self.add("calibration.solve", name, {"ms": ms}, after=[flagged[ms]])
            about = {"ms": ms, "gain_set": solved.result["gain_set"]}
            nodes.append(self.add("qa.calibration", name, about, after=[solved]))
        return nodes

    def imaged(self, flagged: Mapping[str, Node], gains: Sequence[Node] = ()) -> dict[str, Made]:
        """An image of each recording, corrected by the nearest gains that hold, by the recording's name."""
        nodes = {}
        for ms in self.block.ms_files:
            name = Path(ms).stem
            applied = self.add("calibration.apply", name, {"ms": ms}, after=[flagged[ms], *gains])
            about = {"ms": ms, "column": "CORRECTED_DATA", "out": self._own("imaging.image", name)}
            image = self.add("imaging.image", name, about, after=[applied])
            nodes[name] = self.judged(image, name, image.result["paths"]["image"])
        return nodes

    # Stages of a block ---------------------------------------------------------------------------

    def measured(self, images: Mapping[str, Made], *, mosaics: bool = True) -> list[Node]:
        """Sources of the mosaic of images, measured in each of them; without a mosaic each image by itself.

        Raises ValidationError for images of several planes.
        """
        if self.config.imaging.planes > 1:
            raise ValidationError(
                f"imaging.planes = {self.config.imaging.planes}: sources are measured in images of one plane",
                advice="take planes = 1, or workflow quick-imaging",
            )
        if not (mosaics and stage_params(self.config, "pipeline run")["mosaics"]):
            return self._measured_alone(images)
        block = self.block.block_id
        least = max(1, math.ceil(QUORUM * len(images)))
        mosaic = self.add(
            "imaging.mosaic",
            None,
            {"out": self._own("imaging.mosaic", block), "least_tiles": least},
            after=[each.passed for each in images.values()],
            when="all_done",  # and not the quorum itself, which would begin without the last images
        )
        made = self.judged(mosaic, None, mosaic.result["path"])
        return [self._forced(None, block, made, mosaic.result["path"], mosaic.result["images"])]

    def _measured_alone(self, images: Mapping[str, Made]) -> list[Node]:
        """Sources of each image, measured in it."""
        seen = "pbcor" if self.config.imaging.pbcor else "image"
        return [
            self._forced(name, name, each, each.node.result["paths"][seen], [each.node.result["paths"][seen]])
            for name, each in images.items()
        ]

    def _forced(self, of: str | None, name: str, made: Made, image: ResultReference, measured: Any) -> Node:
        about = {"image": image, "out": self._own("photometry.detect", name)}
        found = self.add("photometry.detect", of, about, after=[made.passed])
        return self.add(
            "photometry.forced",
            of,
            {"positions": found.result["path"], "images": measured, "out": self._own("photometry.forced", name)},
        )

    def changes(self, measured: Sequence[Node]) -> Node:
        """Which sources change within the block."""
        block, stage = self.block.block_id, "photometry.variability"
        about = {
            "photometry": [each.result["path"] for each in measured],
            "out": self._own(stage, block),
            "light_curves": self._own(stage, block, "light_curves"),
        }
        return self.add(stage, None, about)

    def _own(self, stage: str, name: str, param: str = "out") -> str:
        """Where the stage puts what it makes under a name."""
        return str(Path(stage_params(self.config, stage)[param]).with_stem(name))


def _refers(params: Any) -> bool:
    if isinstance(params, Mapping):
        return any(map(_refers, params.values()))
    if isinstance(params, list | tuple):
        return any(map(_refers, params))
    return isinstance(params, ResultReference)


def _standard(stages: _Stages) -> None:
    """Flag, solve and judge where a calibrator is seen, apply, image, mosaic, find and measure sources."""
    flagged = stages.flagged()
    stages.measured(stages.imaged(flagged, stages.calibrated(flagged)))


def _quick_imaging(stages: _Stages) -> None:
    """Flag single samples, apply the gains that there are, image."""
    stages.imaged(stages.flagged(strategy="quick", steps={}))


def _calibrator(stages: _Stages) -> None:
    """Flag the recordings that show a calibrator, solve and judge their gains."""
    if not stages.block.calibrators:
        raise ValidationError(
            f"no recording of block {stages.block.block_id} shows a calibrator that is known",
            advice="put lists of calibrators into paths.skymodels_dir, or take another block",
        )
    stages.calibrated(stages.flagged(stages.block.calibrators))


def _target(stages: _Stages) -> None:
    """Flag, apply the gains that there are, image, find and measure the sources of each image."""
    stages.measured(stages.imaged(stages.flagged()), mosaics=False)


def _ingestion(stages: _Stages) -> None:
    """Look at the folder in which sub-bands arrive, and have complete groups converted."""
    stages.add("visibility.ingest", None, {}, version=stages.block.block_id)  # each look is another one


def _nightly_mosaic(stages: _Stages) -> None:
    """Flag, apply the gains that there are, image, mosaic, find and measure sources, tell which change."""
    stages.changes(stages.measured(stages.imaged(stages.flagged())))


def _night(stages: _Stages) -> None:
    """All of `standard`, and which sources change."""
    flagged = stages.flagged()
    stages.changes(stages.measured(stages.imaged(flagged, stages.calibrated(flagged))))


WORKFLOWS: Mapping[str, Callable[[_Stages], None]] = {
    "standard": _standard,
    "quick-imaging": _quick_imaging,
    "calibrator": _calibrator,
    "target": _target,
    "ingestion": _ingestion,
    "nightly-mosaic": _nightly_mosaic,
    "night": _night,
}
"""What each adds to a block's workflow."""
CALIBRATED = {"standard", "calibrator", "night"}
"""Those that solve gains of the recordings that show a calibrator."""


def block_workflow(
    config: PipelineConfig, block: ProcessingBlock, name: str = "standard", *, salt: str = ""
) -> Workflow:
    """What is done with a block by the workflow of a name; the last node tells what came of it.

    Another `salt` makes other keys, by which all is done again.  Raises ValidationError.
    """
    if name not in WORKFLOWS:
        raise ValidationError(f"there is no workflow {name!r}", advice=f"take {', '.join(WORKFLOWS)}")
    stages = _Stages(config, block, name, salt)
    WORKFLOWS[name](stages)
    return stages.report()


def batch_workflow(
    config: PipelineConfig, blocks: Sequence[ProcessingBlock], name: str = "standard", *, at_once: int, salt: str = ""
) -> Workflow:
    """What is done with blocks, no more than `at_once` of them at a time: a block begins when one before has ended.

    Its nodes are named ``BLOCK_ID/NODE``.  Raises ValidationError.
    """
    if not blocks:
        raise ValidationError("there are no blocks", advice="look for another time, or into another folder")
    whole = Workflow(f"{name} {blocks[0].block_id}" + (f" and {len(blocks) - 1} more" if len(blocks) > 1 else ""))
    ends: list[Node] = []
    for number, block in enumerate(blocks):
        before = [ends[number - at_once]] if number >= at_once else None
        included: Group = whole.include(
            block_workflow(config, block, name, salt=salt), after=before, prefix=block.block_id
        )
        ends.append(included[REPORT])
    return whole
