"""Names and ids: a worker's claims carry ids, and its queues and executors are known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from absurd.call import Call
from absurd.loop import Loop
from absurd.workers.link import Link
from absurd.workers.pump.calls import get_names, set_listening
from absurd.workers.pump.pump import Pump
from absurd.workers.pump.source import Source

NOWHERE = 0
"""The id that stands for a queue which is not there yet: a claim there finds nothing."""
LOOK_SECONDS = 1.0
"""How often a worker looks for what is missing of its names."""


class Names:
    """The ids of a worker's queues, and executors by id.

    Names may be missing while the transaction that makes them is open, for hours perhaps: the worker works without
    them, and `look_out` finds them once they are there.
    """

    def __init__(
        self, link: Link, queues: Sequence[str], executors: Iterable[str], announce: Callable[[], Call[None]]
    ) -> None:
        self._link = link
        self._wanted = list(queues)
        self._own = frozenset(executors)
        self._announce = announce
        self._queues: dict[str, int] = {}
        self.executors: dict[int, str] = {}

    async def read(self) -> None:
        """Learn the ids that claims carry."""
        self._queues, executors = await self._link.run(get_names())
        self.executors.update(executors)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return len(self.queues) == len(self._wanted) and self._own <= set(self.executors.values())

    @property
    def queues(self) -> dict[str, int]:
        """Ids of the worker's queues, as far as they are there."""
        return {name: self._queues[name] for name in self._wanted if name in self._queues}

    def sources(self, weights: dict[str, int]) -> list[Source]:
        """What to claim from."""
        return [Source(name, self._queues.get(name, NOWHERE), weight) for name, weight in weights.items()]

    def look_out(self, pump: Pump, worker: int, stir: Callable[[], None]) -> Loop:
        """A loop that looks for what is missing until nothing is; `stir` has the rounds made soon."""

        async def look() -> float | None:
            if self.complete:
                return None
            await self._link.run(self._announce())
            await self.read()
            found = [each for each in pump.sources if each.queue_id == NOWHERE and each.name in self._queues]
            for source in found:
                source.queue_id = self._queues[source.name]
            if found:
                # As if the pump had just begun to listen: what was spawned meanwhile has notified nobody.
                await self._link.run(set_listening(worker, [each.queue_id for each in found], True))
                pump.listened += 1
                for source in found:
                    source.wake()
                pump.wake()
                stir()
            return None if self.complete else LOOK_SECONDS

        return Loop("names", look, pause=3600.0, longest_backoff=LOOK_SECONDS)
