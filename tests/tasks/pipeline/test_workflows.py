"""What is done with a block: graphs of stages, as functions of configuration and block."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from absurd.cli.pipeline_blocks import WORKFLOWS as OFFERED
from absurd.tasks.pipeline import ProcessingBlock, ValidationError, block_workflow, load_pipeline_config
from absurd.tasks.pipeline.workflows import WORKFLOWS, batch_workflow
from absurd.workflow import Workflow

BEGIN = datetime(2026, 1, 15, 8, tzinfo=UTC)


def block(*names: str, number: int = 0, calibrators: tuple[str, ...] = ()) -> ProcessingBlock:
    start = BEGIN + timedelta(hours=number)
    return ProcessingBlock(start, start + timedelta(hours=1), tuple(f"/ms/{each}.ms" for each in names), 0, calibrators)


def graph(workflow: Workflow) -> dict[str, list[str]]:
    """Each node but the report, with what it comes after."""
    nodes = {name: [each.name for each in node.parents] for name, node in workflow.nodes.items()}
    assert nodes.pop("report") == list(nodes)
    return nodes


def made(name: str, *blocks: ProcessingBlock, **overrides: Any) -> Workflow:
    return block_workflow(load_pipeline_config("testing", overrides=overrides), blocks[0], name)


def test_the_standard_workflow() -> None:
    """Gains of what shows a calibrator come before all are corrected; the mosaic before sources are measured.

    An image that does not pass its gate is in no mosaic, and nothing is measured in a mosaic that does not.
    """
    nodes = graph(made("standard", block("a", "b", calibrators=("/ms/a.ms",))))

    assert nodes == {
        "visibility.flag[a]": [],
        "visibility.flag[b]": [],
        "calibration.solve[a]": ["visibility.flag[a]"],
        "qa.calibration[a]": ["calibration.solve[a]"],
        "calibration.apply[a]": ["visibility.flag[a]", "qa.calibration[a]"],
        "imaging.image[a]": ["calibration.apply[a]"],
        "qa.image[a]": ["imaging.image[a]"],
        "calibration.apply[b]": ["visibility.flag[b]", "qa.calibration[a]"],
        "imaging.image[b]": ["calibration.apply[b]"],
        "qa.image[b]": ["imaging.image[b]"],
        "imaging.mosaic": ["qa.image[a]", "qa.image[b]"],
        "qa.mosaic": ["imaging.mosaic"],
        "photometry.detect": ["qa.mosaic", "imaging.mosaic"],
        "photometry.forced": ["photometry.detect", "imaging.mosaic"],
    }


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("quick-imaging", ["visibility.flag", "calibration.apply", "imaging.image", "qa.image"]),
        ("calibrator", ["visibility.flag", "calibration.solve", "qa.calibration"]),
        (
            "target",
            [
                "visibility.flag",
                "calibration.apply",
                "imaging.image",
                "qa.image",
                "photometry.detect",
                "photometry.forced",
            ],
        ),
        ("ingestion", ["visibility.ingest"]),
        (
            "nightly-mosaic",
            [
                "visibility.flag",
                "calibration.apply",
                "imaging.image",
                "qa.image",
                "imaging.mosaic",
                "qa.mosaic",
                "photometry.detect",
                "photometry.forced",
                "photometry.variability",
            ],
        ),
    ],
)
def test_the_other_workflows(name: str, stages: list[str]) -> None:
    """Each has its stages, each of which comes after the one before."""
    nodes = graph(made(name, block("a", calibrators=("/ms/a.ms",))))

    assert [each.partition("[")[0] for each in nodes] == stages
    for before, (node, parents) in zip(list(nodes), list(nodes.items())[1:], strict=False):
        assert before in parents, node


def test_workflows_are_those_that_are_offered() -> None:
    """The command line, which does not load them, has the same names."""
    assert tuple(WORKFLOWS) == OFFERED


def test_without_mosaics_each_image_is_measured_by_itself() -> None:
    """As the configuration says."""
    nodes = graph(made("standard", block("a", "b"), mosaicking={"save_fits": False}))

    assert "imaging.mosaic" not in nodes
    assert nodes["photometry.detect[b]"] == ["qa.image[b]", "imaging.image[b]"]


def test_cubes_are_images_only() -> None:
    """Images by frequency have to pass their gate; nothing is measured in them: workflows that would are refused."""
    cubes = {"planes": 4}

    assert "qa.image[a]" in graph(made("quick-imaging", block("a"), imaging=cubes))
    for name in ("standard", "target", "nightly-mosaic"):
        with pytest.raises(ValidationError, match=r"imaging\.planes = 4"):
            made(name, block("a"), imaging=cubes)


def test_a_mosaic_takes_three_quarters_of_the_images() -> None:
    """It waits until all have ended, so that none is left out that comes last, and is made of so many at least."""
    node = made("standard", block("a", "b", "c", "d", "e")).nodes["imaging.mosaic"]

    assert node.options["when"] == "all_done"
    assert node.params["least_tiles"] == 4


def test_params_are_those_of_the_configuration_and_of_the_block() -> None:
    """Each product has the name of its recording or block, in the folder of its stage."""
    workflow = made("standard", block("a"))
    name = "20260115T080000_20260115T090000"

    assert workflow.nodes["imaging.image[a]"].params | {"image_size": None} == {
        **workflow.nodes["imaging.image[a]"].params,
        "ms": "/ms/a.ms",
        "column": "CORRECTED_DATA",
        "out": "test_data/data/images/a.fits",
        "niter": 100,
        "image_size": None,
    }
    assert workflow.nodes["imaging.mosaic"].params["out"] == f"test_data/data/mosaics/{name}.fits"
    assert workflow.nodes["photometry.forced"].params["out"].endswith(f"photometry/measurements/{name}.parquet")


def test_what_two_blocks_have_in_common_has_one_key() -> None:
    """A recording in both is flagged and imaged once; another configuration, version or salt makes other keys."""

    def key(workflow: Workflow, node: str) -> Any:
        return workflow.nodes[node].options["key"]

    one, other = made("standard", block("a", "b")), made("standard", block("b", "c", number=1))

    assert key(one, "imaging.image[b]") == key(other, "imaging.image[b]")
    assert key(one, "imaging.image[a]") != key(other, "imaging.image[b]")
    assert key(one, "imaging.mosaic") != key(other, "imaging.mosaic")
    changed = made("standard", block("b", "c", number=1), imaging={"niter": 6})
    assert key(one, "calibration.apply[b]") == key(changed, "calibration.apply[b]")
    assert key(one, "imaging.image[b]") != key(changed, "imaging.image[b]")
    config = load_pipeline_config("testing")
    assert key(one, "imaging.image[b]") != key(
        block_workflow(config, block("a", "b"), salt="again"), "imaging.image[b]"
    )


def test_no_more_blocks_at_a_time_than_are_allowed() -> None:
    """A block begins when the one so many places before it has ended, however that ended."""
    blocks = [block(f"t{n}", number=n) for n in range(5)]

    whole = batch_workflow(load_pipeline_config("testing"), blocks, "quick-imaging", at_once=2)

    roots = [whole.nodes[f"{each.block_id}/visibility.flag[t{n}]"] for n, each in enumerate(blocks)]
    ends = [f"{each.block_id}/report" for each in blocks]
    assert [[each.name for each in root.parents] for root in roots] == [[], [], [ends[0]], [ends[1]], [ends[2]]]
    assert all(root.options["when"] == "all_done" for root in roots)


def test_what_cannot_be_meant_is_refused() -> None:
    """A workflow of another name, a block for calibration without a calibrator, no blocks."""
    config = load_pipeline_config("testing")

    with pytest.raises(ValidationError, match="there is no workflow 'usual'"):
        block_workflow(config, block("a"), "usual")
    with pytest.raises(ValidationError, match="shows a calibrator"):
        block_workflow(config, block("a"), "calibrator")
    with pytest.raises(ValidationError, match="there are no blocks"):
        batch_workflow(config, [], at_once=1)
