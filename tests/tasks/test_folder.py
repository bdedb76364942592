"""Folders that are whole or absent: what may go for them, and what must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from absurd.tasks.folder import fill_aside


def fill(path: Path, name: str = "new") -> None:
    """Put a folder with one file in place of whatever has that file's older form."""

    def check(folder: Path) -> None:
        if not (folder / "old").exists():
            raise LookupError("strange")

    with fill_aside(path, check_older=check) as aside:
        (aside / name).write_text(name)
        if name == "late":
            (path / "old").rename(path / "other")


def test_who_does_not_say_what_may_go_replaces_nothing(tmp_path: Path) -> None:
    """A folder with something in it is refused before anything is written; an empty one is none of anybody's."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()

    with pytest.raises(FileExistsError, match="a folder with something in it"), fill_aside(tmp_path / "full"):
        pytest.fail("the block was entered")
    with fill_aside(tmp_path / "empty") as aside:
        (aside / "new").write_text("new")

    assert [each.name for each in (tmp_path / "full").iterdir()] == ["mine"]
    assert [each.name for each in (tmp_path / "empty").iterdir()] == ["new"]


def test_what_may_go_is_asked_before_and_after(tmp_path: Path) -> None:
    """A folder of another kind stays, also one that has become so while the new one was filled; nothing is left."""
    path = tmp_path / "a"
    path.mkdir()
    (path / "mine").write_text("mine")
    with pytest.raises(LookupError, match="strange"):
        fill(path)
    (path / "mine").rename(path / "old")
    with pytest.raises(LookupError, match="strange"):
        fill(path, "late")
    assert [each.name for each in path.iterdir()] == ["other"]

    (path / "other").rename(path / "old")
    fill(path)

    assert [each.name for each in path.iterdir()] == ["new"]
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
