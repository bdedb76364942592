"""The documentation: every command shown is executed, every table is the code's, every link leads somewhere.

A fenced ``console`` block is a session: lines that begin with ``$`` are executed, in order, in one shell and one
scratch folder for each page; the lines after a command are its output, in which ``…`` stands for anything.  A comment
before a block says how it differs:

    <!-- test: file=PATH -->     the block is the content of a file
    <!-- test: background -->    the command runs until the end of the page
    <!-- test: alone -->         what ran in the background is stopped before
    <!-- test: make -->          the targets exist; CI itself and tests of the command line run what they run
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import reference
from commands import commands_in, what_is_wrong
from house import ROOT, files, name, run, told
from ready_server import ReadyServer

from absurd import errors
from absurd.config import Settings
from absurd.embedded import EmbeddedServer
from absurd.embedded_binaries import choose
from absurd.model import TaskState

PAGES = [
    path for path in files("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md") if path not in reference.PAGES
]
BLOCK = re.compile(
    r"(?:^<!-- test: (?P<how>[^\n]*?) -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
FIRST = {ROOT / "README.md", ROOT / "docs" / "quickstart.md"}
"""Pages whose first command makes the server; the others suppose that there is one."""
ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    how: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command with the output that the page shows for it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that a test has to do with."""
    text = page.read_text(encoding="utf-8")
    return [Block(each["language"], each["how"] or "", each["text"]) for each in BLOCK.finditer(text)]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "console" for b in blocks(page))], ids=name
)
def test_every_command_shown_works(page: Path, tmp_path: Path, ready_server: ReadyServer) -> None:
    """Each command of a page succeeds, in a scratch home with a server of its own, and says what the page shows."""
    folder = tmp_path / "folder"
    folder.mkdir()
    environ = _environment(tmp_path)
    if page not in FIRST:
        ready_server.lay(tmp_path / "data")
    session = Session(folder, environ)
    try:
        for block in blocks(page):
            if block.how.startswith("file="):
                target = folder / block.how.removeprefix("file=")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text, encoding="utf-8")
            elif block.language == "console":
                if block.how == "alone":
                    session.stop()
                for command, output in block.commands():
                    if block.how == "make":
                        _check_make(command)
                    elif block.how == "background":
                        session.start(command)
                    else:
                        session.say(command, output)
        session.stop()
    finally:
        session.kill()
        EmbeddedServer(Settings(home=tmp_path / "data")).destroy()


def test_every_console_block_has_a_command() -> None:
    """A console block without a ``$`` would be executed by no test."""
    silent = [name(page) for page in PAGES for b in blocks(page) if b.language == "console" and not list(b.commands())]

    assert silent == []


def test_every_block_of_a_shell_is_a_console() -> None:
    """Commands in a block of another kind would be executed by no test."""
    odd = [name(page) for page in PAGES for block in blocks(page) if block.language in ("bash", "sh", "shell", "zsh")]

    assert odd == []


def test_python_blocks_are_executed() -> None:
    """A block of Python is the content of a file that a command on the page runs or imports."""
    shown = [
        name(page) for page in PAGES for b in blocks(page) if b.language == "python" and not b.how.startswith("file=")
    ]

    assert shown == []


@pytest.mark.parametrize("page", list(reference.PAGES), ids=name)
def test_reference_pages_are_those_of_the_code(page: Path) -> None:
    """Settings, errors and commands are documented as they are; ``make docs`` writes the pages anew."""
    assert reference.PAGES[page]() == page.read_text(encoding="utf-8"), "run `make docs`"


