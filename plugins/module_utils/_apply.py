# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the changes of a plan, and takes them back if one of them fails.

Names are resolved to open namespaces and interface indexes when the plan was made; what comes to have the same name
meanwhile is never touched.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Callable

from . import _attached as attached
from . import _changes as c
from . import _iptables as iptables
from . import _memory as memory
from . import _nftables as nftables
from . import _node as node
from . import _services as services
from . import _sysctl as sysctl
from ._errors import KernelError, NoNamespace, NslabError, StepFailed
from ._impairment import NO_NETEM
from ._kernel import unfollowed
from ._kinds import WHY_TAKEN
from ._machine import Machine
from ._model import BIRTH_GROUP, IPV6_MIN_MTU, NO_MAC, NO_VLANS, Endpoint, Remembered, Route, State, lab_of
from ._nat import IPTABLES
from ._netlink import conf, decode, encode, library, qdiscs, rules
from ._netlink.session import Session
from ._plan import Plan
from ._renames import devices_of, followed, inherited, once
from ._rules import VRF_RULES, lacking
from ._service import ServiceKey
from ._sysctl_keys import PASSED_ON, ipv6_conf

#: Duplicate address detection takes up to 3 s: a late carrier, a random delay, and the detection itself.
_DAD_SECONDS = 5.0
_POLL_SECONDS = 0.02
#: So long a namespace that nobody is in takes at most to end.
_ENDING_SECONDS = 3.0

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _GoneMeanwhile(Exception):
    """What a step shall remove is gone already."""


class Stops:
    """The signals that ask a process to stop take effect between steps, as failures, and not within one."""

    def __init__(self) -> None:
        self._asked: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stops:
        if threading.current_thread() is threading.main_thread():  # Only that one may handle signals.
            self._before = {number: signal.signal(number, self._note) for number in _STOP_SIGNALS}
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._asked.append(number)

    def check(self, roll_back: Callable[[], list[str]]) -> None:
        """Raise StepFailed, after having taken back what was done, if one of them has come."""
        if self._asked:
            raise StepFailed("apply", "", f"stopped by {signal.Signals(self._asked[0]).name}", roll_back())


