"""What pages draw and how they tell numbers: places, marks and words, without a browser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from absurd.web.dashboard import curve, gantt, graph, skymap
from absurd.web.dashboard.axis import number_marks, time_marks
from absurd.web.dashboard.words import (
    cut,
    tell_age,
    tell_amount,
    tell_bytes,
    tell_flux,
    tell_frequency,
    tell_options,
    tell_seconds,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def node(name: str, *parents: str, state: str = "completed", executor: str = "a.b", **times: str) -> dict[str, Any]:
    return {"id": name, "node": name, "name": executor, "state": state, "depends_on": list(parents)} | {
        "started_at": None, "finished_at": None
    } | times  # fmt: skip


def test_a_task_stands_right_of_all_its_parents_and_on_nobody_else() -> None:
    """Whatever order the nodes come in; a parent outside of the workflow is left out."""
    nodes = [node("d", "b", "c"), node("c", "a", "elsewhere"), node("b", "c"), node("a")]

    drawn = graph.draw(nodes)

    x = {box.members[0]["id"]: box.x for box in drawn.boxes}
    assert x["a"] < x["c"] < x["b"] < x["d"]
    assert 4 == len(drawn.curves)
    assert 4 == len({(box.x, box.y) for box in drawn.boxes})
    assert all(0 <= box.x <= drawn.width - graph.WIDTH and 0 <= box.y <= drawn.height for box in drawn.boxes)
    assert [] == graph.draw([]).boxes


def test_many_that_are_alike_are_one_box_that_tells_the_worst() -> None:
    """Alike is who runs the same after the same; seven of them are still told apart."""
    tiles = [
        node(f"t{n}", "a", executor="imaging.image", state="failed" if n == 3 else "completed") for n in range(500)
    ]
    few = [node(f"q{n}", "a", executor="qa.image") for n in range(graph.FOLDED - 1)]

    drawn = graph.draw([node("a"), *tiles, *few, node("m", *(each["id"] for each in tiles))])

    folded = max(drawn.boxes, key=lambda box: len(box.members))
    assert (500, "failed", {"completed": 499, "failed": 1}) == (len(folded.members), folded.state, folded.counts)
    assert 1 + 1 + len(few) + 1 == len(drawn.boxes)
    assert 1 + len(few) + 1 == len(drawn.curves)


def test_bars_lie_where_their_time_is() -> None:
    """From the first start to the end, or to now for what still runs; what has not begun has none."""
    at = [(NOW + timedelta(seconds=10 * n)).isoformat() for n in range(11)]
    nodes = [
        node("late", state="running", started_at=at[8]),
        node("early", started_at=at[0], finished_at=at[5]),
        node("never", state="pending"),
    ]

    drawn = gantt.chart(nodes, at[0], None, NOW + timedelta(seconds=100))

    full = gantt.RIGHT - gantt.LEFT
    told = [(bar.node["node"], round((bar.x - gantt.LEFT) / full, 3), round(bar.width / full, 3)) for bar in drawn.bars]
    assert [("early", 0.0, 0.5), ("late", 0.8, 0.2)] == told
    assert all(gantt.LEFT <= x <= gantt.RIGHT for x, _ in drawn.marks)


@pytest.mark.parametrize("seconds", [0, 0.2, 3, 59, 600, 7200, 86_400, 5 * 86_400, 400 * 86_400])
def test_marks_of_times_are_few_and_within(seconds: float) -> None:
    """From a moment to years."""
    marks = time_marks(NOW, NOW + timedelta(seconds=seconds))

    assert 1 <= len(marks) <= 8
    assert all(0 <= at <= 1 for at, _ in marks)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.0031, 0.0172), (99.5, 100.5), (5, 5), (0, 3e9)])
def test_marks_of_numbers_are_round_and_within(low: float, high: float) -> None:
    """And at least one."""
    marks = number_marks(low, high)

    assert 1 <= len(marks) <= 8
    assert all(low - 1e-9 <= each <= high + 1e-9 for each in marks)


def test_numbers_have_their_units() -> None:
    """In the size in which people read them."""
    assert ["20 ms", "1.0 s", "59.9 s", "1 min", "2 min 5 s", "1 h", "1 d 1 h"] == [
        tell_seconds(each) for each in (0.02, 1, 59.9, 60, 125, 3600, 90_060)
    ]
    assert ["in 5 s", "2 min ago", "now", "–"] == [
        tell_age(each, NOW) for each in (NOW + timedelta(seconds=5), NOW - timedelta(minutes=2), NOW, None)
    ]
    assert ["0 B", "999 B", "1 kB", "1.23 MB"] == list(map(tell_bytes, (0, 999, 1000, 1_234_567)))
    assert ["1.50 Jy", "820 mJy", "-12.0 µJy", "0 Jy"] == [tell_flux(each) for each in (1.5, 0.82, -1.2e-5, 0)]
    amounts = [(90, "s"), (0.125, "1"), (2e-3, "Jy/beam"), (1, "tasks"), (1200, "tasks"), (None, "s")]
    assert ["1 min 30 s", "12.5 %", "2.00 mJy/beam", "1 task", "1,200 tasks", "–"] == [
        tell_amount(*each) for each in amounts
    ]
    names = ("night.expose[2]", "20260115-20260116/flag[12]", "20260115/visibility.flag[13:40]")
    assert ["night.expose[2]", "flag[12]", "visibili…[13:40]"] == [cut(each, 16) for each in names]
    assert ["1.4 GHz", "999.9 MHz"] == [tell_frequency(each) for each in (1.4e9, 9.999e8)]
    assert "cpu 2, memory 23.54 GiB" == tell_options({"cpu": 2, "memory_gib": 23.543})


def test_the_sky_is_seen_from_within() -> None:
    """East is left and north up, all of it fits, and a part of it across 0 h or a pole is as small as it is."""
    middle, east, north = (skymap.aitoff(*each) for each in ((180, 0), (190, 0), (180, 10)))
    assert (skymap.WIDTH / 2, skymap.HEIGHT / 2) == middle
    assert east[0] < middle[0]
    assert north[1] < middle[1]
    for ra in range(0, 361, 15):
        for declination in (-90, -60, 0, 89):
            x, y = skymap.aitoff(ra, declination)
            assert 0 <= x <= skymap.WIDTH
            assert 0 <= y <= skymap.HEIGHT

    for positions in ([(359.9, 3), (0.1, 3)], [(0, 89.9), (180, 89.9)], [(12, -45)]):
        part = skymap.part_of(positions)
        assert part is not None
        assert part.side_deg < 0.3
        assert all(part.holds(*each) for each in positions)
        assert not part.holds(part.ra, -part.declination)
        if part.declination < 80:
            assert part.place(part.ra + 0.01, part.declination)[0] < part.place(part.ra, part.declination)[0]
        assert all(map(len, part.marks()))
    assert [None, None] == [skymap.part_of([]), skymap.part_of([(0, 0), (180, 0)])]


def test_a_light_curve_shows_what_was_seen_and_what_was_not() -> None:
    """A limit stands where it is and has no error bar; what tells nothing is counted, not drawn."""
    told = {"error_jy": None, "flux_jy": None, "upper_limit_jy": None, "observed_at": NOW.isoformat()}
    seen = told | {"detected": True, "flux_jy": 0.004, "error_jy": 0.001}
    limit = told | {"detected": False, "flux_jy": 0.001, "upper_limit_jy": 0.003}
    later = (NOW + timedelta(days=3)).isoformat()

    drawn = curve.draw(
        [seen, limit | {"observed_at": later}, seen | {"observed_at": "-infinity"}, told | {"detected": True}]
    )

    first, second = drawn.points
    assert (False, True, 2, "mJy/beam") == (first.limit, second.limit, drawn.left_out, drawn.unit)
    assert first.x < second.x
    assert curve.TOP <= first.high < first.y < first.low <= curve.BOTTOM
    assert first.y < second.y == second.low == second.high
    one = curve.draw([limit])
    assert 1 == len(one.points)
    assert one.times and one.fluxes
    assert [] == curve.draw([]).points
