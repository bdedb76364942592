"""Files that people write: a key that stands twice is refused wherever it is read, and no secret is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from absurd.errors import AbsurdError
from absurd.tasks.config_file import read_config_file
from absurd.tasks.cutout import ButlerConfig
from absurd.tasks.cutout.positions import read_positions
from absurd.tasks.export import load_config
from absurd.tasks.pipeline import load_pipeline_config


def pipeline(path: Path) -> Any:
    """The pipeline's configuration with a file over it."""
    return load_pipeline_config(path=path)


@pytest.mark.parametrize("read", [load_config, pipeline, ButlerConfig.from_file])
@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.yaml", "datasets:\n  image: a\n  image: b\n", "the table in line 2 has the key 'image' more than once"),
        ("x.yml", "timeout: 5\ntimeout: 9\n", "the table in line 1 has the key 'timeout' more than once"),
        ("x.json", '{"datasets": {"image": "a", "image": "b"}}', "the table has the key 'image' more than once"),
        ("x.toml", "timeout = 5\ntimeout = 9\n", "overwrite a value"),
    ],
)
def test_a_key_twice(tmp_path: Path, read: Callable[[Path], Any], name: str, content: str, told: str) -> None:
    """Whatever reads the file, and however deep the table is, the last of two does not win: file and key are named."""
    (tmp_path / name).write_text(content)

    with pytest.raises(AbsurdError) as caught:
        read(tmp_path / name)

    assert f"{name} cannot be read: " in caught.value.message
    assert told.lower() in caught.value.message.lower()


def test_a_key_twice_in_a_header(tmp_path: Path) -> None:
    """Of two units in the header of a table neither is believed, and tags that only Astropy knows do no harm."""
    column = "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ra, unit: rad, UNIT: deg, datatype: float64}\n"
    rest = "# - {name: dec, unit: deg, datatype: float64}\n# meta: {of: !astropy.Time {jd: 1}}\nra dec\n1 2\n"
    table = tmp_path / "t.ecsv"

    table.write_text(column.replace("UNIT", "unit") + rest)
    with pytest.raises(AbsurdError, match=r"header of t\.ecsv is no YAML: .*line 4 has the key 'unit' more than once"):
        list(read_positions(table))
    table.write_text(column.replace("unit: rad, UNIT", "unit") + rest)
    assert [(each.ra, each.dec) for each in read_positions(table)] == [(1.0, 2.0)]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {first: 1, other: 3}\nb: {<<: *a, first: 2}\nc: {first: 2, other: 3}\n",
        "deep: [[&b {<<: &a {first: 1, other: 3}, first: 2}]]\nc: {<<: *b}\nb: *b\n",
        "a: &a {first: 1}\nb: &b {<<: *a, first: 2, other: 3}\nc: {<<: *b}\nd: {<<: [*b, *a]}\n",
    ],
)
def test_what_is_merged_is_not_written_twice(tmp_path: Path, text: str) -> None:
    """A table may say anew what it takes over from another, which itself did so, in whichever order they are made."""
    (tmp_path / "x.yaml").write_text(text)

    read = read_config_file(tmp_path / "x.yaml")

    assert read["b"] == read["c"] == read.get("d", read["c"]) == {"first": 2, "other": 3}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("x.yaml", "token: geheim: 5"),
        ("x.yaml", "token: [geheim"),
        ("x.yaml", "token: 'geheim"),
        ("x.yaml", "? {token: geheim}\n: 5"),
        ("x.json", '{"token": "geheim'),
        ("x.json", '{"token": "geheim", "token": "geheim"}'),
        ("x.toml", "token = geheim"),
    ],
)
def test_no_line_is_repeated(tmp_path: Path, name: str, line: str) -> None:
    """Where the parser stopped is told by its line's number: what stands there may be a secret."""
    (tmp_path / name).write_text(f"{line}\n")

    with pytest.raises(AbsurdError, match=r"cannot be read: .*(line|more than once)") as caught:
        ButlerConfig.from_file(tmp_path / name)
    assert "geheim" not in str(caught.value)
