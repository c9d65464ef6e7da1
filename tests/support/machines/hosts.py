"""Machines of a laboratory on this one: hosts with names, processes, addresses and lines of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = "198.18.55"  # of the addresses that are set aside for trials of networks (RFC 2544)


@dataclass(frozen=True)
class Host:
    """A host, whose processes see its own name, network and process ids.

    Args:
        name: of the host and of its network namespace.
        address: on the line to the others.
        line: the other end of this line.
    """

    name: str
    address: str
    line: str

    def start(self, command: Sequence[object], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a command there, which writes into a log. Killing the process ends all that the command started."""
        own = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
        named = 'hostname "$0" && exec "$@"'
        inside = ["ip", "netns", "exec", self.name, *own, named, self.name]
        with log.open("ab") as file:
            command = [*inside, *map(str, command)]
            return subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def cut(self) -> None:
        """Pull the plug out of the switch: from now on nothing arrives, and nobody is told so."""
        _ip("link", "set", self.line, "down")

    def mend(self) -> None:
        """Put it back."""
        _ip("link", "set", self.line, "up")


@contextmanager
def open_hosts(count: int) -> Iterator[tuple[str, list[Host]]]:
    """Connect hosts with each other and with this machine; yields its address there, and the hosts.

    Raises:
        PermissionError: that is not permitted here.
    """
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "hostname"))):
        raise PermissionError("needs root, ip, unshare and hostname")
    with ExitStack() as made:
        own, bridge = f"{NETWORK}.1", f"tl{os.getpid()}"
        _ip("link", "add", bridge, "type", "bridge")
        made.callback(_ip, "link", "del", bridge)
        _ip("address", "add", f"{own}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        hosts = []
        for number in range(count):
            host = Host(f"{bridge}-{number}", f"{NETWORK}.{number + 2}", f"{bridge}v{number}")
            _ip("netns", "add", host.name)
            made.callback(_ip, "netns", "del", host.name)
            _ip("link", "add", host.line, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("link", "set", host.line, "master", bridge, "up")
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host.name, "link", "set", device, "up")
            hosts.append(host)
        yield own, hosts


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
