"""The screen of ``absurd top``: three tables, a log, and keys that act on the row under the cursor."""

from __future__ import annotations

import asyncio
from typing import ClassVar, TypeVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Footer, Header, RichLog, Static

from absurd import inspection, logs, orders, queue
from absurd.call import Call
from absurd.cli import top_rows
from absurd.cli.output import clean, plural
from absurd.cli.top_question import Question
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError
from absurd.model import TaskState

T = TypeVar("T")

SHOWN = 200
"""How many tasks are listed."""
TAIL = 200
"""How many of the last lines of a log."""
STATES = ("running", "pending", "sleeping", "blocked", "failed", "completed", "cancelled", None)
"""Which tasks are listed; None: all."""


class Top(App[None]):
    """Looks at the database every so many seconds, and says at the bottom what came of a key."""

    TITLE = "absurd top"
    CSS = """
    #above { height: 40%; min-height: 8; }
    DataTable { border: round $secondary; }
    DataTable:focus { border: round $accent; }
    #queues, #workers { width: 1fr; height: 100%; }
    #tasks { height: 1fr; }
    #log { height: 30%; border: round $secondary; display: none; }
    #told { height: auto; max-height: 3; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause/resume queue"),
        Binding("c", "cancel", "Cancel task"),
        Binding("r", "retry", "Retry task"),
        Binding("d", "drain", "Drain worker"),
        Binding("f", "filter", "Next state"),
        Binding("l", "log", "Log"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, database: AsyncDatabase, every: float) -> None:
        super().__init__()
        self._database = database
        self._every = every
        self._state: str | None = STATES[0]
        self._shown: str | None = None
        """The task whose log is shown."""
        self._looking = asyncio.Lock()
        self._paused: dict[str, bool] = {}
        self._draining: dict[str, bool] = {}

    def compose(self) -> ComposeResult:
        """Queues beside workers, tasks below them."""
        yield Header(show_clock=True)
        with Horizontal(id="above"):
            yield DataTable[Text](id="queues", cursor_type="row", zebra_stripes=True)
            yield DataTable[Text](id="workers", cursor_type="row", zebra_stripes=True)
        yield DataTable[Text](id="tasks", cursor_type="row", zebra_stripes=True)
        yield RichLog(id="log", wrap=True, max_lines=TAIL)
        yield Static(id="told")
        yield Footer()

    async def on_mount(self) -> None:
        """Open the database and look for the first time."""
        await self._database.open()
        for name, columns in top_rows.COLUMNS.items():
            table = self._table(name)
            table.border_title = name.capitalize()
            for label in columns:
                table.add_column(label, key=label)
        self.sub_title = self._database.address
        self._table("tasks").focus()
        await self.look()
        self.set_interval(self._every, self._look_again)

    async def on_unmount(self) -> None:
        """Close the database."""
        await self._database.close()

    async def _look_again(self) -> None:
        if not self._looking.locked():
            await self.look()

    async def look(self) -> None:
        """Bring all that is on the screen up to date; the cursor stays on its row."""
        async with self._looking:  # of two at once the one that saw less might be the last to show it
            await self._look()

    async def _look(self) -> None:
        try:
            status = await self._database.run(inspection.get_status())
            tasks = await self._database.run(inspection.list_tasks(state=self._state, limit=SHOWN))
            lines: list[logs.LogLine] | None = None
            if self._shown is not None:
                page = await self._database.run(logs.read_log(self._shown, tail=TAIL))
                lines = logs.last_lines(page.lines, TAIL)
        except AbsurdError as error:
            self.tell(error.message)
            return
        self._paused = {each["name"]: each["paused"] for each in status["queues"]}
        self._draining = {str(each["id"]): each["draining"] for each in status["workers"]}
        top_rows.fill(self._table("queues"), [(each["name"], top_rows.queue_row(each)) for each in status["queues"]])
        top_rows.fill(
            self._table("workers"), [(str(each["id"]), top_rows.worker_row(each)) for each in status["workers"]]
        )
        table = self._table("tasks")
        table.border_title = f"Tasks: {self._state or 'all'}"
        top_rows.fill(table, [(each["id"], top_rows.task_row(each)) for each in tasks])
        problems = status["problems"]
        table.border_subtitle = clean(problems[0]["message"]) if problems else "nothing is wrong"
        if lines is not None:
            self._show_lines(lines)

    def tell(self, text: str) -> None:
        """Say something at the bottom."""
        self.query_one("#told", Static).update(Text(clean(text)))

    async def action_pause(self) -> None:
        """Pause the queue under the cursor, or let it go on."""
        if (name := self._key("queues")) is None:
            return
        paused = not self._paused.get(name, False)
        await self._change(
            queue.set_queue_paused(name, paused=paused), f"queue {name} {'is paused' if paused else 'goes on'}"
        )

    def action_cancel(self) -> None:
        """Cancel the task under the cursor, once it was asked whether that is meant."""
        if (task := self._key("tasks")) is None:
            return

        async def answered(yes: bool | None) -> None:
            if yes:
                await self._change(queue.cancel_task(task, "absurd top"), f"task {task} is {{}}")

        _ = self.push_screen(Question(f"Cancel task {task}?"), answered)

    async def action_retry(self) -> None:
        """Give the task under the cursor, which has ended, one more attempt."""
        if (task := self._key("tasks")) is not None:
            await self._change(queue.retry_task(task), f"task {task} is {{}} again")

    async def action_drain(self) -> None:
        """Have the worker under the cursor leave once its runs have ended, or take that back."""
        if (worker := self._key("workers")) is None:
            return
        draining = not self._draining.get(worker, False)
        told = "claims nothing more" if draining else "claims again"
        await self._change(orders.drain_worker(int(worker), draining=draining), f"worker {worker} {told}")

    async def action_filter(self) -> None:
        """List the tasks of the next state."""
        self._state = STATES[(STATES.index(self._state) + 1) % len(STATES)]
        await self.look()

    async def action_log(self) -> None:
        """Show the log of the task under the cursor, or hide it."""
        task = self._key("tasks")
        self._shown = None if self._shown == task else task
        log = self.query_one("#log", RichLog)
        log.display = self._shown is not None
        log.border_title = f"Log of {self._shown}"
        log.clear()
        await self.look()

    async def _change(self, call: Call[T], told: str) -> None:
        try:
            state = await self._database.run(call)
        except AbsurdError as error:
            self.tell(error.message)
            return
        await self.look()  # first: who reads that it is done may press the key again
        self.tell(told.format(state.value if isinstance(state, TaskState) else state))

    def _table(self, name: str) -> DataTable[Text]:
        return self.query_one(f"#{name}", DataTable)

    def _key(self, name: str) -> str | None:
        """What the row under the cursor of a table is of."""
        found = top_rows.key_under_cursor(self._table(name))
        if found is None:
            self.tell(plural(0, name.rstrip("s")))
        return found

    def _show_lines(self, lines: list[logs.LogLine]) -> None:
        log = self.query_one("#log", RichLog)
        log.clear()
        for each in lines:
            log.write(Text(f"{each.at:%H:%M:%S} {clean(each.text)}", style="red" if each.stream == "stderr" else ""))
