# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual machines: each as its image was when it had just booted, reached by ssh on loopback, gone without a trace.

A machine is a folder in .cache/vm/run: its own copy of the disk, its console's log, the sockets of its interfaces, and
an ssh_config with its name (`ssh -F .cache/vm/run/NAME/ssh_config NAME`). Beside the interface for ssh it has three,
each either alone or wired to one of another machine, or of itself: to the same one, unless another is said.

    python3 tests/vm/machine.py up NAME [--suite bookworm] [--wire 1=OTHER ...] [--wire 2=NAME:3 ...]
    python3 tests/vm/machine.py ssh NAME [COMMAND ...]
    python3 tests/vm/machine.py restart NAME
    python3 tests/vm/machine.py down [NAME ...]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from image import HOME, MANAGEMENT_MAC, SUITES, Image, image, key, locked, say

RUN = HOME / "run"
LANS = (1, 2, 3)

#: The state of a machine that has booted, within the file of its disk.
_READY = "ready"
#: Longer than the slowest boot on a busy machine without KVM.
_BOOT_SECONDS = 300

_SSH_CONFIG = """\
Host {name}
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile "{key}"
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 10
"""


class Machine(NamedTuple):
    """A machine that runs."""

    name: str
    suite: str
    pid: int
    port: int
    #: What its interfaces are wired to, by their numbers, as --wire says it.
    wires: Mapping[int, str]

    @property
    def folder(self) -> Path:
        return RUN / self.name

    def ssh_command(self, *command: str) -> list[str]:
        return ["ssh", "-F", str(self.folder / "ssh_config"), self.name, *command]

    def run(self, *command: str) -> str:
        """The output of a command inside, which the shell there reads."""
        answer = subprocess.run(self.ssh_command(*command), capture_output=True, text=True, check=False)
        if answer.returncode:
            raise SystemExit(f"{self.name}: {' '.join(command)}: {answer.stderr.strip() or answer.returncode}")
        return answer.stdout


# --- starting --------------------------------------------------------------------------------------------------------


def up(name: str, suite: str = SUITES[0], wires: Mapping[int, str] | None = None) -> Machine:
    """Start a machine, or return the one that runs already."""
    found = running().get(name)
    if found:
        if (found.suite, found.wires) != (suite, wires or {}):
            raise SystemExit(f"the machine {name!r} runs already, and is another one; end it first, with 'down {name}'")
        return found
    with locked():
        made_from = _booted(image(suite))
    folder = RUN / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", made_from.disk, folder / "disk.qcow2"], check=True)
    machine = _start(made_from, name, _free_port(), wires or {}, ["-loadvm", _READY])
    try:
        _await_ssh(machine)
        _make_its_own(machine)
    except BaseException:
        # Its logs tell why.
        _stop(machine)
        raise
    return machine


def restart(name: str) -> Machine:
    """Shut a machine down and boot it, from its disk alone. It keeps its port and its wires.

    A warm reboot of a machine that was started from a state of an emulated one ends in soft lockups.
    """
    old = named(name)
    # The connection may end before the answer comes.
    subprocess.run(old.ssh_command("systemctl poweroff"), capture_output=True, check=False, timeout=_BOOT_SECONDS)
    _await_end(old, _BOOT_SECONDS)
    machine = _start(image(old.suite), name, old.port, old.wires, [])
    _await_ssh(machine)
    return machine


def _make_its_own(machine: Machine) -> None:
    """Tell a machine the time, its name and its addresses."""
    name = machine.name
    # Its clock has stood still, and all that is made from one image has the same name and the same addresses.
    script = [f"date --set @{time.time():.0f} > /dev/null", f"hostnamectl hostname {name}"]
    for lan in LANS:
        match = f"[Match]\nPermanentMACAddress={_hardware_mac(lan)}\n"
        link = f"[Link]\nMACAddressPolicy=none\nMACAddress={_mac(name, lan)}\nNamePolicy=keep path\n"
        script.append(f"echo '{match}{link}' > /etc/systemd/network/20-lan{lan}.link")
        script.append(f"ip link set {interface(lan)} address {_mac(name, lan)}")
    machine.run(" && ".join(script))


