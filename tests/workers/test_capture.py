"""The pipes of a child process, and what of them is shown where the worker logs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from live import soon
from memory_port import claim_of

from absurd.model import Claim
from absurd.workers.log.capture import READ_BYTES, SHOWN_BYTES, Capture, Mirror

LINES = b"a line\n" * 1000


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.written: dict[tuple[str, str], bytes] = {}

    def write(self, claim: Claim, stream: str, data: bytes) -> None:
        """Keep it."""
        self.written[claim.name, stream] = self.written.get((claim.name, stream), b"") + data


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


def shown(pipe: tuple[int, int]) -> bytes:
    found = b""
    while True:
        try:
            found += os.read(pipe[0], 1 << 20)
        except BlockingIOError:
            return found


def test_a_terminal_that_stands_still_holds_nobody_up(pipe: tuple[int, int]) -> None:
    """What finds no room is not shown, and how much that was is said once there is room again."""
    mirror = Mirror(pipe[1])
    for _ in range(100):
        mirror.write(LINES)
    before = shown(pipe)
    assert 0 < len(before) <= READ_BYTES

    mirror.write(b"here again\n")

    hidden = len(LINES) * 100 - len(before)
    note = f"[{hidden} bytes that runs have written are not shown here; see `absurd task logs`]\nhere again\n"
    assert note == shown(pipe).decode()


def test_a_flood_is_not_shown_as_a_whole(pipe: tuple[int, int]) -> None:
    """The worker's own log does not grow by what its runs write too much."""
    mirror = Mirror(pipe[1])
    seen = 0
    for _ in range(1000):
        mirror.write(LINES)
        seen += len(shown(pipe))

    assert seen < SHOWN_BYTES * 1.5


def test_nobody_to_show_it_to() -> None:
    """A log that is closed, or that nobody reads, does not end the work."""
    reader, writer = os.pipe()
    os.close(reader)
    mirror = Mirror(writer)
    mirror.write(LINES)
    os.close(writer)
    mirror.write(LINES)


async def test_what_is_written_belongs_to_the_run_that_goes_on(pipe: tuple[int, int]) -> None:
    """Before and between runs it is nobody's; at a run's end all that lies in the pipes is its own, and at the end."""
    kept = Kept()
    capture = Capture(kept, Mirror(pipe[1]))
    stdout, stderr = (os.dup(end) for end in capture.open())
    capture.start()
    first, second = claim_of("first"), claim_of("second")
    os.write(stdout, b"before\n")
    capture.begin(first)
    os.write(stdout, b"x" * READ_BYTES)
    os.write(stderr, b"one\n")
    capture.end()
    os.write(stdout, b"between\n")
    capture.begin(second)
    os.write(stdout, b"two\n")
    await soon(lambda: ("second", "stdout") in kept.written)
    os.write(stderr, b"last words\n")
    os.close(stdout)
    os.close(stderr)
    capture.close()

    assert kept.written == {
        ("first", "stdout"): b"x" * READ_BYTES,
        ("first", "stderr"): b"one\n",
        ("second", "stdout"): b"two\n",
        ("second", "stderr"): b"last words\n",
    }
    assert b"before\n" in shown(pipe)
