"""Readers that run ahead of the writer: how far, and in which order their rows come."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from absurd.tasks.export.block import Block
from absurd.tasks.export.meter import Meter
from absurd.tasks.export.pipeline import Failure, Pipeline

BLOCK = 10
"""Bytes of each block."""
DEADLINE = 30.0


class Counting:
    """Reads parts of `blocks` blocks each, and knows how many were read and not yet taken."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.made = 0
        self.ahead = 0
        self.most_ahead = 0
        self.changed = threading.Condition()

    def read(self, part: int) -> Iterator[Block]:
        for number in range(self.blocks):
            with self.changed:
                self.made += 1
                self.ahead += 1
                self.most_ahead = max(self.most_ahead, self.ahead)
                self.changed.notify_all()
            yield Block((part, number), BLOCK, BLOCK, self._taken)

    def has_made(self, blocks: int) -> bool:
        return self.made >= blocks

    def _taken(self) -> None:
        with self.changed:
            self.ahead -= 1


def run(readers: Sequence[Counting], parts: int, block_size: int, *, wait_for: int) -> list[Any]:
    """What the writer takes, once `wait_for` blocks are made."""

    def write(pipeline: Pipeline) -> list[Any]:
        for reader in readers:
            with reader.changed:
                assert reader.changed.wait_for(partial(reader.has_made, wait_for), DEADLINE)
        taken = []
        for item in pipeline.taken():
            assert not isinstance(item, Failure)
            taken.append(item.batch)
            item.recycle()
        return taken

    with Pipeline(parts, readers, Meter(), write, block_size) as pipeline:
        assert pipeline.wait(DEADLINE)
    return list(pipeline.result)


@pytest.mark.parametrize("block_size", [1, 50, 1000])
def test_what_is_read_ahead_is_bounded(block_size: int) -> None:
    """A reader runs ahead by that many bytes and the block that it has in hand, and no further."""
    reader = Counting(blocks=300)
    bound = max(1, -(-block_size // BLOCK))

    taken = run([reader], 1, block_size, wait_for=bound)

    assert taken == [(0, number) for number in range(300)]
    assert bound <= reader.most_ahead <= bound + 2  # one more is in the hand of the reader, one in that of the writer


def test_rows_come_in_order_from_several_readers() -> None:
    """However far one is ahead, the parts come one after the other, and the bound makes none wait in a circle."""
    readers = [Counting(blocks=20) for _ in range(3)]

    taken = run(readers, 12, 3 * BLOCK, wait_for=0)

    assert taken == [(part, number) for part in range(12) for number in range(20)]
