"""Executors that do to their process, and to what is around it, what scientific code does by accident."""

from __future__ import annotations

import atexit
import ctypes
import locale
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from absurd import StaleClaimError, executor
from absurd.executor import RunsIn

MIB = 1024**2
SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


def _note(path: str, text: object) -> None:
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


# Ends ----------------------------------------------------------------------------------------------


@executor("hostile.crash")
def crash(ctx: Any, params: dict[str, Any]) -> None:
    """Fault in native code, or give up there."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if params["how"] == "segfault":
        ctypes.string_at(0)
    os.abort()


@executor("hostile.bomb")
def bomb(ctx: Any, params: dict[str, Any]) -> None:
    """Two processes start two each, and so on, `levels` deep; all stay."""
    root, level = os.getpid(), 0
    while level < params["levels"]:
        level += 1
        for _ in range(2):
            if os.fork() == 0:
                break
        else:
            break
    _note(params["pids"], os.getpid())
    if os.getpid() != root:
        time.sleep(600)
    while len(Path(params["pids"]).read_text().split()) < 2 ** (params["levels"] + 1) - 1:
        time.sleep(0.005)


@executor("hostile.daemon")
def daemon(ctx: Any, params: dict[str, Any]) -> None:
    """Leave a process behind as daemons do: forked twice, in a session of its own, deaf to what asks it to end."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(each, signal.SIG_IGN)
            os.closerange(0, 1024)
            _note(params["pids"], os.getpid())
            time.sleep(600)
        os._exit(0)
    os.wait()
    while not (Path(params["pids"]).exists() and Path(params["pids"]).read_text()):
        time.sleep(0.005)
    if params.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)


@executor("hostile.deaf")
def deaf(ctx: Any, params: dict[str, Any]) -> None:
    """Ignore every request to end."""
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    _note(params["started"], os.getpid())
    time.sleep(600)


# Memory --------------------------------------------------------------------------------------------