class Application:
    """A plan while it is applied: the journal of what was done, until ``commit``."""

    def __init__(self, plan: Plan, state: State, machine: Machine, lab: str, stops: Stops) -> None:
        self._plan = plan
        self._machine = machine
        self._lab = lab
        self._stops = stops
        self._remembered = state.remembered
        self._indexes = {
            name: {link.name: link.index for link in namespace.links.values()}
            for name, namespace in state.namespaces.items()
        }
        #: The names by the indexes, by namespace and its inode.
        self._names = {
            (name, namespace.inode): {link.index: link.name for link in namespace.links.values()}
            for name, namespace in state.namespaces.items()
        }
        #: MTU and MAC of the bridges, which follow those of their ports, or not.
        self._bridges = {end: (link.mtu, link.mac) for end, link in state.links() if link.kind == "bridge"}
        self._borrowed = state.borrowed
        self._unfinished = {end for end, link in state.links() if link.unfinished}
        self._journal: list[c.Step] = []
        self._remembers = any(step.remember for step in plan.steps) or bool(
            plan.forgotten or plan.shared or plan.expired
        )
        #: What is remembered from before, without what has ended, and what was remembered since.
        self._known = [entry for entry in state.remembered if entry not in plan.expired]
        self._noted: list[Remembered] = []
        self._was_taken_back = False
        #: What other labs remembered that this one has handed something over to.
        self._heirs: dict[str, tuple[Remembered, ...]] = {}
        #: The sysctls of links that were removed, moved, or lost them otherwise (IFLA_AF_SPEC).
        self._confs: dict[Endpoint, bytes] = {}
        #: The sysctls that devices had when they came home, of those that were set then.
        self._confs_at_home: dict[Endpoint, dict[str, str]] = {}
        #: Where links should be that were moved, but did not get their other name.
        self._half_moved: set[Endpoint] = set()
        self._takes_back = False
        #: What names stood for, and were given to, that were given to something else.
        self._given: dict[str, set[int]] = {}
        #: What was found in the place of rules of translation, by namespace.
        self._iptables_before: dict[str, iptables.Before] = {}
        self._nftables_before: dict[str, str] = {}
        #: The services that were started and not waited for yet.
        self._starts: list[tuple[c.SetService, services.Start]] = []

    def apply(self) -> None:
        """Make all changes, and have other labs remember what they go on needing.

        Raises StepFailed after having taken back what was done.
        """
        library.require()
        try:
            if tuple(self._known) != memory.recall(self._lab):
                memory.rewrite(self._lab, self._known)
        except (NslabError, OSError) as error:
            raise StepFailed("what the lab remembers", "", _words(error), []) from error
        for where, steps in itertools.groupby(self._plan.steps, _leaves_from):
            together = list(steps)
            if isinstance(together[0].change, c.SetService):
                self._set_services(together)
                continue
            if where and len(together) > 1 and self._remove_together(where, together):
                continue
            for step in together:
                self._stops.check(self.roll_back)
                self._apply_step(step)
        self._await_services()
        try:
            self._hand_over()
        except (NslabError, OSError) as error:
            raise StepFailed("what other labs remember", "", _words(error), self.roll_back()) from error
        except BaseException:
            self.roll_back()
            raise

    def _hand_over(self) -> None:
        # What goes over to another lab is for a while in both files: after a run that is killed, it does it again.
        for lab, entries in self._plan.handed_over.items():
            self._heirs[lab] = memory.recall(lab)
            memory.rewrite(lab, inherited(followed(self._heirs[lab], self._names), entries))

    def _remove_together(self, namespace: str, steps: Sequence[c.Step]) -> bool:
        """Remove links of one namespace at once: each by itself has the kernel wait for all its processors.

        They leave as they came: without their mark and in the group of those that have none, where a run finds them if
        this one is killed. False if that is not possible.
        """
        session = self._machine.session(namespace)
        there = {link.ifindex: link for link in decode.links(session)}
        leaving = {self._index(step.change.end): step for step in steps if isinstance(step.change, c.RemoveLink)}
        leaving = {index: step for index, step in leaving.items() if index in there}
        is_ours = all(self._lab and lab_of(there[index].alias) == self._lab for index in leaving)
        if not is_ours or any(link.group == BIRTH_GROUP for link in there.values()):
            return False
        self._stops.check(self.roll_back)
        if not leaving:
            return True
        moved: list[int] = []
        try:
            for index, step in leaving.items():
                self._note_confs(step.change)
                moved.append(index)
                encode.set_link(session, index, alias="", group=BIRTH_GROUP)
            encode.remove_group(session, BIRTH_GROUP)
        except BaseException as error:
            for index in moved:
                with contextlib.suppress(NslabError):
                    encode.set_link(session, index, alias=there[index].alias, group=there[index].group)
            if isinstance(error, KernelError) and error.number == errno.ENODEV:
                return False
            if not isinstance(error, (NslabError, OSError)):
                self.roll_back()
                raise
            change = leaving[moved[-1]].change
            raise StepFailed(str(change.describe()), change.path, _words(error), self.roll_back()) from error
        self._journal += leaving.values()
        return True

    def _set_services(self, steps: Sequence[c.Step]) -> None:
        """Ask all services that end, or are started anew, to end, and only then wait for each: one may take seconds."""
        self._stops.check(self.roll_back)
        ending, keys = [], []
        for step in steps:
            if isinstance(step.change, c.SetService) and step.change.before:
                ending.append(step)
                keys.append(ServiceKey(step.change.namespace, step.change.name))
        # What was asked to end has to be started again when this is taken back, whether or not its turn has come.
        self._journal += ending
        step = steps[0]
        try:
            services.ask_to_end(keys)
            for step in steps:
                self._stops.check(self.roll_back)
                if step in ending:
                    self._make(step.change)
                else:
                    self._apply_step(step)
        except StepFailed:
            raise
        except (NslabError, OSError) as error:
            raise StepFailed(str(step.change.describe()), step.change.path, _words(error), self.roll_back()) from error
        except BaseException:
            self.roll_back()
            raise

    def _apply_step(self, step: c.Step) -> None:
        try:
            if step.remember:
                self._remember(step.remember)
            self._make(step.change)
        except _GoneMeanwhile:
            # What somebody else has removed is not made again by a rollback.
            return
        except (NslabError, OSError) as error:
            if self._has_begun(step.change):
                self._journal.append(step)
            raise StepFailed(str(step.change.describe()), step.change.path, _words(error), self.roll_back()) from error
        except BaseException:
            if self._has_begun(step.change):
                self._journal.append(step)
            self.roll_back()
            raise
        self._journal.append(step)

    def _has_begun(self, change: c.Change) -> bool:
        """Has a step that failed done a part of its work? Some set several things, and stop at the one that fails."""
        if isinstance(change, c.RestoreConf):
            return change.end in self._confs_at_home
        if isinstance(change, c.MoveLink):
            return change.to in self._half_moved
        if isinstance(change, c.SetRules):
            # The way back looks at what is there.
            return True
        if not isinstance(change, (c.SetLink, c.SetBridge, c.SetPort, c.SetVlans)):
            return False
        try:
            session = self._machine.session(change.end.namespace)
            link = decode.link(session, index=self._index(change.end))
            vlans = decode.port_vlans(session)
        except (NslabError, OSError):
            return True
        if link is None:
            return False
        if isinstance(change, c.SetVlans):
            return vlans.get(link.ifindex, ()) != change.before
        if isinstance(change, c.SetLink):
            now = (link.mtu, link.mac, link.alias)
            return any(old is not None and old != new for old, new in zip(change.before, now))
        settings = link.bridge if isinstance(change, c.SetBridge) else link.port
        known = dict(change.before)
        return any(settings.get(name) != known.get(name) for name, _value in change.settings)

    def _remember(self, entries: Sequence[Remembered]) -> None:
        complete = []
        for planned in entries:
            entry = planned._replace(inode=self._machine.handle(planned.namespace).inode)
            if entry.kind == "device":
                entry = entry._replace(before=self._own_conf(entry))
            if entry.kind == "sysctl" and entry.before is None:
                with self._machine.entered(entry.namespace):
                    entry = entry._replace(before=sysctl.read(entry.object))
                entry = unfollowed(entry, (*self._known, *self._noted))
            indexes = self._indexes[entry.namespace]
            devices = tuple((name, indexes.get(name, 0)) for name in devices_of(entry))
            complete.append(entry._replace(devices=devices))
            if entry.kind == "mtu" and int(entry.after or 0) < IPV6_MIN_MTU <= int(entry.before or 0):
                complete.append(self._conf(complete[-1]))
        memory.append(self._lab, complete)
        self._noted += complete

    def _conf(self, entry: Remembered) -> Remembered:
        """The sysctls that a device is about to lose with IPv6; ``after`` names those that follow the ones of all."""
        found = decode.link(self._machine.session(entry.namespace), index=entry.ifindex)
        with self._machine.entered(entry.namespace):
            following = [
                name
                for name in PASSED_ON
                if sysctl.read(ipv6_conf("all", name)) == sysctl.read(ipv6_conf(entry.object, name))
            ]
        return entry._replace(kind="conf", before=found.af_spec.hex() if found else "", after=" ".join(following))

    def roll_back(self) -> list[str]:
        """Take back what was done, the last first. Returns what could not be taken back, in words."""
        if self._was_taken_back:
            return []
        failed: list[tuple[c.Change, Exception]] = []
        self._takes_back = self._was_taken_back = True
        self._close_starts()
        for removes, steps in itertools.groupby(reversed(self._journal), _is_undone_by_removal):
            together = list(steps)
            if removes:
                self._take_back_links(together)
            # What was removed together is gone by now.
            failed += self._take_back(change for step in together for change in step.undo)
        # What leads to the gateway of such a route was changed before it, and is back only now; as the namespace of a
        # service that was attached anew.
        late = [change for change, error in failed if _was_too_early(change, error)]
        failed = [(change, error) for change, error in failed if not _was_too_early(change, error)]
        failed += [(change, error) for change, error in self._take_back(late) if not _is_of_nothing(change, error)]
        stuck = [
            step for step in self._journal if any(change is left for change in step.undo for left, _error in failed)
        ]
        remains = [f"{change.describe()}: {_words(error)}" for change, error in failed]
        remains += self._settle_bridges() if self._journal else ()
        self._journal.clear()
        self._takes_back = False
        files = dict(self._heirs)
        if self._remembers:
            # What goes with a step that has not been taken back stays in memory.
            kept = {(entry.kind, entry.namespace, entry.object) for step in stuck for entry in step.remember}
            noted = [entry for entry in self._noted if (entry.kind, entry.namespace, entry.object) in kept]
            files[self._lab] = once([*self._remembered, *noted])
        for lab, entries in files.items():
            try:
                memory.rewrite(lab, entries)
            except (NslabError, OSError) as error:
                remains.append(f"what the lab {lab!r} remembers: {_words(error)}")
        return remains

    def _take_back(self, changes: Iterable[c.Change]) -> list[tuple[c.Change, Exception]]:
        """Make the changes of a way back. Returns those that fail, whatever it is: the rest has to be taken back."""
        failed: list[tuple[c.Change, Exception]] = []
        for change in changes:
            try:
                self._make(change)
            except _GoneMeanwhile:
                pass
            except Exception as error:  # noqa: BLE001 - as above
                failed.append((change, error))
        return failed

    def _take_back_links(self, steps: Sequence[c.Step]) -> None:
        """Remove links that this run has made together, as far as they have an end in one namespace."""
        changes = [change for step in steps for change in step.undo if isinstance(change, c.RemoveLink)]
        ends = [[end for end in (change.end, change.peer) if end] for change in changes]
        (namespace, count), *_rest = Counter(end.namespace for pair in ends for end in pair).most_common(1)
        if count < 2:
            return
        here = [next((end for end in pair if end.namespace == namespace), None) for pair in ends]
        with contextlib.suppress(NslabError, OSError):
            session = self._machine.session(namespace)
            there = {link.ifindex: link.group for link in decode.links(session)}
            if BIRTH_GROUP in there.values():
                return
            for end in filter(None, here):
                if self._index(end) in there:
                    encode.set_link(session, self._index(end), alias="", group=BIRTH_GROUP)
            encode.remove_group(session, BIRTH_GROUP)

    def _settle_bridges(self) -> Iterator[str]:
        """Give bridges the MTU and the MAC that they had: what they took from ports, or were given, may have stayed."""
        for end, (mtu, mac) in self._bridges.items():
            try:
                session = self._machine.session(end.namespace)
                link = decode.link(session, index=self._index(end))
                if link and (link.mtu, link.mac) != (mtu, mac):
                    encode.set_link(session, link.ifindex, mtu=mtu, mac=link.mac if mac == NO_MAC else mac)
            except (NslabError, OSError) as error:
                yield f"link {end} mtu {mtu} mac {mac}: {_words(error)}"

    def commit(self) -> None:
        """Write down what goes with what was done, and forget what the lab has put back. ``leave`` has to follow."""
        given = [change.name for change in self._plan.changes if isinstance(change, c.AttachNamespace)]
        taken = [change.name for change in self._plan.changes if isinstance(change, c.RemoveNamespace)]
        for name in (*given, *self._borrowed.intersection(taken)):
            attached.settle(name)
        if self._plan.shared:
            self._remember(self._plan.shared)
        if self._plan.forgotten or self._plan.rebased or self._noted:
            memory.rewrite(self._lab, self.remembered())
        for lab, entries in self._plan.released.items():
            known, gone = memory.recall(lab), {entry.key for entry in entries}
            self._heirs.setdefault(lab, known)
            memory.rewrite(lab, [entry for entry in known if entry.key not in gone])

    def remembered(self) -> tuple[Remembered, ...]:
        """What the lab goes on remembering after what was done."""
        gone = {entry.key for entry in (*self._plan.forgotten, *self._plan.rebased)}
        kept = [entry for entry in self._known if entry.key not in gone]
        return once([*kept, *self._plan.rebased, *self._noted])

    def leave(self) -> None:
        """Leave what was done as it is, for good or to another process, which has a copy of this journal."""
        self._journal.clear()

    # --- one change --------------------------------------------------------------------------------------------------

    def _make(self, change: c.Change) -> None:
        makers: dict[type, Callable[..., None]] = {
            c.AddNamespace: self._add_namespace,
            c.RemoveNamespace: self._remove_namespace,
            c.RestoreNamespace: self._restore_namespace,
            c.AttachNamespace: self._attach_namespace,
            c.DetachNamespace: self._detach_namespace,
            c.AddVeth: self._add_veth,
            c.AddBridge: self._add_bridge,
            c.AddLink: self._add_link,
            c.SetVrf: self._set_vrf,
            c.SetBridge: self._set_bridge,
            c.SetMaster: self._set_master,
            c.SetPort: self._set_port,
            c.SetVlans: self._set_vlans,
            c.RemoveLink: self._remove_link,
            c.MoveLink: self._move_link,
            c.SetAltname: self._set_altname,
            c.RestoreConf: self._restore_home_conf,
            c.SetLink: self._set_link,
            c.SetUp: self._set_up,
            c.SetImpairment: self._set_impairment,
            c.AddAddress: self._add_address,
            c.ReplaceAddress: self._add_address,
            c.RemoveAddress: self._remove_address,
            c.AddRoute: self._add_route,
            c.ReplaceRoute: self._replace_route,
            c.RemoveRoute: self._remove_route,
            c.SetRules: self._set_rules,
            c.SetNat: self._set_nat,
            c.RestoreNat: self._restore_nat,
            c.SetSysctl: self._set_sysctl,
            c.SetNode: self._set_node,
            c.SetService: self._set_service,
        }
        makers[type(change)](change)

    def _index(self, end: Endpoint) -> int:
        return self._indexes[end.namespace][end.interface]

    def _learn_index(self, end: Endpoint, what: str) -> decode.RawLink:
        """Look at a link that was just ``what``, made or moved, and keep its index."""
        session = self._machine.session(end.namespace)
        found = decode.link(session, name=end.interface)
        if found is None:
            # What was made with a mark to come is known by its group.
            fresh = next((link for link in decode.links(session) if link.group == BIRTH_GROUP and not link.alias), None)
            if fresh is None:
                raise NslabError(f"{end} was removed or renamed by somebody else while it was {what}")
            self._indexes[end.namespace][end.interface] = fresh.ifindex
            raise NslabError(f"{end} was renamed to {fresh.name} by somebody else while it was {what}")
        self._indexes[end.namespace][end.interface] = found.ifindex
        return found

    def _note_confs(self, change: c.Change) -> None:
        for end in (change.end, change.peer) if isinstance(change, c.RemoveLink) else ():
            self._note_conf(end)

    def _note_conf(self, end: Endpoint | None) -> None:
        """Keep the sysctls of a link that is about to lose them."""
        index = self._indexes.get(end.namespace, {}).get(end.interface) if end and not self._takes_back else None
        found = decode.link(self._machine.session(end.namespace), index=index) if end and index else None
        if end and found:
            self._confs[end] = found.af_spec

    def _restore_conf(self, end: Endpoint) -> None:
        """Give a link that is there again the sysctls that it had."""
        if self._takes_back and end in self._confs:
            self._set_conf(end, self._confs[end])

    def _restore_ipv6(self, end: Endpoint) -> None:
        """Give a link that has IPv6 again the sysctls that it had before an earlier run has taken it."""
        index = self._index(end)
        noted = (e for e in self._known if e.kind == "conf" and (e.namespace, e.ifindex) == (end.namespace, index))
        entry = next(noted, None)
        if entry is None or not entry.before:
            return
        # What disables IPv6 may have come or gone meanwhile. Where the plan adds addresses, it has gone.
        added = (step.change for step in self._plan.steps if isinstance(step.change, c.AddAddress))
        is_clear = any(change.end == end and change.address.family == 6 for change in added)
        following = (entry.after or "").split()
        with self._machine.entered(end.namespace):
            is_clear = is_clear or sysctl.read(ipv6_conf("all", "disable_ipv6")) == "1"
            # Those of IPv4 have stayed, and may have been changed since.
            but = {ipv6_conf(end.interface, name) for name in (*following, *(["disable_ipv6"] if is_clear else ()))}
            self._set_conf(end, bytes.fromhex(entry.before), but, "net/ipv6/")
            for name in following:
                value = sysctl.read(ipv6_conf("all", name))
                if value is not None and not (is_clear and name == "disable_ipv6"):
                    sysctl.write(ipv6_conf(end.interface, name), value)

    def _set_conf(self, end: Endpoint, before: bytes, but: Collection[str] = (), only: str = "net/") -> None:
        named = ((name, value, conf.key(end.interface, name)) for name, value in conf.settings(before).items())
        self._give_conf(end, {name: value for name, value, key in named if key not in but and key.startswith(only)})

    def _add_namespace(self, change: c.AddNamespace) -> None:
        self._machine.create(change.name, change.alias)
        self._indexes[change.name] = {"lo": 1}

    def _remove_namespace(self, change: c.RemoveNamespace) -> None:
        self._machine.remove_name(change.name)

    def _restore_namespace(self, change: c.RestoreNamespace) -> None:
        self._machine.restore_name(change.name)

    def _attach_namespace(self, change: c.AttachNamespace) -> None:
        given = attached.note(change.name, self._machine.handle(change.name).inode)
        try:
            self._machine.attach(change.name, change.kind, change.inode)
        except BaseException:
            attached.settle(change.name)
            raise
        self._given[change.name] = given

    def _detach_namespace(self, change: c.DetachNamespace) -> None:
        self._machine.detach(change.name)
        attached.settle(change.name, self._given.pop(change.name))

    def _add_veth(self, change: c.AddVeth) -> None:
        here, there = change.ends
        session = self._machine.session(here.namespace)
        peer_fd = self._machine.handle(there.namespace).fd
        group = BIRTH_GROUP if any(change.aliases) else 0

        def send(*indexes: int) -> None:
            settings = list(zip(change.mtus, change.macs, indexes))
            encode.add_veth(session, here.interface, there.interface, peer_fd, settings, group)

        _send_at(send, *change.indexes)
        try:
            # The kernel says of each end also the index of the other.
            self._indexes[there.namespace][there.interface] = self._learn_index(here, "made").lower
            for end, alias in zip(change.ends, change.aliases if group else ()):
                encode.set_link(self._machine.session(end.namespace), self._index(end), alias=alias, group=0)
            for end in change.ends:
                self._restore_conf(end)
        except BaseException:
            with contextlib.suppress(NslabError, KeyError):
                encode.remove_link(session, self._index(here))
            raise

    def _add_bridge(self, change: c.AddBridge) -> None:
        session, name = self._machine.session(change.end.namespace), change.end.interface
        group = BIRTH_GROUP if change.alias else 0
        with _saying_what_the_kernel_lacks():
            _send_at(
                lambda index: encode.add_bridge(session, name, dict(change.settings), change.mac, index, group),
                change.ifindex,
            )
        try:
            index = self._learn_index(change.end, "made").ifindex
            if change.alias:
                encode.set_link(session, index, alias=change.alias, group=0)
            self._restore_conf(change.end)
        except BaseException:
            with contextlib.suppress(NslabError, KeyError):
                encode.remove_link(session, self._index(change.end))
            raise

    def _add_link(self, change: c.AddLink) -> None:
        kind, namespace = change.kind, change.end.namespace
        # What it lies on is looked for where the request comes from.
        where = kind.link.namespace if kind.link else kind.netns or namespace
        with _saying_what_kind_the_kernel_lacks(kind.name):
            _send_at(lambda index: self._send_in_time(change, where, index), change.ifindex)
        session = self._machine.session(namespace)
        try:
            index = self._learn_index(change.end, "made").ifindex
            if change.alias:
                encode.set_link(session, index, alias=change.alias, group=0)
            if kind.name == "vrf":
                # The kernel makes them with the first one of a namespace, and somebody may have removed them since.
                known = rules.rules(session)
                rules.add(session, lacking([rule for there in known.values() for rule in there], VRF_RULES, known))
            self._restore_conf(change.end)
        except BaseException:
            with contextlib.suppress(NslabError, KeyError):
                encode.remove_link(session, self._index(change.end))
            raise

    def _send_in_time(self, change: c.AddLink, where: str, index: int) -> None:
        """Make a link. A namespace that is gone takes a while to end, and a VXLAN in it keeps its number as long."""
        deadline = time.monotonic() + _ENDING_SECONDS
        while True:
            try:
                return self._send_link(change, where, index)
            except KernelError as error:
                if change.kind.name != "vxlan" or error.number != errno.EEXIST or change.ifindex:
                    raise
                if time.monotonic() > deadline:
                    hint = "choose another number ('id', or 'vni' of a link between hosts), or end what is still in a"
                    hint += " namespace that was removed"
                    raise KernelError(error.number, f"{error.words}; {hint}") from error
            select.select([], [], [], _POLL_SECONDS)

    def _send_link(self, change: c.AddLink, where: str, index: int) -> None:
        lower = self._index(change.kind.link) if change.kind.link else 0
        group = BIRTH_GROUP if change.alias else 0
        target = self._machine.handle(change.end.namespace).fd
        if not index and where != change.end.namespace:
            index = self._free_index(where, change.end.namespace)
        settings = (change.mtu, change.mac, index)
        encode.add_link(self._machine.session(where), change.end.interface, change.kind, lower, target, settings, group)

    def _free_index(self, *names: str) -> int:
        """An interface index that none of some namespaces has.

        Without one, Linux before 6.13 looks for the name of a new link where the request comes from, and takes that for
        it (__rtnl_newlink()); with one, for the index.
        """
        return 1 + max(link.ifindex for name in names for link in decode.links(self._machine.session(name)))

    def _set_vrf(self, change: c.SetVrf) -> None:
        vrf = self._index(change.end._replace(interface=change.vrf)) if change.vrf else 0
        encode.set_master(self._machine.session(change.end.namespace), self._index(change.end), vrf)

    def _set_bridge(self, change: c.SetBridge) -> None:
        session = self._machine.session(change.end.namespace)
        with _saying_what_the_kernel_lacks():
            encode.set_bridge(session, self._index(change.end), dict(change.settings))

    def _set_master(self, change: c.SetMaster) -> None:
        master = self._index(change.end._replace(interface=change.master)) if change.master else 0
        encode.set_master(self._machine.session(change.end.namespace), self._index(change.end), master)

    def _set_port(self, change: c.SetPort) -> None:
        encode.set_port(self._machine.session(change.end.namespace), self._index(change.end), dict(change.settings))

    def _set_vlans(self, change: c.SetVlans) -> None:
        with _saying_what_the_kernel_lacks():
            self._send_vlans(change)

    def _send_vlans(self, change: c.SetVlans) -> None:
        remove = [vlan for vlan in change.before if vlan not in change.vlans]
        add = [vlan for vlan in change.vlans if vlan not in change.before]
        session = self._machine.session(change.end.namespace)
        encode.set_vlans(session, self._index(change.end), remove, add, change.of_bridge)

    def _remove_link(self, change: c.RemoveLink) -> None:
        self._note_confs(change)
        try:
            encode.remove_link(self._machine.session(change.end.namespace), self._index(change.end))
        except KernelError as error:
            # The kernel takes the ends of veths to a namespace that was removed in its own time.
            if error.number == errno.ENODEV:
                raise _GoneMeanwhile from error
            raise

    def _move_link(self, change: c.MoveLink) -> None:
        index = self._index(change.end)
        target = self._machine.handle(change.to.namespace)
        self._note_conf(change.end)
        try:
            encode.move_link(self._machine.session(change.end.namespace), index, target.fd, change.to.interface)
        except KernelError:
            self._find_half_moved(change)
            raise
        # The kernel keeps the index if it is free in the other namespace, else it gives a new one.
        self._learn_index(change.to, "moved")
        self._restore_conf(change.to)
        self._give_conf(change.to, dict(change.conf))

    def _find_half_moved(self, change: c.MoveLink) -> None:
        """The kernel moves a link first and gives it its other name then (do_setlink()), which may fail."""
        if change.end.namespace == change.to.namespace:
            return
        here = decode.link(self._machine.session(change.end.namespace), name=change.end.interface)
        there = decode.link(self._machine.session(change.to.namespace), name=change.end.interface)
        if here is None and there is not None:
            self._half_moved.add(change.to)
            self._indexes[change.to.namespace][change.to.interface] = there.ifindex

    def _set_altname(self, change: c.SetAltname) -> None:
        session, index = self._machine.session(change.end.namespace), self._index(change.end)
        if change.is_added:
            encode.add_altname(session, index, change.altname)
        else:
            encode.remove_altname(session, index, change.altname)

    def _restore_home_conf(self, change: c.RestoreConf) -> None:
        """Set the sysctls of a device that has come home as they were; or, to take that back, as before."""
        if change.is_a_way_back:
            self._give_conf(change.end, self._confs_at_home.get(change.end, {}))
        elif change.lost:
            found = decode.link(self._machine.session(change.end.namespace), index=self._index(change.end))
            self._confs_at_home[change.end] = conf.settings(found.af_spec) if found else {}
            self._restore_ipv6(change.end)
        else:
            wanted = {**dict(change.like_others), **dict(change.settings)}
            self._confs_at_home[change.end] = self._give_conf(change.end, wanted)

    def _give_conf(self, end: Endpoint, wanted: Mapping[str, str]) -> dict[str, str]:
        """Set sysctls of a link. Returns what those were that have changed."""
        if not wanted:
            return {}
        found = decode.link(self._machine.session(end.namespace), index=self._index(end))
        af_spec = found.af_spec if found else b""
        with self._machine.entered(end.namespace):
            said = {
                name: sysctl.read(conf.key("all", name)) if value == "all" else value for name, value in wanted.items()
            }
            differing = conf.differing({name: value for name, value in said.items() if value is not None}, af_spec)
            now = conf.settings(af_spec)
            for name, value in differing.items():
                sysctl.write(conf.key(end.interface, name), value)
        return {name: now[name] for name in differing}

    def _own_conf(self, entry: Remembered) -> str | None:
        """The memory of a device with its sysctls: with those that others have not by default, and with the others.

        Those of IPv6 have the default once only (ipv6_add_dev()), but some are passed on from ``all`` later, too. Those
        of IPv4 follow the default until they are set (devinet_copy_dflt_conf()), and need no note where they do.
        """
        home = json.loads(entry.before or "{}")
        found = None
        if "conf" not in home:
            index = self._indexes[entry.namespace][entry.object]
            found = decode.link(self._machine.session(entry.namespace), index=index)
        if found is None:
            return entry.before
        home["conf"], home["like_others"] = {}, {}
        with self._machine.entered(entry.namespace):
            for name, value in conf.settings(found.af_spec).items():
                family, _slash, word = name.partition("/")
                if family == "ipv6" and word in PASSED_ON and sysctl.read(conf.key("all", name)) == value:
                    home["like_others"][name] = "all"
                elif sysctl.read(conf.key("default", name)) not in (None, value):
                    home["conf"][name] = value
                elif family == "ipv6":
                    home["like_others"][name] = value
        return json.dumps(home)

    def _set_link(self, change: c.SetLink) -> None:
        session = self._machine.session(change.end.namespace)
        group = 0 if change.end in self._unfinished and change.alias else None
        index = self._index(change.end)
        if change.mtu is not None and change.mtu < IPV6_MIN_MTU:
            self._note_conf(change.end)
        encode.set_link(session, index, mtu=change.mtu, mac=change.mac, alias=change.alias, group=group)
        if change.mtu is not None and change.mtu >= IPV6_MIN_MTU:
            self._restore_conf(change.end)
            if not self._takes_back:
                self._restore_ipv6(change.end)

    def _set_up(self, change: c.SetUp) -> None:
        session, index = self._machine.session(change.end.namespace), self._index(change.end)
        try:
            encode.set_link(session, index, up=change.up)
        except KernelError as error:
            found = decode.link(session, index=index)
            why = WHY_TAKEN.get(found.kind, "") if found and error.number == errno.EADDRINUSE else ""
            if not why:
                raise
            raise NslabError(f"{error}: {why}") from error

    def _set_impairment(self, change: c.SetImpairment) -> None:
        session, index = self._machine.session(change.end.namespace), self._index(change.end)
        if change.impairment:
            with _saying_what_the_kernel_lacks(errno.ENOENT, NO_NETEM):
                qdiscs.set_impairment(session, index, change.impairment)
        elif change.before:
            qdiscs.remove_impairment(session, index, change.before.handle)

    def _add_address(self, change: c.AddAddress) -> None:
        encode.add_address(self._machine.session(change.end.namespace), self._index(change.end), change.address)

    def _remove_address(self, change: c.RemoveAddress) -> None:
        encode.remove_address(self._machine.session(change.end.namespace), self._index(change.end), change.address)

    def _add_route(self, change: c.AddRoute) -> None:
        session = self._machine.session(change.namespace)
        if change.route.src and change.route.family == 6:
            _await_source(session, change.route.src)
        add = functools.partial(encode.add_route, session, change.route, self._indexes[change.namespace])
        try:
            add(append=change.append)
        except KernelError as error:
            if error.number != errno.EHOSTUNREACH or not _await_peer(session, change.route):
                raise
            add(append=change.append)

    def _replace_route(self, change: c.ReplaceRoute) -> None:
        session = self._machine.session(change.namespace)
        encode.add_route(session, change.route, self._indexes[change.namespace], replace=True)

    def _remove_route(self, change: c.RemoveRoute) -> None:
        encode.remove_route(self._machine.session(change.namespace), change.route, self._indexes[change.namespace])

    def _set_rules(self, change: c.SetRules) -> None:
        rules.replace(self._machine.session(change.namespace), change.before, change.rules)

    def _set_nat(self, change: c.SetNat) -> None:
        with self._machine.entered(change.namespace):
            if change.backend == IPTABLES:
                self._iptables_before[change.namespace] = iptables.replace(self._lab, change.rules)
            else:
                if not change.is_undone_by_words:
                    self._nftables_before[change.namespace] = nftables.save(self._lab)
                nftables.replace(self._lab, change.rules)

    def _restore_nat(self, change: c.RestoreNat) -> None:
        with self._machine.entered(change.namespace):
            if change.backend == IPTABLES:
                iptables.restore(self._lab, self._iptables_before[change.namespace])
            else:
                nftables.restore(self._lab, self._nftables_before[change.namespace])

    def _set_sysctl(self, change: c.SetSysctl) -> None:
        with self._machine.entered(change.namespace):
            sysctl.write(change.key, change.value)

    def _set_node(self, change: c.SetNode) -> None:
        node.write(change.namespace, change.what, change.setting)

    def _set_service(self, change: c.SetService) -> None:
        handle = self._machine.find(change.namespace)
        key = ServiceKey(change.namespace, change.name)
        if change.service and handle:
            _await_addresses(self._machine.session(change.namespace))
        start = services.write(key, change.service, handle.inode if handle else 0)
        if start and self._takes_back:
            with contextlib.closing(start):
                start.wait()
        elif start:
            self._starts.append((change, start))

    def _await_services(self) -> None:
        """Wait for all services that were started: whether one stays alive takes a time to see."""
        for change, start in self._starts:
            try:
                start.wait()
            except (NslabError, OSError) as error:
                raise StepFailed(str(change.describe()), change.path, _words(error), self.roll_back()) from error
        self._close_starts()

    def _close_starts(self) -> None:
        for _change, start in self._starts:
            start.close()
        self._starts.clear()