@pytest.mark.parametrize("page", [*PAGES, *reference.PAGES, ROOT / "CHANGELOG.md"], ids=name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    """A link between pages names a file that exists."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [link["target"].partition("#")[0] for link in LINK.finditer(text) if "://" not in link["target"]]

    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_every_command_named_is_there() -> None:
    """Commands that a text names between backticks exist, with the options that it gives them."""
    named = [(page, each) for page in [*PAGES, ROOT / "CHANGELOG.md"] for each in commands_in(page.read_text("utf-8"))]

    assert [(name(page), each, wrong) for page, each in named if (wrong := what_is_wrong(each))] == []


def test_every_page_can_be_reached() -> None:
    """From the front page of the documentation there is a way to each other page."""
    start = ROOT / "docs" / "index.md"
    reached, open_ = {start}, [start]
    while open_:
        page = open_.pop()
        for link in LINK.finditer(page.read_text(encoding="utf-8")):
            target = (page.parent / link["target"].partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_relative_to(ROOT / "docs") and target not in reached:
                reached.add(target)
                open_.append(target)

    assert {name(page) for page in files("docs/**/*.md")} == {name(page) for page in reached}


def test_every_state_is_explained() -> None:
    """The page on states names each state, and each function in its table exists in the schema."""
    text = (ROOT / "docs" / "concepts" / "states.md").read_text(encoding="utf-8")
    table = text.partition("<!-- test: transitions -->")[2].partition("\n## ")[0]
    named = {found for line in table.splitlines() for found in re.findall(r"`(\w+)`", "".join(line.split("|")[3:4]))}
    sql = "\n".join(path.read_text(encoding="utf-8") for path in files("schema/sql/*.sql"))
    defined = set(re.findall(r"create (?:or replace )?function (\w+)\(", sql))

    assert [state for state in TaskState if f"| `{state}` |" not in text] == []
    assert named - defined == set()


def test_each_guarantee_names_its_proof() -> None:
    """Every section of the guarantees names tests that exist."""
    sections = (ROOT / "docs/concepts/guarantees.md").read_text(encoding="utf-8").split("\n## ")[1:]

    for section in sections:
        proofs = re.findall(r"`(tests/[\w/]+\.py)`", section.partition("Proof:")[2])
        assert proofs, section.splitlines()[0]
        assert [each for each in proofs if not (ROOT / each).is_file()] == []


def test_every_public_function_is_documented() -> None:
    """Each SQL function whose name has no leading underscore has a comment, which the reference shows."""
    sql = "\n".join(path.read_text(encoding="utf-8") for path in files("schema/sql/*.sql"))
    defined = set(re.findall(r"^create (?:or replace )?function ([a-z]\w*)\(", sql, re.MULTILINE))
    page = (ROOT / "docs" / "reference" / "sql.md").read_text(encoding="utf-8")

    assert {each for each in defined if f"| `{each}(" not in page} == set()


def test_every_error_has_a_code_of_its_own() -> None:
    """No two errors share a code, so that a program can tell them apart."""
    found = [
        each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.AbsurdError)
    ]

    assert len(found) == len(set(found))


class Session:
    """A shell that lives for a page, with the folder and the variables that its commands leave behind."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._environ = environ
        self._state = folder.parent / "state.sh"
        self._state.write_text(f"cd {shlex.quote(str(folder))}\n", encoding="utf-8")
        self._background: list[tuple[str, Path, subprocess.Popen[bytes]]] = []

    def say(self, command: str, expected: str) -> None:
        """Run `command`; it must succeed and print `expected`."""
        keep = f"declare -px >{self._state}; echo cd $PWD >>{self._state}"
        script = f"set -a; source {self._state}\n{command}\nstatus=$?; {keep}; exit $status"
        result = run("bash", "-c", script, environ=self._environ, seconds=300)

        assert result.returncode == 0, f"$ {command}\n{told(result)}{self._heard()}"
        said = "\n".join(line.rstrip() for line in result.stdout.splitlines())
        pattern = ".*".join(re.escape(part) for part in expected.strip().split(ANYTHING))
        assert re.fullmatch(pattern, said.strip(), re.DOTALL), f"$ {command}\nexpected:\n{expected}\n{told(result)}"

    def start(self, command: str) -> None:
        """Run `command` until `stop`."""
        log = self._state.with_name(f"background-{len(self._background)}.log")
        with log.open("wb") as stream:
            started = subprocess.Popen(
                ["bash", "-c", f"source {self._state}\nexec env {command}"],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._background.append((command, log, started))

    def stop(self) -> None:
        """Stop what runs in the background as Ctrl-C would; it must still have run, and leave in good order.

        What was started last goes first: a Dask worker whose scheduler is gone takes ten seconds to leave.
        """
        ended_before = [command for command, _, started in self._background if started.poll() is not None]
        codes = {}
        for command, _, started in reversed(self._background):
            os.killpg(started.pid, signal.SIGINT)
            codes[command] = started.wait(60)

        assert ended_before == [], self._heard()
        assert set(codes.values()) <= {0}, f"{codes}{self._heard()}"
        self._background.clear()

    def kill(self) -> None:
        """Leave nothing behind, whatever happened."""
        for _, _, started in self._background:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()

    def _heard(self) -> str:
        return "".join(f"\n{command}:\n{log.read_text()}" for command, log, _ in self._background)


def _environment(home: Path) -> dict[str, str]:
    """A user who has just installed the project: nothing set but the path, which has the clients of PostgreSQL too."""
    clients = choose(None, home / "none", None).bin
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(clients)])
    return {"PATH": path, "HOME": str(home), "ABSURD_HOME": str(home / "data"), "PYTHONPATH": "", "PWD": str(home)}


def _check_make(command: str) -> None:
    """The targets that `command` names exist; other commands of such a block set up the reader's shell."""
    words = shlex.split(command)
    if words[0] == "make":
        result = run("make", "-n", *words[1:])
        assert result.returncode == 0, told(result)
