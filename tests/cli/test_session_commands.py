"""``absurd session``: a session over several commands, and what is printed of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli.conftest import Run


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, which the commands know by the setting."""
    monkeypatch.setenv("ABSURD_SESSION_FOLDER", str(tmp_path / "telescope"))
    return tmp_path / "telescope"


def test_a_session_over_several_commands(run: Run, data: Path) -> None:
    """Each command goes on with the session that the one before left; its end prints the file."""
    begun = run("session", "start", "observation", "observer=Ada", "--target", "M31", "--minutes", "120", "--json")
    assert begun.code == 0, begun.err
    assert run("session", "log", "warn", "Clouds", "cover=0.3", "--source", "eye").code == 0
    [still] = run("session", "list", "--json").document
    assert (still["state"], still["session_id"]) == ("open", begun.document["session_id"])

    ended = run("session", "end")

    path = ended.out.strip()
    assert path == begun.document["path"]
    shown = run("session", "show", begun.document["session_id"], "--json").document
    assert shown["meta"]["observer"] == "Ada"
    assert shown["meta"]["planned_duration_minutes"] == 120
    assert shown["metrics"]["warnings"] == 1
    assert "M31" in run("session", "show", path).out
    [line] = run("session", "open", path, "observability", "logs", "--json").document
    assert line["value"]["context"] == {"cover": 0.3}
    assert line["value"]["source"] == "eye"
    assert "observability.logs.0: " in run("session", "open", path).out
    assert "observation" in run("session", "list", "--type", "observation").out
    assert "observation" not in run("session", "list", "--type", "alignment").out


def test_damaged_files_are_told(run: Run, data: Path) -> None:
    """A file that is cut off or foreign is listed as damaged and fails `verify`, and hides no other."""
    run("session", "start", "experiment")
    path = Path(run("session", "end").out.strip())
    (path.parent / "foreign.asdf").write_text("something else")
    (path.parent / "torn_20251214_210000_1f0c33a8.asdf").write_bytes(path.read_bytes()[:-40])

    verified = run("session", "verify", "--json")

    assert verified.code == 1
    assert {Path(each["path"]).name: each["ok"] for each in verified.document} == {
        path.name: True,
        "foreign.asdf": False,
        "torn_20251214_210000_1f0c33a8.asdf": False,
    }
    assert run("session", "verify", path.stem).code == 0
    states = {each["session_id"]: each["state"] for each in run("session", "list", "--json").document}
    assert states[path.stem] == "sealed"
    assert states["foreign"] == "damaged"
    assert "fail" in run("session", "verify").out


def test_sealing_by_a_worker(run: Run, data: Path) -> None:
    """With --spawn the file is written by a task, for which nobody has to wait."""
    run("session", "start", "experiment")

    ended = run("session", "end", "--spawn", "--no-wait", "--json")

    assert ended.code == 0, ended.err
    assert not Path(ended.document["path"]).exists()
    [task] = run("task", "list", "--json").document
    shown = run("task", "show", task["id"], "--json").document
    assert shown["params"] == {"data_dir": str(data), "session_id": ended.document["session_id"]}


def test_what_is_told_of_mistakes(run: Run, tmp_path: Path) -> None:
    """No folder, no such session, a context that is none, a folder that another has: each is said, with its code."""
    assert "ABSURD_SESSION_FOLDER" in run("session", "list").err
    data = ("--data", str(tmp_path / "d"))
    absent = run("session", "show", "observation_20251214_210000_1f0c33a8", *data, "--json")
    assert (absent.code, json.loads(absent.out or absent.err)["error"]["code"]) == (3, "session_not_found")
    assert run("session", "log", "INFO", "x", "novalue", *data).code == 2
    assert run("session", "start", "nap", *data).code == 2
    (tmp_path / "d").mkdir()
    assert "No sessions." in run("session", "list", *data).out


def test_the_catalogue(run: Run, data: Path) -> None:
    """A catalogue is made, names what is damaged, and answers conditions and statements on Parquet and SQLite; --spawn
    has a worker make it; mistakes are said with their codes.
    """
    assert run("session", "query", "--json").code == 3
    run("session", "start", "observation", "--target", "M31")
    path = Path(run("session", "end").out.strip())
    (data / "torn.asdf").write_bytes(path.read_bytes()[:-9])

    made = run("session", "rebuild-catalog", "--sqlite")

    assert made.code == 0, made.err
    assert "1 damaged" in made.out
    assert "torn.asdf: damaged" in made.err
    for option in ((), ("--sqlite",)):
        found = run("session", "query", "target LIKE 'M%' ORDER BY start_time DESC LIMIT 10", "--json", *option)
        assert [(each["session_id"], each["asdf_path"]) for each in found.document] == [(path.stem, str(path))]
    assert path.stem in run("session", "query").out
    assert run("session", "query", "SELECT count(*) AS n FROM sessions WHERE target = 'M31'").out.split() == ["n", "1"]
    assert "M31" in run("session", "query", "--columns", "target").out
    assert run("session", "query", "--columns", "colour").code == 2
    assert run("session", "rebuild-catalog", "--checksums").code == 2
    assert run("session", "query", "nonsense", "--json").code == 2


def test_retiring(run: Run, data: Path) -> None:
    """A dry run lists and touches nothing; without --yes nothing goes where nobody can be asked; a hold keeps a file;
    with --yes what may go goes.
    """
    for _ in range(2):
        run("session", "start", "experiment")
        run("session", "end")
    first, second = sorted(data.glob("2*/*/*/*.asdf"))
    run("spawn", "session.catalog", f"data_dir={data}", "checksums=true", "--here")
    rule = ("--keep", "experiment=0.001s")
    assert run("session", "hold", first.stem, "--reason", "Case 17").code == 0

    told = run("session", "retire", *rule, "--dry-run", "--json")

    assert (told.document["files"], len(told.document["due"])) == (1, 2)
    assert "Case 17" in run("session", "retire", *rule, "--dry-run").out
    assert run("session", "retire", *rule, "--here").code == 2
    assert first.exists() and second.exists()
    assert run("session", "retire").code == run("session", "retire", "--keep", "nap=3d").code == 2
    assert run("session", "release", first.stem, "--json").document["was_held"] is True
    assert run("session", "hold", first.stem, "--reason", "Case 18").code == 0
    gone = run("session", "retire", *rule, "--here", "--yes")
    assert gone.code == 0, gone.err
    assert (first.exists(), second.exists()) == (True, False)
    assert "No session is old enough." in run("session", "retire", "--keep", "idle=1d").out


def test_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    """Of a folder that was misspelt nothing is said to be well, and none is made."""
    for words in (["list"], ["verify"], ["tail"], ["rebuild-catalog"], ["query"]):
        assert run("session", *words, "--data", str(tmp_path / "misspelt")).code == 3
    assert list(tmp_path.iterdir()) == []
