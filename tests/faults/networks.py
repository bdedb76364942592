"""Hosts with networks of their own on one machine: a namespace each, and a switch between them and the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from absurd import SyncAbsurdClient
from absurd.config import load_settings
from absurd.embedded import EmbeddedServer
from absurd.embedded_binaries import choose, executable_by
from absurd.embedded_place import Place

PORT = 5999


def ip(*words: str) -> None:
    """Run the command of that name; raises CalledProcessError with what it said."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def why_not() -> str | None:
    """Why no network can be made here; None where one can."""
    name = f"absurd-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except FileNotFoundError:
        return "needs the command `ip` (package iproute2)"
    except subprocess.CalledProcessError as error:
        return f"needs the right to make network namespaces: {error.stderr.strip()}"
    return None


class Host:
    """A host of the network: a namespace with an address and a name of its own."""

    def __init__(self, network: Network, number: int) -> None:
        self.name = f"host{number}"
        self._space = f"absurd-{os.getpid()}-{number}"
        self._cable = f"ab{os.getpid() % 100_000}v{number}"
        self._network = network
        self.processes: list[subprocess.Popen[bytes]] = []
        ip("netns", "add", self._space)
        ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._space)
        ip("link", "set", self._cable, "master", network.switch, "up")
        ip("-n", self._space, "addr", "add", f"{network.prefix}.{number + 1}/24", "dev", "eth0")
        ip("-n", self._space, "link", "set", "lo", "up")
        ip("-n", self._space, "link", "set", "eth0", "up")

    @property
    def log(self) -> str:
        """What the processes of this host have said."""
        return self._network.folder.joinpath(f"{self.name}.log").read_text()

    def run(self, *words: str, **settings: Any) -> subprocess.Popen[bytes]:
        """Start a Python module there, with settings by their names; its receipts are this host's own."""
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[1]),  # where executors for tests are
            "ABSURD_DATABASE_URL": self._network.url,
            "ABSURD_HOME": str(self._network.folder / self.name),
            **{f"ABSURD_{name.upper()}": str(value) for name, value in settings.items()},
        }
        named = f'echo {self.name} > /proc/sys/kernel/hostname && exec "$@"'
        with self._network.folder.joinpath(f"{self.name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._space, "unshare", "--uts", "sh", "-c", named, "sh", sys.executable, "-m",
                 *words],
                env=environment,
                cwd="/",
                stdout=log,
                stderr=log,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def unplug(self) -> None:
        """Cut the host off: what it sends is lost, and nobody tells it or the server."""
        ip("link", "set", self._cable, "down")

    def plug(self) -> None:
        """Heal the network."""
        ip("link", "set", self._cable, "up")

    def close(self) -> None:
        """End what runs there, and take the host away."""
        for process in self.processes:
            process.kill()
            process.wait()
        with suppress(subprocess.CalledProcessError):
            ip("netns", "del", self._space)


class Network:
    """A switch, the database server at its first address, and hosts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.switch = f"ab{os.getpid() % 100_000}sw"
        self.prefix = f"10.213.{os.getpid() % 250}"
        self.url = f"postgresql://absurd@{self.prefix}.1:{PORT}/absurd"
        self.hosts: list[Host] = []

    @contextmanager
    def up(self, hosts: int) -> Iterator[Network]:
        """It with so many hosts, for as long as the block lasts; nothing is left of it then, whatever happens."""
        server = None
        try:
            ip("link", "add", self.switch, "type", "bridge")
            ip("addr", "add", f"{self.prefix}.1/24", "dev", self.switch)
            ip("link", "set", self.switch, "up")
            server = self._serve()
            for number in range(1, hosts + 1):
                self.hosts.append(Host(self, number))
            yield self
        finally:
            for host in self.hosts:
                host.close()
            if server is not None:
                server.send_signal(signal.SIGINT)  # it hangs up on all
                server.wait()
            with suppress(subprocess.CalledProcessError):
                ip("link", "del", self.switch)

    def _serve(self) -> subprocess.Popen[bytes]:
        """The embedded server's data, served on the network, which the embedded server never does by itself."""
        settings = load_settings(environ={}, home=self.folder / "home")
        with SyncAbsurdClient(settings=settings):  # which installs the queue
            pass
        EmbeddedServer(settings).stop()
        record, account = Place(settings.home).settle()
        with (record.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"\nhost all all {self.prefix}.0/24 trust\n")
        programs = executable_by(choose(None, record.data, record.major, record.bin), account)
        options = {
            "listen_addresses": f"{self.prefix}.1",
            "port": str(PORT),
            "unix_socket_directories": str(record.sockets),
        }
        with (self.folder / "server.log").open("wb") as log:
            return subprocess.Popen(
                [
                    programs.bin / "postgres",
                    "-D",
                    record.data,
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                stderr=log,
                cwd="/",
                **account.process_options(),
            )
