"""Quarantine: what does not pass is moved with its reasons, and never lost."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from absurd.tasks.qa import find_in_quarantine, put_into_quarantine, release_from_quarantine
from absurd.tasks.radio.errors import DataError, StateManagementError

REASONS = {"verdict": "fail", "reasons": ["antennas 3, below 10"]}


def product(folder: Path, text: str = "gains") -> Path:
    """A folder with something in it."""
    made = folder / "night.gains"
    made.mkdir(parents=True)
    (made / "data").write_text(text)
    return made


def test_a_product_moves_with_its_reasons_beside(tmp_path: Path) -> None:
    """Nothing of it changes; the reasons tell where it was; its name is free for the next one."""
    made = product(tmp_path)

    place = put_into_quarantine(made, REASONS)

    assert place == tmp_path / "quarantine" / "night.gains"
    assert (place / "data").read_text() == "gains"
    told = json.loads((tmp_path / "quarantine" / "night.gains.reasons.json").read_text())
    assert told["product"] == str(made)
    assert told["reasons"] == REASONS["reasons"]
    assert told["quarantined_at"].endswith("+00:00")
    assert not made.exists()


def test_products_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    """The second goes under a name with a number; what was put away last is told; files are as good as folders."""
    first = put_into_quarantine(product(tmp_path, "first"), REASONS)
    second = put_into_quarantine(product(tmp_path, "second"), REASONS | {"reasons": ["other"]})
    (tmp_path / "night.gains").write_text("third")
    third = put_into_quarantine(tmp_path / "night.gains", REASONS)

    assert [each.name for each in (first, second, third)] == ["night.gains", "night.gains.2", "night.gains.3"]
    assert ((first / "data").read_text(), (second / "data").read_text(), third.read_text()) == (
        "first",
        "second",
        "third",
    )
    told = find_in_quarantine(tmp_path / "night.gains")
    assert told is not None
    assert told["place"] == str(third)
    assert find_in_quarantine(tmp_path / "other") is None


def test_a_kill_between_reasons_and_move_is_made_good(tmp_path: Path) -> None:
    """Reasons without a product are replaced by those of the product that then comes."""
    made = product(tmp_path)
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "night.gains.reasons.json").write_text(
        json.dumps({"product": str(made), "quarantined_at": "2026-01-01T00:00:00+00:00"})
    )

    assert find_in_quarantine(made) is None
    assert put_into_quarantine(made, REASONS).name == "night.gains"
    told = find_in_quarantine(made)
    assert told is not None
    assert told["reasons"] == REASONS["reasons"]


def test_what_is_released_goes_back(tmp_path: Path) -> None:
    """Where it was, unless something else is there by now; its reasons stay and tell when."""
    made = product(tmp_path)
    place = put_into_quarantine(made, REASONS)
    product(tmp_path, "another")

    with pytest.raises(StateManagementError, match="another product"):
        release_from_quarantine(place)
    (made / "data").unlink()
    made.rmdir()

    assert release_from_quarantine(place) == made
    assert (made / "data").read_text() == "gains"
    assert "released_at" in json.loads(place.with_name("night.gains.reasons.json").read_text())
    assert find_in_quarantine(made) is None


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    """A product that does not exist, and a path that is not in quarantine."""
    with pytest.raises(DataError, match="is not there"):
        put_into_quarantine(tmp_path / "none", REASONS)
    with pytest.raises(DataError, match="not a product in quarantine"):
        release_from_quarantine(product(tmp_path))


MOVES = """
import sys
from absurd.tasks.qa import put_into_quarantine, release_from_quarantine
while True:
    print("moving", flush=True)
    release_from_quarantine(put_into_quarantine(sys.argv[1], {"verdict": "fail", "reasons": ["for now"]}))
"""


def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """Whenever that is, the product is whole in one place, and in quarantine never without its reasons.

    The next one goes on from there.
    """
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    made = product(tmp_path)
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", MOVES, str(made)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            until = time.monotonic() + chance.uniform(0, 0.1)
            while time.monotonic() < until:
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)

        places = [each for each in (made, *(tmp_path / "quarantine").glob("night.gains*")) if each.is_dir()]
        assert [(each / "data").read_text() for each in places] == ["gains"], seed
        if places != [made]:
            told = find_in_quarantine(made)
            assert told is not None, seed
            assert told["reasons"] == ["for now"]
            release_from_quarantine(told["place"])
        assert put_into_quarantine(made, REASONS).is_dir()
        again = find_in_quarantine(made)
        assert again is not None
        release_from_quarantine(again["place"])