def interface(lan: int) -> str:
    """What udev calls an interface inside, by the slot that it has."""
    return f"enp0s{lan + 3}"


def _hardware_mac(lan: int) -> str:
    return f"52:54:00:00:01:{lan:02x}"


def _mac(name: str, lan: int) -> str:
    number = zlib.crc32(name.encode()) & 0xFFFFFF
    return f"52:54:{lan:02x}:{number >> 16:02x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


def _start(made_from: Image, name: str, port: int, wires: Mapping[int, str], options: Sequence[str]) -> Machine:
    folder = RUN / name
    with open(folder / "qemu.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*_command(made_from, port, wires), *options],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    machine = Machine(name, made_from.suite, process.pid, port, wires)
    (folder / "ssh_config").write_text(_SSH_CONFIG.format(name=name, port=port, key=key()))
    (folder / "machine.json").write_text(json.dumps(machine._asdict()))
    return machine


def _command(made_from: Image, port: int, wires: Mapping[int, str]) -> list[str]:
    """The command that runs a machine, in its folder."""
    command = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
        # A stock kernel of Debian hangs in the KVM of some machines, and others have none.
        # One processor, so that as many machines as the one at hand has processors do not wait for each other.
        "-machine", "q35", "-accel", "tcg,thread=multi", "-smp", "1", "-m", "1024",
        # The kernel of trixie panics with lesser processors. What is left out is slower than what is used in its place.
        "-cpu", "max,la57=off,avx=off,avx2=off",
        "-kernel", str(made_from.kernel), "-initrd", str(made_from.initrd),
        "-append", "root=/dev/vda rw console=ttyS0 quiet mitigations=off audit=0",
        "-serial", "file:console.log", "-qmp", "unix:monitor,server=on,wait=off",
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng,addr=0x2",
        "-drive", "file=disk.qcow2,if=none,id=disk,cache=unsafe", "-device", "virtio-blk-pci,drive=disk,addr=0x8",
        "-netdev", f"user,id=ssh,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
        "-device", f"virtio-net-pci,netdev=ssh,mac={MANAGEMENT_MAC},addr=0x3",
    ]  # fmt: skip
    for lan in LANS:
        other, _colon, remote = wires.get(lan, "").partition(":")
        if other:
            ends = f"local.type=unix,local.path=lan{lan},remote.type=unix,remote.path=../{other}/lan{remote or lan}"
            command += ["-netdev", f"dgram,id=lan{lan},{ends}"]
        else:
            command += ["-netdev", f"hubport,id=lan{lan},hubid={lan}"]
        command += ["-device", f"virtio-net-pci,netdev=lan{lan},mac={_hardware_mac(lan)},addr={lan + 3:#x}"]
    return command