def _leaves_from(step: c.Step) -> str:
    """The namespace from which a step removes a link and does no more; empty for another step.

    Services are in a place of their own, where no namespace is.
    """
    if isinstance(step.change, c.SetService):
        return "/"
    return step.change.end.namespace if isinstance(step.change, c.RemoveLink) and not step.remember else ""


def _was_too_early(change: c.Change, error: Exception) -> bool:
    """May a step of a way back work later: a route to whose gateway nothing leads, an MTU, a service without its
    namespace?"""
    if isinstance(change, c.SetService):
        return True
    if isinstance(change, c.SetLink) and change.mtu is not None:
        # What it lies on gets its larger MTU back later.
        return isinstance(error, KernelError) and error.number in (errno.EINVAL, errno.ERANGE)
    if not isinstance(change, (c.AddRoute, c.ReplaceRoute)) or not isinstance(error, KernelError):
        return False
    return error.number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL)


def _is_of_nothing(change: c.Change, error: Exception) -> bool:
    """Is it about a link that was made by the run, and is gone again, with its namespace maybe?"""
    is_gone = isinstance(error, NoNamespace) or (isinstance(error, KernelError) and error.number == errno.ENODEV)
    return isinstance(change, c.SetLink) and is_gone


def _is_undone_by_removal(step: c.Step) -> bool:
    return bool(step.undo) and all(isinstance(change, c.RemoveLink) for change in step.undo)


