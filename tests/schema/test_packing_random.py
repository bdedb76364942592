"""Packing in whatever order chance brings tasks, workers, claims and ends: what must hold after every claim."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import recount
from packing import Site
from proof import amount, seed_of

OFFERS: tuple[dict[str, float], ...] = (
    {"cpu": 8, "memory_gib": 16}, {"cpu": 4, "memory_gib": 32, "gpu": 1}, {"cpu": 2.5}, {"cpu": 8},
)  # fmt: skip
NEEDS: tuple[dict[str, float] | None, ...] = (
    {"cpu": 1}, {"cpu": 1}, {"cpu": 0.1}, {"cpu": 2, "memory_gib": 4}, {"cpu": 8}, {"cpu": 3, "memory_gib": 20},
    {"gpu": 1}, {"cpu": 1, "token": 1}, {"token": 1}, {"token": 3, "cpu": 4}, {"cpu": 2.5}, {"cpu": 100}, None,
)  # fmt: skip
TOKENS = 4
RESERVE_AFTER = 30.0

BOUND = "n.noted_at + w.reserve_after * interval '1 second' <= clock_time() and w.state = 'running'"

Run = tuple[int, UUID]


@dataclass
class Play:
    """A site, and what has come of it as this test sees it."""

    site: Site
    chance: random.Random
    lanes: bool = False
    workers: dict[int, dict[str, float]] = field(default_factory=dict)
    needs: dict[UUID, dict[str, float]] = field(default_factory=dict)
    pending: set[UUID] = field(default_factory=set)
    running: dict[Run, UUID] = field(default_factory=dict)
    bound: dict[UUID, tuple[int, set[Run]]] = field(default_factory=dict)
    """For each task that room is kept for: on which worker, and the runs that it may have to wait for."""
    checked: Counter[str] = field(default_factory=Counter)

    def spawn(self) -> None:
        needs = self.chance.choice(NEEDS)
        options: dict[str, Any] = {"priority": self.chance.choice((0, 0, 0, 1, 5))}
        options |= {"needs": needs} if needs else {}
        options |= {"lane": self.chance.choice("abc")} if self.lanes else {}
        task = self.site.spawn(**options)
        self.needs[task] = needs or {}
        self.pending.add(task)

    def free(self, worker: int) -> dict[str, Decimal]:
        """What this test thinks is free: exactly, because amounts are decimal."""
        left = {name: Decimal(str(offer)) for name, offer in self.workers[worker].items()}
        left["token"] = Decimal(TOKENS)
        for (lease, _), task in self.running.items():
            for name, need in self.needs[task].items():
                if name == "token" or lease >> 32 == worker:
                    left[name] -= Decimal(str(need))
        return left

    def fits(self, task: UUID, free: dict[str, Decimal]) -> bool:
        return all(Decimal(str(need)) <= free.get(name, 0) for name, need in self.needs[task].items())

    def claim(self, worker: int) -> list[UUID]:
        wanted = self.chance.choice((1, 2, 5, 20))
        slots = self.chance.choice((0, 1, 2, 20))
        return self.claim_for(worker, wanted, slots)

    def claim_for(self, worker: int, wanted: int, slots: int | None) -> list[UUID]:
        self.see_bound()
        tasks = self.site.take(worker, wanted, slots)
        for task in tasks:
            self.pending.remove(task)
            self.running[self.site.lease, task] = task
            if self.bound.pop(task, None) and "token" in self.needs[task]:  # it was in line before others
                for other, (_, blockers) in self.bound.items():
                    if "token" in self.needs[other]:
                        blockers.add((self.site.lease, task))
        assert slots is None or sum(bool(self.needs[task]) for task in tasks) <= slots
        assert min(self.free(worker).values()) >= 0, "over-packed"
        return tasks

    def end(self) -> None:
        if not self.running:
            return
        run = self.chance.choice(sorted(self.running))
        self.end_run(run)

    def end_run(self, run: Run) -> None:
        lease, task = run
        del self.running[run]
        for _, blockers in self.bound.values():
            blockers.discard(run)
        if self.chance.random() < 0.8:
            self.site.end(lease, task, self.chance.choice(("completed", "failed", "cancelled")))
        else:
            self.site.call("return_runs(%s::bigint[], %s, '{null}')", [lease], [task])
            self.pending.add(task)

    def lose(self) -> None:
        """A worker is gone, and another one comes."""
        worker = self.chance.choice(sorted(self.workers))
        self.site.call("unregister_worker(%s)", worker)
        lost = [run for run in self.running if run[0] >> 32 == worker]
        self.pending.update(self.running.pop(run) for run in lost)
        self.bound = {
            task: (keeper, blockers - set(lost)) for task, (keeper, blockers) in self.bound.items() if keeper != worker
        }
        offers = self.workers.pop(worker)
        self.workers[self.site.add(offers, reserve_after=RESERVE_AFTER)] = offers

    def pass_time(self) -> None:
        self.site.pass_time(self.chance.choice((1, 5, 20)))
        self.see_bound()

    def see_bound(self) -> None:
        """Of tasks that room is kept for from now on: what they may have to wait for."""
        rows = self.site.connection.execute(
            f"select task_id, worker_id from reservation n join worker w on w.id = n.worker_id where {BOUND}"
        ).fetchall()
        for task, worker in rows:
            if task in self.pending and task not in self.bound:
                shared = "token" in self.needs[task]
                blockers = {
                    run
                    for run, other in self.running.items()
                    if run[0] >> 32 == worker or (shared and "token" in self.needs[other])
                }
                self.bound[task] = (worker, blockers)

    def check_bounds(self) -> None:
        """Once all has ended that was at work when room began to be kept, the task starts at the next look."""
        for task, (worker, blockers) in list(self.bound.items()):
            if blockers or task not in self.pending:
                continue
            if "token" in self.needs[task] and self.site.call(
                "exists (select from reservation n join worker w on w.id = n.worker_id"
                " join ready r on r.task_id = n.task_id"
                f" where n.task_id <> %s and r.needs ? 'token' and {BOUND})", task,
            ):  # fmt: skip
                continue  # it may have to wait for that one as well
            assert task in self.claim_for(worker, 20, None), f"{task} had its time"
            self.checked["started in time"] += 1

    def check_idle(self) -> None:
        """Where nothing is reserved, no task that fits is left when every worker has looked."""
        while sum(len(self.claim_for(worker, 50, None)) for worker in self.workers):
            pass
        if self.site.call(f"exists (select from reservation n join worker w on w.id = n.worker_id where {BOUND})"):
            return
        self.checked["idle"] += 1
        for worker in self.workers:
            free = self.free(worker)
            assert not [task for task in self.pending if self.fits(task, free)]


def play(site: Site, chance: random.Random, *, steps: int, lanes: bool = False) -> None:
    made = Play(site, chance, lanes)
    site.call("set_resource('token', %s)", TOKENS)
    if lanes:
        site.call("set_queue_limits('default', '{\"fair\": true}')")
    for offers in OFFERS:
        made.workers[site.add(offers, reserve_after=RESERVE_AFTER)] = offers
    acts = [made.spawn] * 10 + [made.end] * 8 + [made.pass_time] * 2 + [made.check_idle, made.lose]
    for _ in range(steps):
        act = chance.choice(acts)
        act()
        made.claim(chance.choice(sorted(made.workers)))
        made.check_bounds()
        held = {name: float(total) for name, total in _held(made).items() if total}
        assert {name: round(total, 9) for name, total in site.holdings().items()} == held
    assert recount.faults(site.connection) == []
    print(dict(made.checked))
    assert made.checked["idle"], "it hardly checked anything"


def _held(made: Play) -> dict[str, Decimal]:
    total: dict[str, Decimal] = {}
    for task in made.running.values():
        for name, need in made.needs[task].items():
            total[name] = total.get(name, Decimal()) + Decimal(str(need))
    return total


def test_packing_at_random(connection: psycopg.Connection[Any]) -> None:
    """Never over-packed, free to the last digit, nothing idles that fits, and what is large starts within its bound."""
    chance = random.Random(seed_of("packing"))
    play(Site(connection), chance, steps=amount(300, 20_000))


def test_packing_lanes_at_random(connection: psycopg.Connection[Any]) -> None:
    """The same where lanes take turns."""
    chance = random.Random(seed_of("packing lanes"))
    play(Site(connection), chance, steps=amount(150, 10_000), lanes=True)