def _eat(mib: int) -> list[bytearray]:
    eaten = []
    for _ in range(mib // 4):
        eaten.append(bytearray(4 * MIB))
        eaten[-1][::4096] = b"x" * 1024
    return eaten


@executor("hostile.eat")
def eat(ctx: Any, params: dict[str, Any]) -> int:
    """Take memory and keep it for a while, here, in an array, or in a process started for it."""
    mib = params["mib"]
    if params["where"] == "numpy":
        import numpy as np

        held: Any = np.ones(mib * MIB // 8)
    elif params["where"] == "process":
        text = f"import hostile_executors as h, time; held = h._eat({mib}); time.sleep({params.get('hold', 0)})"
        subprocess.run(
            [sys.executable, "-c", text], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        )
        return os.getpid()
    else:
        held = _eat(mib)
    time.sleep(params.get("hold", 0))
    del held
    return os.getpid()


@executor("hostile.share")
def share(ctx: Any, params: dict[str, Any]) -> int:
    """Hold memory that forked processes share with this one, while it is looked at."""
    held = _eat(params["mib"])
    children = []
    for _ in range(params["forks"]):
        if (child := os.fork()) == 0:
            time.sleep(600)
        children.append(child)
    time.sleep(params["hold"])
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(held)


# What is left in the process -----------------------------------------------------------------------


@executor("hostile.facts")
def facts(ctx: Any, params: Any) -> dict[str, Any]:
    """What an executor finds around it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return {
        "pid": os.getpid(),
        "folder": os.getcwd(),
        "umask": mask,
        "handlers": [str(signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)],
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "locale": locale.setlocale(locale.LC_ALL),
        "nice": os.nice(0),
        "environment": dict(os.environ),
        "threads": threading.active_count(),
        "session": os.getsid(0),
        "temporary": tempfile.gettempdir(),
        "standard files": [os.fstat(each).st_mode for each in range(3)],
    }


@executor("hostile.change")
def change(ctx: Any, params: dict[str, Any]) -> int:
    """Change one thing of the process, and leave it so."""
    match params["what"]:
        case "folder":
            os.chdir("/")
        case "umask":
            os.umask(0o777)
        case "handlers":
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGUSR1, lambda *_: None)
        case "mask":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        case "alarm":
            signal.alarm(600)
        case "files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        case "core":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        case "locale":
            locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) != "C.UTF-8" else "C")
        case "nice":
            os.nice(1)
        case "environment":
            os.environ["OMP_NUM_THREADS"] = "77"
        case "session":
            os.setsid()
        case "thread":
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        case "stuck":
            threading.Thread(target=time.sleep, args=(600,)).start()
        case "output":
            os.close(1)
        case "temporary":
            tempfile.tempdir = "/"
    return os.getpid()


@executor("hostile.at_exit")
def at_exit(ctx: Any, params: dict[str, Any]) -> int:
    """Have something done when the process ends."""
    atexit.register(_note, params["path"], "done")
    return os.getpid()


@executor("hostile.close")
def close(ctx: Any, params: dict[str, Any]) -> int:
    """Close every file there is, the channel to the worker among them; perhaps open one in its place."""
    os.closerange(0 if params["all"] else 3, 1024)
    if "path" in params:
        for _ in range(20):
            os.open(params["path"], os.O_RDWR | os.O_CREAT)
    return os.getpid()


@executor("hostile.write")
def write(ctx: Any, params: dict[str, Any]) -> int:
    """Write to every file that is open, as a program does that has mixed up its numbers."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.write(int(name), params["text"].encode())
            except OSError:
                continue
    return os.getpid()


# Scratch and claims --------------------------------------------------------------------------------


def scratch(ctx: Any, params: dict[str, Any]) -> str:
    """Write to the scratch folder, with what makes it hard to remove; then do as told."""
    folder = Path(ctx.scratch)
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "deep" / "deeper" / "file").write_text("data")
    (folder / "link").symlink_to(params["kept"])
    (folder / "deep").chmod(0o500)
    _note(params["started"], folder)
    match params["then"]:
        case "raise":
            raise ValueError("no")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "leave":
            subprocess.Popen(SLEEPER, cwd=folder)
    return str(ctx.scratch)


@executor("hostile.scratch.loop")
async def scratch_in_loop(ctx: Any, params: dict[str, Any]) -> str:
    """As `scratch`."""
    return scratch(ctx, params)


_PLACES: tuple[RunsIn, ...] = ("thread", "process")
for _where in _PLACES:
    executor(f"hostile.scratch.{_where}", runs_in=_where)(scratch)


@executor("hostile.temporary")
def temporary(ctx: Any, params: Any) -> list[str]:
    """Where temporary files go, of this process and of a program, and the scratch folder."""
    program = subprocess.run(["sh", "-c", "echo $TMPDIR"], capture_output=True, text=True, check=True)
    return [tempfile.gettempdir(), program.stdout.strip(), str(ctx.scratch_made or "")]


@executor("hostile.lost")
def lost(ctx: Any, params: dict[str, Any]) -> None:
    """Work until the claim is lost, as `by` learns it, and put things in order then, which takes its time."""

    def ask_on() -> None:
        with suppress(StaleClaimError):
            while True:
                ctx.heartbeat()
        _note(params["path"], "unwinding")

    try:
        if params["by"] == "thread":
            threading.Thread(target=ask_on).start()
        elif params["by"] == "closed":
            os.close(ctx._port._write.fileno())
        while True:
            if params["by"] == "artifact":
                ctx.artifact(params["path"] + ".fits")
            elif params["by"] != "thread":
                ctx.heartbeat()
            time.sleep(0.005)
    finally:
        if params["by"] != "thread":
            _note(params["path"], "unwinding")
        while not Path(params["go"]).exists():
            time.sleep(0.005)
        try:
            ctx.progress(1, 1)
        except StaleClaimError:
            _note(params["path"], "unwound")


@executor("hostile.calm", runs_in="thread")
def calm(ctx: Any, params: Any) -> int:
    """Do no harm, in the worker's own process."""
    return os.getpid()
