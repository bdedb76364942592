"""What a run writes, kept in bounds and made into lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from absurd.workers.log import backlog
from absurd.workers.log.backlog import Backlog, Part

LIMIT = 64 * 1024


def text(parts: list[Part], stream: str | None = None) -> str:
    return "".join(piece for part in parts for name, _, piece in part.pieces if stream in (None, name))


def taken(*written: bytes, limit: int = LIMIT) -> str:
    made = Backlog(limit)
    for at, data in enumerate(written):
        made.add("stdout", float(at), data)
    return text(made.take(100.0, final=True))


def test_lines_are_taken_when_they_have_ended() -> None:
    """The beginning of a line waits for its end for a while; a character is never cut."""
    made = Backlog(LIMIT)
    assert made.waits_for(0.0) is None
    made.add("stdout", 0.0, b"one\ntw")
    assert made.waits_for(0.0) == 0.0

    assert "one\n" == text(made.take(0.0))
    assert made.waits_for(0.0) == backlog.PARTIAL_SECONDS
    made.add("stdout", 0.1, "o\nthr€".encode()[:-1])
    assert "two\n" == text(made.take(0.1))
    assert "thr" == text(made.take(1.0))
    made.add("stdout", 1.0, "€e\n".encode()[2:])
    assert "€e\n" == text(made.take(1.0))


def test_streams_keep_their_order() -> None:
    """Pieces come as they were read, each with its stream and time; an unfinished line of one hurts no other."""
    made = Backlog(LIMIT)
    for at, (stream, data) in enumerate([("stdout", b"a"), ("stderr", b"b\n"), ("stdout", b"c\n"), ("stderr", b"d\n")]):
        made.add(stream, float(at), data)

    (part,) = made.take(4.0)

    assert [("stderr", 1.0, "b\n"), ("stdout", 2.0, "ac\n"), ("stderr", 3.0, "d\n")] == part.pieces
    assert (7, 3, 0, 0) == (part.bytes, part.breaks, part.dropped_bytes, part.dropped_lines)


def test_the_first_and_the_last_half_are_kept() -> None:
    """The middle is dropped, by whole lines, and counted: what is kept and what is missing is all there was."""
    lines = [b"%09d\n" % each for each in range(100_000)]
    made = Backlog(LIMIT)
    for at, line in enumerate(lines):
        made.add("stdout", at / 1000, line)
    assert made.size < LIMIT + backlog.SLACK_BYTES + 1000
    parts = made.take(100.0, final=True)

    kept = text(parts)
    assert len(kept) <= LIMIT
    assert LIMIT * 0.8 < len(kept)
    dropped = [(part.dropped_bytes, part.dropped_lines) for part in parts if part.dropped_bytes]
    assert [(1_000_000 - len(kept), 100_000 - kept.count("\n"))] == dropped
    assert kept.startswith("000000000\n")
    assert kept.endswith("000099999\n")
    assert sum(len(each) == 9 for each in kept.split("\n")) >= kept.count("\n") - 1
    assert max(part.bytes for part in parts) <= backlog.LARGEST_PART
    assert made.waits_for(100.0) is None


def test_what_is_taken_in_between_counts() -> None:
    """Only what nobody has taken is dropped, and the first half is the first of all."""
    made = Backlog(LIMIT)
    seen = ""
    for at in range(100):
        made.add("stdout", float(at), b"x" * 999 + b"\n")
        seen += text(made.take(float(at)))

    assert made.over
    assert 100_000 == len(seen)


def test_bytes_one_by_one_are_bounded_too() -> None:
    """A run that alternates its streams byte by byte takes no more memory than another."""
    made = Backlog(LIMIT)
    for at in range(50_000):
        made.add(("stdout", "stderr")[at % 2], at / 1000, b"x")

    assert made.size < LIMIT + backlog.SLACK_BYTES + 1000
    parts = made.take(50.0, final=True)
    assert 50_000 == sum(part.bytes + part.dropped_bytes for part in parts)


def test_what_is_no_text_becomes_text() -> None:
    """Bytes that are no UTF-8 and NUL become U+FFFD, wherever reads cut."""
    assert "a\ufffdb\ufffdc€\n" == taken(b"a\xffb\0c\xe2", b"\x82\xac\n")
    assert "€" == taken(b"\xe2", b"\x82", b"\xac")
    assert "\ufffd" == taken(b"\xe2\x82")


def test_a_long_line_is_cut() -> None:
    """Without an end a line does not grow without end; put together the pieces are the line."""
    made = Backlog(1024 * 1024)
    made.add("stdout", 0.0, b"x" * 100_000)
    pieces = [piece for part in made.take(0.0) for _, _, piece in part.pieces]
    made.add("stdout", 0.1, b"y\n")
    pieces += [piece for part in made.take(0.1) for _, _, piece in part.pieces]

    assert "x" * 100_000 + "y\n" == "".join(pieces)
    assert max(map(len, pieces)) <= backlog.LARGEST_PART


def test_a_line_that_is_drawn_again_is_kept_as_drawn_last() -> None:
    """Of a progress bar a line comes once in a while, and its end; CR LF is an end of a line."""
    assert "a\nb\n" == taken(b"a\r\nb\r", b"\n")
    assert "100%\nnext\n" == taken(b"\r  1%", b"\r 50%", b"\r100%\n", b"next\n")
    made = Backlog(LIMIT)
    seen = []
    for tenth in range(200):
        made.add("stderr", tenth / 10, b"\r%d%%" % tenth)
        seen.append(text(made.take(tenth / 10)))
    made.add("stderr", 20.0, b"\n")
    seen.append(text(made.take(20.0)))

    told = [each for each in seen if each]
    assert 3 <= len(told) <= 5
    assert all(each.endswith("%\n") for each in told)


def test_what_cannot_be_stored_is_counted() -> None:
    """Dropped as a whole, it says so in the end."""
    made = Backlog(LIMIT)
    made.add("stdout", 0.0, b"one\ntwo\n")
    made.drop_all()
    assert [] == made.take(0.0)

    (part,) = made.take(0.0, final=True)

    assert (8, 2, backlog.REST_DROPPED) == (part.dropped_bytes, part.dropped_lines, text([part]))


@given(st.lists(st.binary(max_size=40), max_size=20), st.sampled_from([2, 100, 1000]))
def test_any_bytes_are_taken(written: list[bytes], limit: int) -> None:
    """Whatever is written: it becomes text that can be stored, and what fits is there."""
    result = taken(*written, limit=limit)

    assert "\0" not in result
    assert "\r" not in result
    result.encode()
    whole = b"".join(written).decode(errors="replace").replace("\0", "\ufffd")
    if limit == 1000 and "\r" not in whole and 64 * len(written) + len(whole.encode()) < 500:
        assert result == whole
