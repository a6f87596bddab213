# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throw-away hosts on which a real systemd is process 1. Nothing here uses the collection's code.

It starts the journal and nothing else. Its /run, /tmp, /etc, /var/log and /dev are its own, and it can write to nothing
of the machine's; its processes are in a cgroup of their own. All of it ends with its process 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from throwaway import eventually

_SYSTEMD = "/usr/lib/systemd/systemd"
_KINDS = ("net", "uts", "ipc", "cgroup", "mnt")

# $0 is systemd; the arguments are the folders without which nothing can be run, and may be such as are covered here.
_BOOT = """
set -eu
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/etc /run/keep /run/log
cp -a /etc/. /run/etc/
echo 00000000000000000000000000000001 >/run/machine-id
cp /run/machine-id /run/etc/machine-id
mount --bind /run/etc /etc
mount --bind /run/log /var/log
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
for folder; do
    case $folder in /tmp/*|/run/*) echo "$folder cannot be kept" >&2; exit 1 ;; esac
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=0755 tmpfs /run/keep
for name in null zero full random urandom tty; do
    touch /run/keep/$name
    mount --bind /dev/$name /run/keep/$name
done
mkdir /run/keep/shm /run/keep/pts
ln -s /proc/self/fd /run/keep/fd
touch /run/keep/console
mount --move /run/keep /dev
mount -o remount,bind,ro /
ip link set lo up
rm -rf /etc/systemd/system
mkdir -p /etc/systemd/system /run/systemd/system /run/units
cp /usr/lib/systemd/system/systemd-journald.socket /usr/lib/systemd/system/systemd-journald.service /run/units
for unit in throwaway sysinit basic shutdown; do
    printf '[Unit]\nDefaultDependencies=no\n' >/run/units/$unit.target
done
echo 'Requires=systemd-journald.socket' >>/run/units/throwaway.target
# Without a colon at the end, no other units than these are found.
exec env -i container=nslab "PATH=$PATH" SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system:/run/units \
    "$0" --system --unit=throwaway.target --show-status=no --log-target=journal </dev/null
"""

# A cgroup below that of the test, whatever of /sys is to be seen.
_IN_CGROUP = """
set -eu
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/nslab-test-$1
mkdir -p "$cgroup"
"""
_ENTER_CGROUP = (
    _IN_CGROUP
    + """
echo $$ >"$cgroup/cgroup.procs"
shift
exec unshare --pid --mount --net --uts --ipc --cgroup --fork --kill-child sh -c "$@"
"""
)
# Its processes are killed, and not all of them gone yet.
_REMOVE_CGROUP = (
    _IN_CGROUP
    + """
for _try in $(seq 100); do
    find "$cgroup" -depth -type d -exec rmdir '{}' ';' 2>/dev/null
    [ -d "$cgroup" ] || exit 0
    sleep 0.1
done
exit 1
"""
)

_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


class Failed(Exception):
    """What was done on the host has failed; the text is that of the exception."""


class Booted:
    """A host on which systemd runs; ``init`` is its number here."""

    def __init__(self, init: int) -> None:
        self._init = init

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function in a process on that host; what it returns has to be such as can be pickled."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self._enter("pid")
                # Only a child of it is in there.
                inner = os.fork()
                if inner == 0:
                    os.write(writer, pickle.dumps(self._outcome(function)))
                else:
                    os.waitpid(inner, 0)
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as file:
            said = file.read()
        os.waitpid(child, 0)
        assert said, "the process on the host has ended without a word"
        failure, result = pickle.loads(said)  # noqa: S301 - our own child's
        if failure:
            raise Failed(failure)
        return result

    def _outcome(self, function: Callable[[], Any]) -> tuple[str, Any]:
        try:
            for kind in _KINDS:
                self._enter(kind)
            os.chdir("/")
            return "", function()
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is read
            traceback.print_exc()
            return f"{type(error).__name__}: {error}", None

    def _enter(self, kind: str) -> None:
        fd = os.open(f"/proc/{self._init}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        if _libc.setns(fd, 0):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        os.close(fd)

    def systemctl(self, *words: str) -> str:
        """What systemctl prints, whatever its exit status."""
        return self.call(lambda: _output(["systemctl", "--no-pager", *words]))


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@contextlib.contextmanager
def booted_host() -> Iterator[Booted]:
    """Boot systemd. Skips the test, with the reason, where that cannot be done."""
    if not os.access(_SYSTEMD, os.X_OK):
        pytest.skip(f"there is no {_SYSTEMD}")
    number = str(os.getpid())
    folders = [str(Path(__file__).resolve().parents[2]), sys.prefix, sys.base_prefix]
    command = ["unshare", "--mount", "sh", "-c", _ENTER_CGROUP, "sh", number, _BOOT, _SYSTEMD, *folders]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as outer:
        try:
            host = Booted(_init(outer))
            # A boot that does not come to an end is a failure, and not a reason to skip.
            eventually(lambda: host.systemctl("is-system-running") == "running", "a booted systemd", 20)
            # By itself it starts with the first word that is said, and makes files then.
            host.systemctl("start", "systemd-journald.service")
            yield host
        finally:
            outer.kill()  # and with it its child, process 1, and with that all others
            outer.communicate()
            subprocess.run(["unshare", "--mount", "sh", "-c", _REMOVE_CGROUP, "sh", number], check=True)


def _init(outer: subprocess.Popen[bytes]) -> int:
    """The process 1, as soon as it is systemd."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")

    def inits() -> list[int]:
        if outer.poll() is not None:
            said = outer.communicate()[0].decode().strip()
            pytest.skip(f"systemd cannot be booted here: {said}")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = [int(child) for child in children.read_text().split()]
            return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text() == "systemd\n"]
        return []

    eventually(lambda: bool(inits()), "the start of systemd", 20)
    return inits()[0]