def _send_at(send: Callable[..., None], *indexes: int) -> None:
    """Make a link at the indexes that it had, or at others if another one has them: what came home, for instance."""
    try:
        send(*indexes)
    except KernelError as error:
        if not any(indexes) or error.number not in (errno.EEXIST, errno.EBUSY):
            raise
        send(*(0 for _index in indexes))


def _await_source(session: Session, source: str) -> None:
    """Wait for the end of duplicate address detection: no IPv6 route may prefer an address before (ip6_route_info)."""
    deadline = time.monotonic() + _DAD_SECONDS
    while any(
        str(address.value.ip.ip) == source and "tentative" in address.flag_words
        for address in decode.addresses(session)
    ):
        if time.monotonic() > deadline:  # Without a carrier it never ends. The kernel will say so.
            return
        select.select([], [], [], _POLL_SECONDS)


def _await_addresses(session: Session) -> None:
    """Wait for the end of duplicate address detection: nothing can be bound to an address before (inet6_bind())."""
    # Without a carrier it never begins.
    live = {link.ifindex for link in decode.links(session) if "LOWER_UP" in link.flag_words}
    deadline = time.monotonic() + _DAD_SECONDS
    while any(
        "tentative" in address.flag_words and "dadfailed" not in address.flag_words
        for address in decode.addresses(session)
        if address.ifindex in live and not address.kernel
    ):
        if time.monotonic() > deadline:  # The service will say what it lacks.
            return
        select.select([], [], [], _POLL_SECONDS)


