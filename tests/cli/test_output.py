"""Tables, numbers and values as people read and type them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import click
import pytest

from absurd.cli.output import Cell, Table, clean, duration, emit, in_order, plural, size, to_json
from absurd.cli.values import instant, pairs, read_params, seconds
from absurd.errors import InvalidParamsError
from absurd.model import Artifact


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (None, ""),
        (0.0, "0 ms"),
        (0.04, "40 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (4.21, "4.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
        (-1.0, "0 ms"),
    ],
)
def test_durations(length: float | None, told: str) -> None:
    """A length of time is told in at most two units."""
    assert told == duration(length)


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (34_000_000, "34 MB"),
        (1.5e9, "1.5 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes(count: float | None, told: str) -> None:
    """A number of bytes is told in powers of 1000."""
    assert told == size(count)


def test_plurals() -> None:
    """One is one, and thousands are grouped."""
    assert ["1 task", "0 tasks", "12,000 tasks"] == [plural(count, "task") for count in (1, 0, 12_000)]


def test_table_is_aligned() -> None:
    """Columns are as wide as their widest cell, numbers to the right, nothing behind the last."""
    table = Table(("name", "count", "note"), [("a", 1, None), ("longer", 1000, "x")], right=("count",))

    lines = click.unstyle(str(table)).splitlines()

    assert ["name    count  note", "a           1", "longer   1000  x"] == lines


def test_table_without_rows() -> None:
    """An empty table says so in words."""
    assert "Nothing." == str(Table(("name",), [], empty="Nothing."))


def test_table_shrinks_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """One column gives way on a narrow terminal; in a pipe nothing is cut."""
    table = Table(("a", "b"), [("x" * 20, "y" * 100)], shrink="b")
    monkeypatch.setenv("COLUMNS", "60")

    assert str(table).endswith("y" * 100)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert 60 == len(str(table).splitlines()[1])
    assert str(table).endswith("y…")


def test_what_tasks_stored_cannot_steer_the_terminal() -> None:
    """Control characters in names and messages are not passed on."""
    assert "red [31m text" == clean("red\x1b[31m\ntext")
    assert "\x1b[31m" not in str(Table(("name",), [("\x1b[31mred\x07",)]))


def test_cells_have_the_colour_of_their_word() -> None:
    """A state is coloured; alignment does not count the colour."""
    table = Table(("state", "x"), [(Cell("failed", "failed"), 1), (Cell("ok", "nothing"), 2)])

    assert f"{click.style('failed', fg='red')}  1" in str(table)
    assert "ok      2" in str(table)


@pytest.mark.parametrize("forbidden", ["", "1"])
def test_no_colour_in_a_pipe_nor_where_it_is_unwanted(forbidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are for terminals, and NO_COLOR is honoured there."""
    from absurd.cli.run import call

    monkeypatch.setenv("NO_COLOR", forbidden)
    said: list[bool | None] = []

    @click.command()
    @click.pass_context
    def paint(ctx: click.Context) -> None:
        said.append(ctx.color)

    assert 0 == call(paint, "paint", [])
    assert [False if forbidden else None] == said


def test_json_takes_what_absurd_returns(capsys: pytest.CaptureFixture[str]) -> None:
    """Dataclasses, ids, times and paths have a form in JSON; other things are a mistake of ours."""
    emit(
        {
            "id": UUID(int=1),
            "at": datetime(2027, 1, 31, tzinfo=UTC),
            "file": Artifact(path="é", kind="text", sha256=None, bytes=1),
            "home": Path("/data"),
        },
        as_json=True,
    )

    assert {
        "id": str(UUID(int=1)),
        "at": "2027-01-31T00:00:00+00:00",
        "file": {"path": "é", "kind": "text", "sha256": None, "bytes": 1},
        "home": "/data",
    } == json.loads(capsys.readouterr().out)
    with pytest.raises(TypeError, match="set has no JSON form"):
        to_json({1})


def test_keys_in_order() -> None:
    """Known keys first, then the others, none twice."""
    assert ["b", "a", "c"] == list(in_order({"a": 1, "c": 2, "b": 3}, "b", "x", "a"))


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("15m", 900),
        ("15 min", 900),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("250ms", 0.25),
    ],
)
def test_durations_are_read(text: str, length: float) -> None:
    """Seconds, or numbers with their units."""
    assert length == pytest.approx(seconds(text))


@pytest.mark.parametrize("text", ["", "-1", "soon", "5 parsecs", "1e3", "nan", "3m-2s"])
def test_bad_durations_are_refused(text: str) -> None:
    """What is no duration is repeated in the message."""
    with pytest.raises(click.BadParameter, match="is not a duration"):
        seconds(text)


def test_times_are_read_with_their_zone() -> None:
    """An offset counts; without one the zone of the machine does."""
    assert datetime(2027, 1, 31, 21, 30, tzinfo=UTC) == instant("2027-01-31T21:30Z")
    assert datetime(2027, 1, 31, 21, 30, tzinfo=timezone(timedelta(hours=2))) == instant("2027-01-31T21:30+02:00")
    assert instant("2027-01-31").utcoffset() is not None
    with pytest.raises(click.BadParameter, match="is not a time"):
        instant("tomorrow")


def test_pairs_are_read() -> None:
    """A value that is JSON is read as JSON, any other is a text; the first = divides."""
    words = ["a=1", "b=1.5", "c=true", "d=[1,2]", "e=text", 'f="7"', "g=x=y", "h=", "i=NaN", "j=null"]

    assert {
        "a": 1, "b": 1.5, "c": True, "d": [1, 2], "e": "text", "f": "7", "g": "x=y", "h": "", "i": "NaN", "j": None,
    } == pairs(words, "a parameter")  # fmt: skip


def test_params_come_from_text_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--params takes JSON, @FILE, or - for stdin."""
    import io

    file = tmp_path / "params.json"
    file.write_text('{"from": "file"}', encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"from": "stdin"}'))

    assert {"from": "text"} == read_params([], '{"from": "text"}')
    assert {"from": "file"} == read_params([], f"@{file}")
    assert {"from": "stdin"} == read_params([], "-")
    with pytest.raises(InvalidParamsError, match="NaN is not allowed"):
        read_params([], "NaN")
