# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service: a command that runs in a namespace. Words only, no input or output.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

#: When a service whose process has ended is started again by what watches it.
RESTARTS = ("on-failure", "always", "no")

#: The variable that says of a process which service it belongs to, as NAMESPACE:NAME.
MARK = "NSLAB_SERVICE"

#: Where programs are looked for, unless the service has a PATH of its own.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: What has not ended so long after its start counts as running.
SETTLE_SECONDS = 0.3

#: So long a service has to end by itself when it is asked to.
STOP_SECONDS = 5.0


class Definition(NamedTuple):
    """What a service is, in the words of systemd.exec(5). Empty words are absent ones."""

    command: tuple[str, ...]
    user: str = ""
    group: str = ""
    directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    restart: str = RESTARTS[0]

    @property
    def path(self) -> str:
        """Where its program is looked for."""
        return dict(self.environment).get("PATH", PATH)

    def __str__(self) -> str:
        return self.text()

    def text(self, other: Definition | None = None) -> str:
        """The definition in one line, without the values of the environment, which may be secrets.

        Of these, those that are not the same in ``other`` are said to be new.
        """
        words = [shlex.join(self.command)]
        words += [f"{key} {value}" for key, value in zip(("user", "group", "directory"), self[1:4]) if value]
        known = dict(other.environment) if other else {}
        names = [
            f"new value of {name}" if known.get(name, value) != value else name for name, value in self.environment
        ]
        if names:
            words.append(f"environment {', '.join(names)}")
        if self.restart != RESTARTS[0]:
            words.append(f"restart {self.restart}")
        return " ".join(words)


class ServiceKey(NamedTuple):
    """What makes two services one and the same: a name in a namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}:{self.name}"


class Service(NamedTuple):
    """A service that is there, or that a plan has made. ``inode``: the namespace that it runs in, 0 for a new one."""

    #: The lab whose it is; empty for none.
    lab: str
    definition: Definition
    inode: int = 0
    #: running; restarting, if it has died and will be started again; stopped; foreign: somebody else's of that name.
    state: str = "running"
    #: The unit of systemd as somebody has changed it by hand, or that there is none; empty if nobody has.
    altered: str = ""
    #: The files of an administrator that alter its unit, and stay.
    overrides: tuple[str, ...] = ()


class Running(NamedTuple):
    """How it is with the process of a service."""

    state: str = "stopped"
    pid: int = 0
    #: When it was started, in seconds since the epoch; 0 if it never was.
    since: float = 0.0
    #: How often it was started again by itself.
    restarts: int = 0
    #: How its last process has ended, in words.
    ended: str = ""
    #: The namespace that it runs in, where the manager knows better than the note; 0 where it does not.
    inode: int = 0