def _await_peer(session: Session, route: Route) -> bool:
    """Wait for the way to the other end of a line, which the kernel adds some time after the address (IPv6).

    False if the gateway is none.
    """
    vias = {hop.via for hop in route.hops}
    if not any(address.value.peer in vias for address in decode.addresses(session) if address.value.peer):
        return False
    deadline = time.monotonic() + _DAD_SECONDS
    known = {found.to.partition("/")[0] for found in decode.routes(session, {}, kernel=True)}
    while not vias <= known and time.monotonic() < deadline:
        select.select([], [], [], _POLL_SECONDS)
        known = {found.to.partition("/")[0] for found in decode.routes(session, {}, kernel=True)}
    return True


@contextlib.contextmanager
def _saying_what_the_kernel_lacks(number: int = errno.EOPNOTSUPP, what: str = NO_VLANS) -> Iterator[None]:
    """Of bridges and ports the kernel lacks only VLANs, and then says no more than that it does not support it."""
    try:
        yield
    except KernelError as error:
        if error.number == number:
            raise NslabError(f"{error}: {what}") from error
        raise


@contextlib.contextmanager
def _saying_what_kind_the_kernel_lacks(kind: str) -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        # A kernel that has it says what else it has against it.
        if error.number == errno.EOPNOTSUPP and error.words in ("", "Unknown device type"):
            option = {"vrf": "NET_VRF", "vlan": "VLAN_8021Q"}.get(kind, kind.upper())
            raise NslabError(f"{error}: the kernel of this host has no {kind} (CONFIG_{option})") from error
        raise


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