def _free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def _await_ssh(machine: Machine) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < deadline:
        if not _is_running(machine):
            log = (machine.folder / "qemu.log").read_text(errors="replace")
            raise SystemExit(f"the machine {machine.name} has ended: {log.strip()}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            answer = subprocess.run(machine.ssh_command("true"), capture_output=True, check=False, timeout=30)
            if answer.returncode == 0:
                return
        time.sleep(0.2)
    raise SystemExit(f"the machine {machine.name} does not answer: see {machine.folder / 'console.log'}")


def _booted(made_from: Image) -> Image:
    """The image with the state of a machine in it that has booted from it."""
    ready = made_from.folder / _READY
    recipe = hashlib.sha256(repr(_command(made_from, 0, {})).encode()).hexdigest()
    if ready.exists() and ready.read_text() == recipe:
        return made_from
    say(f"Booting the image {made_from.suite} once")
    folder = RUN / f".{made_from.suite}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(made_from.disk, folder / "disk.qcow2")
    machine = _start(made_from, folder.name, _free_port(), {}, [])
    try:
        _await_ssh(machine)
        machine.run("systemctl is-system-running --wait || systemctl --failed --no-legend; sync")
        with _monitor(machine) as ask:
            said = ask("human-monitor-command", {"command-line": f"savevm {_READY}"})
            if said:
                raise SystemExit(f"the state of {made_from.suite} cannot be saved: {said}")
            ask("quit", {})
        _await_end(machine)
        os.replace(folder / "disk.qcow2", made_from.disk)
    finally:
        _end(machine)
    ready.write_text(recipe)
    return made_from


@contextlib.contextmanager
def _monitor(machine: Machine) -> Iterator[Callable[[str, Mapping[str, str]], object]]:
    """QEMU's monitor (QMP), as a function of a command and its arguments."""
    with socket.socket(socket.AF_UNIX) as connection:
        here = os.getcwd()
        # The path of a socket must be short.
        os.chdir(machine.folder)
        try:
            connection.connect("monitor")
        finally:
            os.chdir(here)
        lines = connection.makefile("rw", encoding="utf-8")

        def ask(command: str, arguments: Mapping[str, str]) -> object:
            lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            lines.flush()
            for line in lines:
                answer = json.loads(line)
                if "error" in answer:
                    raise SystemExit(f"{command}: {answer['error']['desc']}")
                if "return" in answer:
                    return answer["return"]
            return None

        ask("qmp_capabilities", {})
        yield ask


# --- ending ----------------------------------------------------------------------------------------------------------


def running() -> dict[str, Machine]:
    """The machines that run, by name."""
    found = {}
    for path in sorted(RUN.glob("*/machine.json")):
        machine = _noted(path)
        if _is_running(machine):
            found[machine.name] = machine
    return found


def named(name: str) -> Machine:
    found = running().get(name)
    if found is None:
        raise SystemExit(f"there is no machine {name!r}; there are {', '.join(running()) or 'none'}")
    return found


def _noted(path: Path) -> Machine:
    noted = json.loads(path.read_text())
    return Machine(**{**noted, "wires": {int(lan): other for lan, other in noted["wires"].items()}})


def _is_running(machine: Machine) -> bool:
    """Is the process there, and is it still the one of this machine?"""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(machine.pid, os.WNOHANG)
    try:
        return os.path.samefile(f"/proc/{machine.pid}/cwd", machine.folder)
    except OSError:
        return False


def down(name: str) -> None:
    """End a machine and remove all that it has left."""
    path = RUN / name / "machine.json"
    if path.exists():
        _end(_noted(path))
    shutil.rmtree(RUN / name, ignore_errors=True)


def _end(machine: Machine) -> None:
    _stop(machine)
    shutil.rmtree(machine.folder, ignore_errors=True)


def _stop(machine: Machine) -> None:
    if _is_running(machine):
        os.kill(machine.pid, signal.SIGTERM)
        _await_end(machine)


def _await_end(machine: Machine, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while _is_running(machine):
        if time.monotonic() > deadline:
            os.kill(machine.pid, signal.SIGKILL)
        time.sleep(0.05)


# --- commands --------------------------------------------------------------------------------------------------------


def _name(text: str) -> str:
    """A name that is a folder's and a host's."""
    if not re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a machine: small letters, digits, and '-' between them"
        )
    return text


def _wire(text: str) -> tuple[int, str]:
    found = re.fullmatch(r"([123])=([a-z0-9-]+(:[123])?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no wire, such as 1=other or 1=other:2")
    return int(found.group(1)), found.group(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="start a machine, and print how it is reached")
    starting.add_argument("name", type=_name)
    starting.add_argument("--suite", choices=SUITES, default=SUITES[0])
    starting.add_argument("--wire", action="append", default=[], type=_wire, metavar="LAN=OTHER[:LAN]")
    within = commands.add_parser("ssh", help="run a command, or a shell, in a machine")
    within.add_argument("name")
    within.add_argument("words", nargs=argparse.REMAINDER)
    restarting = commands.add_parser("restart", help="shut a machine down and boot it again")
    restarting.add_argument("name")
    ending = commands.add_parser("down", help="end machines; without a name all of them")
    ending.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.command == "up":
        with contextlib.redirect_stdout(sys.stderr):
            machine = up(arguments.name, arguments.suite, dict(arguments.wire))
        print(f"ssh -F {os.path.relpath(machine.folder / 'ssh_config')} {machine.name}")
    elif arguments.command == "ssh":
        command = named(arguments.name).ssh_command(*arguments.words)
        os.execvp(command[0], command)
    elif arguments.command == "restart":
        restart(arguments.name)
    else:
        for name in arguments.names or [path.name for path in RUN.glob("*")]:
            down(name)


if __name__ == "__main__":
    main()
