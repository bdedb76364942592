"""What is told to sessions goes on to the event feed of the database, for those who follow from elsewhere."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from typing import Any, NamedTuple

from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.tasks.session import journal
from absurd.tasks.session.following import KINDS
from absurd.tasks.session.sealer import Client
from absurd.tasks.session.values import moment

FOLLOWED = frozenset(map(ord, (journal.START, journal.LOG, journal.EVENT, journal.END, journal.LEFT)))
"""Kinds of entries that are told; telemetry and frames are too many for those who read along."""
PAUSE = 0.5
"""Seconds for which entries are gathered."""
AT_ONCE = 64 << 10
"""Bytes of entries that are told in one call; an entry that is larger is left out."""
MOST_WAITING = 1 << 20
"""Bytes of entries that wait to be told; beyond that the oldest are left out."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds after which a database that is away is asked again."""

PATIENCE = 5.0
"""Seconds for which the end of a manager waits for what is being told."""

_log = logging.getLogger("absurd.session")


class _Batch(NamedTuple):
    """Entries of one session that are told together, and how many before them were left out."""

    session_id: str
    records: list[bytes]
    missed: int


class Live:
    """Tells entries on from a thread of its own.

    Who writes the journal never waits for the database: while that is away, or slow, entries wait in a bounded place,
    the oldest are left out, and how many these are is told with the next.  The journal is what counts, so all that
    goes wrong here ends in a line of the log.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._missed: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopping = False
        self._given_up = False
        self._away = False
        self._thread = threading.Thread(target=self._run, name="absurd-live", daemon=True)
        self._thread.start()

    def offer(self, session_id: str, records: list[bytes]) -> None:
        """Have those of some records of a journal told on that are followed."""
        wanted = [each for each in records if each[journal.KIND] in FOLLOWED]
        if not wanted or self._given_up:
            return
        with self._changed:
            self._waiting.extend((session_id, each) for each in wanted)
            self._bytes += sum(map(len, wanted))
            while self._bytes > MOST_WAITING:
                self._leave_out()
            self._changed.notify_all()

    def close(self) -> None:
        """Tell what waits, unless the database is away, and end; one that does not answer is not waited for long."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while self._gather():
            batch = self._take()
            if self._tell(batch):
                pause = FIRST_PAUSE
            elif self._given_up:
                return
            else:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _gather(self) -> bool:
        """Wait until there is something to tell; false when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            self._changed.wait_for(lambda: self._stopping, PAUSE)
            return bool(self._waiting) and not (self._stopping and self._away)

    def _take(self) -> _Batch:
        """The oldest entries that wait, of one session."""
        with self._changed:
            session_id = self._waiting[0][0]
            records, size = [], 0
            while self._waiting and self._waiting[0][0] == session_id:
                record = self._waiting[0][1]
                if len(record) > AT_ONCE:
                    self._leave_out()
                    continue
                size += len(record)
                if size > AT_ONCE:
                    break
                records.append(self._waiting.popleft()[1])
                self._bytes -= len(record)
            return _Batch(session_id, records, self._missed.pop(session_id, 0))

    def _put_back(self, batch: _Batch) -> None:
        with self._changed:
            self._waiting.extendleft((batch.session_id, each) for each in reversed(batch.records))
            self._bytes += sum(map(len, batch.records))
            self._missed[batch.session_id] += batch.missed

    def _tell(self, batch: _Batch) -> bool:
        """Tell some entries; false if that could not be done."""
        entries = [_entry(each) for each in batch.records]
        try:
            watched = self._client.tell_session(batch.session_id, entries, batch.missed)
        except DatabaseUnavailableError as error:
            if not self._away:
                _log.warning("sessions cannot be followed until the database is back: %s", error)
            self._away = True
            self._put_back(batch)
            return False
        except AbsurdError as error:
            _log.error("sessions cannot be followed in the database: %s", error)
            self._given_up = True
            return False
        if self._away:
            _log.info("sessions can be followed again")
        self._away = False
        if not watched:
            self._forget()
        return True

    def _forget(self) -> None:
        """Nobody watches: who begins to has missed nothing."""
        with self._changed:
            self._waiting.clear()
            self._missed.clear()
            self._bytes = 0

    def _leave_out(self) -> None:
        session_id, record = self._waiting.popleft()
        self._bytes -= len(record)
        self._missed[session_id] += 1


def _entry(record: bytes) -> dict[str, Any]:
    found = journal.unpack(record)
    told = {"number": found.number, "time": moment(found.time_ns), "kind": KINDS[found.kind]}
    return told | {"value": found.value}
