# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of planning that is about devices of the host that are moved into namespaces. Pure, as all of planning.

A device says itself whose it is and what it was called: by a second name that it gets before it is moved and loses
after it has come home (``device_mark``). So it is found again wherever somebody has put it, and whatever it is called
there. What else it had at home is a note (the kind ``device`` of Remembered), as the kernel drops that on the way.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _changes as c
from ._errors import FOREIGN, MISSING, article, did_you_mean, few
from ._kernel import copy, play
from ._model import (
    HOST,
    IPV6_MIN_MTU,
    Address,
    Device,
    Endpoint,
    Link,
    NextHop,
    Remembered,
    Route,
    State,
    Vlan,
    Wanted,
    device_mark,
    origin_of,
)
from ._plan_connection import carriers
from ._sysctl_keys import disable_ipv6_of

if TYPE_CHECKING:
    from ._plan import Planner

#: What the kernel does not let out of its namespace (netns_immutable), as far as the kind tells.
_IMMOVABLE = ("loopback", "bridge", "bond", "team", "vrf", "ppp", "hsr", "openvswitch", "batadv")

#: What has the MAC address of what it lies on, or of what is in it.
_STACKED = ("bridge", "bond", "team", "vlan", "macsec", "ipvlan")

_DEFAULT = ("0.0.0.0/0", "::/0")


class _Note(NamedTuple):
    """What is remembered of a device: the lab's entry, and what it says."""

    lab: str
    entry: Remembered
    home: Mapping[str, Any]

    def is_of(self, device: Device) -> bool:
        home = self.home
        macs = (home.get("mac"), home.get("permanent_mac"))
        return any(
            (
                device.name and device.name in (self.entry.object, *home.get("altnames", ())),
                device.mac and device.mac in macs,
                device.path and device.path in home.get("paths", ()),
            )
        )

    def is_same_hardware(self, link: Link) -> bool:
        if self.home.get("permanent_mac"):
            return bool(link.permanent_mac == self.home["permanent_mac"])
        return bool(link.kind == self.home.get("kind") and link.mac and link.mac == self.home.get("mac"))


def _notes(lab: str, entries: Iterable[Remembered]) -> Iterator[_Note]:
    for entry in entries:
        if entry.kind == "device":
            yield _Note(lab, entry, json.loads(entry.before or "{}"))


def completed(wanted: Wanted, state: State) -> Wanted:
    """The demand with what the notes say of devices: in a whole document the MTU and the MAC are those of home."""
    notes = [note for note in _notes(wanted.lab, state.remembered) if _holds(state, note)]
    if not notes or not wanted.whole:
        return wanted
    namespaces = {}
    for name, body in wanted.namespaces.items():
        links = dict(body.links)
        for link in body.links.values():
            home = next((note.home for note in notes if link.device and note.is_of(link.device)), None)
            if home:
                mtu = home["mtu"] if link.mtu is None else link.mtu
                mac = (home["mac"] or None) if link.mac is None else link.mac
                links[link.name] = dataclasses.replace(link, mtu=mtu, mac=mac)
        namespaces[name] = dataclasses.replace(body, links=links)
    return dataclasses.replace(wanted, namespaces=namespaces)


def _holds(state: State, note: _Note) -> bool:
    """Is the device there that a note is about? Another one may have got its name."""
    for at, link in state.links():
        if link.origins:
            if (note.lab, note.entry.object) in link.origins:
                return True
        elif str(at) == note.entry.after and note.is_same_hardware(link):
            return True
    return False


class Devices:
    """Plans which devices go where, step by step as the planner comes to them."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._wanted = planner.wanted
        self._lab = planner.wanted.lab
        #: What is remembered, by the lab and the name on the host.
        self._notes: dict[tuple[str, str], _Note] = {}
        for lab, entries in [(self._lab, planner.before.remembered), *planner.before.claims.items()]:
            self._notes.update({(lab, note.entry.object): note for note in _notes(lab, entries)})
        self._demands = [(end, link.device) for end, link in planner.wanted_links() if link.device]
        #: Where the wanted devices are, by where they shall be.
        self._places: dict[Endpoint, Endpoint] = {}
        #: The moves that were asked for in spite of all.
        self._forced: set[c.Change] = set()

    def ends(self) -> dict[Endpoint, str]:
        """Where devices shall be, with the place in the user's input."""
        return {end: self._path(end) for end, _device in self._demands}

    def _path(self, end: Endpoint) -> str:
        path = self._wanted.namespaces[end.namespace].links[end.interface].path
        return f"{path}.device" if self._wanted.whole else "device"

    def is_forced(self, change: c.Change) -> bool:
        return change in self._forced

    # --- finding -----------------------------------------------------------------------------------------------------

    def find(self) -> None:
        """Find out where the wanted devices are; refuse those that cannot be had."""
        taken: dict[Endpoint, Endpoint] = {}
        # Those that are where they shall be first, so that no other demand takes them for its own.
        for end, device in sorted(self._demands, key=lambda item: not self._is_there(*item)):
            at = self._locate(end, device)
            if at is None:
                continue
            if at in taken:
                text = f"the device {device} is {at}, which is asked for at {self._path(taken[at])} already"
                self._planner.problem(self._path(end), f"{text}; it can be in one place only")
                continue
            taken[at] = end
            self._places[end] = at
            link = self._planner.state.link(at)
            if link and at.namespace == HOST:
                self._check(end, device, at, link)

    def _is_there(self, end: Endpoint, device: Device) -> bool:
        link = self._planner.state.link(end)
        return link is not None and bool(link.origin(self._lab)) and self._matches(end, link, device)

    def _locate(self, end: Endpoint, device: Device) -> Endpoint | None:
        state = self._planner.state
        own = [at for at, link in state.links() if link.origin(self._lab) and self._matches(at, link, device)]
        if own:
            return min(own, key=lambda at: (at != end, at.namespace != end.namespace, at.namespace == HOST))
        here = state.link(end)
        changed = self._wanted.namespaces[end.namespace].links[end.interface].mac
        if here and here.origin(self._lab) and device.mac and here.mac == changed:
            # The document has given it another MAC, and nobody knows any more which one it had.
            return end
        for at, link in state.links():
            if link.origins and not link.origin(self._lab) and self._matches(at, link, device):
                return at if self._may_adopt(end, at, link) else None
        found = [at for at, link in state.links() if at.namespace == HOST and self._matches(at, link, device)]
        if len(found) > 1:
            # What lies on it has its MAC address, too.
            hardware = [at for at in found if self._link(at).kind not in _STACKED]
            found = [at for at in hardware if not self._link(at).kind] or hardware or found
        if len(found) > 1:
            text = f"there are several devices {device} on the host: {few([at.interface for at in found])}"
            self._planner.problem(self._path(end), f"{text}; say which one by its name")
            return None
        if found:
            return found[0]
        if here and not here.origins and self._is_unmarked(end, here, device):
            return end
        if here:
            text = f"{end} exists already, and nothing says that it is the device {device} of the host"
            self._planner.problem(self._path(end), f"{text}; rename or remove it", FOREIGN)
        else:
            names = state.namespaces[HOST].links if HOST in state.namespaces else ()
            hint = did_you_mean(device.name, names) if device.name else ""
            self._planner.assume(
                self._path(end), f"there is no device {device} on the host{hint}", end.namespace, MISSING
            )
        return None

    def _link(self, end: Endpoint) -> Link:
        return self._planner.state.namespaces[end.namespace].links[end.interface]

    def _matches(self, at: Endpoint, link: Link, device: Device) -> bool:
        if link.kind == "loopback":
            return False
        origins = link.origins
        noted = [self._notes.get(origin) for origin in origins]
        if any(note is not None and note.is_of(device) for note in noted):
            return True
        if device.name:
            names = [origin.name for origin in origins] or ([link.name] if at.namespace == HOST else [])
            return bool(names) and device.name in (*names, *link.altnames)
        return device.mac in (link.mac, link.permanent_mac) if device.mac else device.path in link.paths

    def _is_unmarked(self, end: Endpoint, link: Link, device: Device) -> bool:
        """Is a link the device, which somebody has taken the mark from?"""
        note = self._note_at(end, link)
        if note and note.is_of(device):
            return True
        return not device.name and self._matches(end, link, device)

    def _note_at(self, end: Endpoint, link: Link | None = None) -> _Note | None:
        """The lab's note of the device that went to ``end``; and is ``link``, which has no mark."""
        notes = (note for note in self._notes.values() if note.lab == self._lab and note.entry.after == str(end))
        return next((note for note in notes if link is None or note.is_same_hardware(link)), None)

    def _may_adopt(self, end: Endpoint, at: Endpoint, link: Link) -> bool:
        lab = next(origin.lab for origin in link.origins)
        if at == end:
            return not self._planner.refuse_foreign(self._path(end), f"the device {at}", lab)
        whose = f"the lab {lab!r}" if lab else "somebody (for no lab)"
        text = f"the device is {at}: {whose} has taken it; remove it there, or choose another one"
        self._planner.problem(self._path(end), text, FOREIGN)
        return False

    def _check(self, end: Endpoint, device: Device, at: Endpoint, link: Link) -> None:
        """Refuse a device of the host that cannot or should not leave."""
        path, host = self._path(end), self._planner.state.namespaces[HOST]
        if link.kind in _IMMOVABLE:
            text = f"{at} is {article(link.kind)} device, which the kernel does not let out of its namespace"
            self._planner.problem(path, text)
            return
        if link.lab:
            self._planner.problem(path, f"{at} was made by the lab {link.lab!r}; it is no device to be moved", FOREIGN)
            return
        if link.controller:
            self._planner.problem(path, f"{at} is a part of {link.controller}; take it out there first")
        users = {lab for lab, entry in self._claims() if link.index in [index for _name, index in entry.devices[:1]]}
        for lab in sorted(users):
            text = f"the lab {lab!r} has changed something on {at}, and needs it; remove that lab, or leave this out"
            self._planner.problem(path, text, FOREIGN)
        if device.force:
            return
        why = ""
        default = {hop.dev for route in host.routes if route.to in _DEFAULT for hop in route.hops}
        above = [other.name for other in host.links.values() if other.lower == link.name]
        elsewhere = (upper for upper in self._planner.state.uppers.get(at, ()) if upper.namespace != HOST)
        above += [str(upper) for upper in elsewhere if not self._lab or self._link(upper).lab != self._lab]
        if default and link.name in default | carriers(host, default):
            why = "the host's default route goes by it"
        elif link.master and not self._wanted.adopt:
            why = f"it is a port of the bridge {link.master}"
        elif above:
            why = f"{few(above)} {'lies' if len(above) == 1 else 'lie'} on it"
        if why:
            self._planner.problem(path, f"{at} is needed on the host: {why}; say 'force: true' if it shall go anyway")

    def _claims(self) -> Iterator[tuple[str, Remembered]]:
        for lab, entries in self._planner.before.claims.items():
            yield from ((lab, entry) for entry in entries if lab not in self._wanted.gone and entry.namespace == HOST)

    # --- going home --------------------------------------------------------------------------------------------------

    def go_home(self, namespaces: Collection[str]) -> None:
        """Send home what is wanted no more, and what is in namespaces that go."""
        for end in self._going(namespaces):
            self._come_home(end)
        marked = {o.name for _end, link in self._planner.state.links() for o in link.origins if o.lab == self._lab}
        gone = {*self._wanted.absent_namespaces, *map(str, self._wanted.absent_devices)}
        for (lab, name), note in self._notes.items():
            place = note.entry.after or ""
            is_wanted = any(note.is_of(device) for _end, device in self._demands)
            is_over = self._wanted.prune or not gone.isdisjoint((place, place.partition(":")[0]))
            # A device that is gone for good, or was not moved yet.
            if lab != self._lab or name in marked or not is_over or is_wanted:
                continue
            if self._is_lost(note):
                self._planner.result.warnings.append(
                    f"the device {name}, which was moved to {note.entry.after}, is gone, or in a namespace without a "
                    "name; what it had on the host is remembered until the next boot, should it appear again"
                )
            else:
                self._forget(note)

    def _is_lost(self, note: _Note) -> bool:
        """Is a device neither at home, nor is there another one that has its name by now?"""
        at_home = self._planner.state.namespaces[HOST].links.values() if HOST in self._planner.state.namespaces else ()
        return not any(link.name == note.entry.object or note.is_same_hardware(link) for link in at_home)

    def _going(self, namespaces: Collection[str]) -> list[Endpoint]:
        state, stays = self._planner.state, set(self._places.values())
        going = list(filter(None, map(self._absent, self._wanted.absent_devices)))
        for end, link in state.links():
            if end.namespace in namespaces and (link.origins or self._note_at(end, link)):
                going.append(end)
            elif self._wanted.prune and end not in stays:
                is_lost = end.namespace != HOST and not link.origins and self._note_at(end, link) is not None
                going += [end] if link.origin(self._lab) or is_lost else []
        for end, _device in self._demands:
            here = state.link(end)
            # Another one of ours that is there: it goes, or goes to its own place afterwards.
            if self._places.get(end, end) != end and here and here.origin(self._lab):
                going.append(end)
        return list(dict.fromkeys(going))

    def _absent(self, end: Endpoint) -> Endpoint | None:
        """Where the device is that shall go home from ``end``; None if there is none to go."""
        state = self._planner.state
        link = state.link(end)
        note = self._note_at(end)
        if link is None or not (link.origins or (note and note.is_same_hardware(link))):
            # The namespace is gone, or a run was killed on the way.
            for at, other in state.links():
                if note and at.namespace == HOST and any(o == (note.lab, note.entry.object) for o in other.origins):
                    return at
        if link is None:
            return None
        if not link.origins:
            if note and note.is_same_hardware(link):
                return end
            if link.details:
                # The room of these has looked at it.
                return None
            what = f"{article(link.kind or 'physical')} device that was not moved there from the host"
            self._planner.problem("name", f"{end} is {what}; it is not sent there", FOREIGN)
            return None
        if link.origin(self._lab) or self._planner.is_of_lab(f"the device {end}", link.origins[0].lab):
            return end
        return None

    def in_the_way(self) -> Iterator[Endpoint]:
        """What is the lab's own, and where a device shall be. What is not is refused."""
        for end, at in self._places.items():
            link = self._planner.state.link(end)
            if self._planner.is_second_name(end, self._path(end), but=at):
                continue
            if at == end or link is None:
                continue
            if self._lab and link.lab == self._lab and link.kind in ("veth", "bridge"):
                yield end
                continue
            text = f"{end} exists already and is another device; remove or rename it, or choose another name"
            self._planner.problem(self._path(end), text, FOREIGN)

    def _come_home(self, end: Endpoint) -> None:
        """Move a device home, give it back what it had there, and take its mark off."""
        planner, link = self._planner, self._link(end)
        lost = self._note_at(end, link)
        origin = link.origin(self._lab) or next(iter(link.origins), None)
        key = tuple(origin) if origin else (self._lab, lost.entry.object if lost else end.interface)
        note = self._notes.get((key[0], key[1]))
        home = Endpoint(HOST, self._free_name(end, key[1]))
        if home.interface != key[1]:
            planner.result.warnings.append(
                f"the device {end} cannot be called {key[1]!r} again, as another link of the host has that name "
                f"by now; it is {home.interface!r} there"
            )
        self._move(end, home, conf=_settings(note.home, "like_others") if note else ())
        if note:
            self._restore(home, note, has_moved=end.namespace != HOST)
            self._restore_altnames(home, note.home.get("altnames", ()))
            self._forget(note)
        for altname in [device_mark(*other) for other in link.origins]:
            planner.do(c.SetAltname(home, altname, is_added=False))
        for demand, at in self._places.items():
            if at == end:
                self._places[demand] = home

    def _names_beside(self, namespace: str, but: Endpoint) -> set[str]:
        """The names that links have in a namespace, first ones and others."""
        links = [link for at, link in self._planner.state.links() if at.namespace == namespace and at != but]
        return {name for link in links for name in (link.name, *link.altnames)}

    def _restore_altnames(self, home: Endpoint, altnames: Iterable[str]) -> None:
        taken = self._names_beside(HOST, home) | {home.interface}
        for altname in altnames:
            if altname in self._link(home).altnames:
                continue
            if altname in taken:
                text = f"{home} was called {altname!r}, too, which is the name of another link by now"
                self._planner.result.warnings.append(text)
            else:
                self._planner.do(c.SetAltname(home, altname))

    def _free_name(self, end: Endpoint, name: str) -> str:
        taken = self._names_beside(HOST, end)
        names = [name, end.interface, *(f"dev{i}" for i in range(len(taken) + 1))]
        return next(word for word in names if word not in taken)

    def _forget(self, note: _Note) -> None:
        if note.lab == self._lab:
            self._planner.result.forgotten.append(note.entry)
        else:
            self._planner.result.released.setdefault(note.lab, []).append(note.entry)

    def _move(
        self,
        end: Endpoint,
        to: Endpoint,
        path: str = "",
        note: Remembered | None = None,
        conf: tuple[tuple[str, str], ...] = (),
    ) -> None:
        link = self._link(end)
        if end == to:
            return
        # The kernel moves a link before it finds that it cannot be called so.
        beside = self._names_beside(to.namespace, end) | {to.interface}
        for altname in [altname for altname in link.altnames if altname in beside]:
            self._planner.do(c.SetAltname(end, altname, is_added=False, path=path))
        if end.namespace == to.namespace:
            # Before Linux 6.2 a link has to be down for another name. All but its first address get new labels.
            if link.up:
                self._planner.do(c.SetUp(end, False, path=path))
            ipv4 = [address for address in link.addresses if address.family == 4]
            if len(ipv4) > 1 or any(address.label for address in ipv4):
                for address in reversed(ipv4):
                    self._planner.do(c.RemoveAddress(end, address, path))
        self._planner.do_noted(c.MoveLink(end, to, path, conf), note)

    def _restore(self, end: Endpoint, note: _Note, has_moved: bool) -> None:
        planner, home, link = self._planner, note.home, self._link(end)
        mtu = home["mtu"] if home["mtu"] != link.mtu else None
        mac = home["mac"] if home["mac"] and home["mac"] != link.mac else None
        if mtu is not None or mac is not None:
            before = (link.mtu if mtu is not None else None, link.mac if mac is not None else None, None)
            if mac is not None and link.up:
                # Not every device takes another one while it is up.
                planner.do(c.SetUp(end, False))
            planner.do(c.SetLink(end, mtu=mtu, mac=mac, before=before))
        # Those of IPv6 are there only with an MTU that is large enough for it.
        conf, like_others = _settings(home, "conf"), _settings(home, "like_others")
        # It may have come home by other hands, or by those of a run that was killed.
        if conf or (like_others and not has_moved):
            planner.do(c.RestoreConf(end, conf, like_others=like_others))
        self._restore_master(end, link, home)
        if bool(home["up"]) != link.up:
            planner.do(c.SetUp(end, bool(home["up"])))
        takes_ipv6 = self._takes_ipv6(home)
        for words in home["addresses"]:
            self._restore_address(end, link, note.entry.object, Address(*words), takes_ipv6)
        for words in home["routes"]:
            self._restore_route(self._renamed(end, note, _route(words)))

    def _restore_master(self, end: Endpoint, link: Link, home: Mapping[str, Any]) -> None:
        planner, master = self._planner, self._now(home, home["master"])
        if not master or link.master == master:
            return
        if master not in planner.state.namespaces[HOST].links:
            text = f"{end} was a port of the bridge {home['master']}, and that is gone; it becomes none again"
            planner.result.warnings.append(text)
            return
        planner.do(c.SetMaster(end, master, link.master))
        settings = tuple((name, value) for name, value in home["port"].items() if link.port.get(name) != value)
        if settings:
            planner.do(c.SetPort(end, settings))
        vlans = tuple(Vlan(*vlan) for vlan in home["vlans"])
        if vlans != link.vlans:
            planner.do(c.SetVlans(end, vlans, link.vlans))

    def _takes_ipv6(self, home: Mapping[str, Any]) -> bool:
        """Will a device that has come home take IPv6 addresses? By its own setting, or by that of all links."""
        name = "ipv6/disable_ipv6"
        disabled = {**dict(home.get("like_others") or {}), **dict(home.get("conf") or {})}.get(name, "default")
        if disabled in ("all", "default"):
            disabled = self._planner.state.namespaces[HOST].sysctls.get(disable_ipv6_of(disabled))
        return disabled != "1" and int(home["mtu"]) >= IPV6_MIN_MTU

    def _restore_address(self, end: Endpoint, link: Link, old: str, address: Address, takes_ipv6: bool) -> None:
        if address.label.startswith(f"{old}:"):
            address = address._replace(label=f"{end.interface}:{address.label.partition(':')[2]}"[:15])
        if any(address.ip == other.ip for other in link.addresses):
            return
        links = self._planner.state.namespaces[HOST].links.values()
        owner = next((o.name for o in links if any(address.ip.ip == other.ip.ip for other in o.addresses)), "")
        if owner and owner != end.interface:
            text = f"{end} had the address {address}, which {owner} has by now; it is not added again"
            self._planner.result.warnings.append(text)
        elif address.family == 6 and not takes_ipv6:
            text = f"{end} had the address {address}, and takes no IPv6 addresses now; it is not added again"
            self._planner.result.warnings.append(text)
        else:
            self._planner.do(c.AddAddress(end, address))

    def _restore_route(self, route: Route) -> None:
        there = self._planner.restore_route(HOST, route)
        if there and there._replace(protocol=route.protocol) != route:
            text = f"the route {HOST} {route} is not added again: there is {there} by now"
            self._planner.result.warnings.append(text)

    def _renamed(self, end: Endpoint, note: _Note, route: Route) -> Route:
        def now(dev: str) -> str:
            return end.interface if dev == note.entry.object else self._now(note.home, dev)

        hops = tuple(hop._replace(dev=now(hop.dev)) for hop in route.nexthops)
        return route._replace(dev=now(route.dev), nexthops=hops)

    def _now(self, home: Mapping[str, Any], name: str) -> str:
        """What another link of the host is called by now."""
        index = home["indexes"].get(name)
        links = self._planner.state.namespaces[HOST].links.values()
        return next((link.name for link in links if index and link.index == index), name)

    # --- moving in ---------------------------------------------------------------------------------------------------

    def move_in(self) -> None:
        """Move the devices to where they shall be, with their marks on."""
        for end, device in self._demands:
            at = self._places.get(end)
            if at is None:
                # It was taken for granted, or there is a problem with it.
                links = self._planner.state.namespaces[end.namespace].links
                links.setdefault(end.interface, Link(end.interface, 0, mtu=0))
                continue
            link, path = self._link(at), self._path(end)
            again = self._mark(end, at, link, path)
            if at == end:
                continue
            qdisc = link.other_qdisc or (link.impairment and f"netem {link.impairment}")
            if qdisc:
                text = f"{at} has a queueing discipline, {qdisc}, which ends when it is moved, and does not come back"
                self._planner.result.warnings.append(text)
            move = c.MoveLink(at, end, path)
            if device.force:
                self._forced.add(move)
            self._move(at, end, path, again)

    def _mark(self, end: Endpoint, at: Endpoint, link: Link, path: str) -> Remembered | None:
        """Mark a device as the lab's, and remember what it is now, unless it has been marked before.

        Returns what is to be remembered with its move.
        """
        planner = self._planner
        own, others = link.origin(self._lab), [origin for origin in link.origins if origin.lab != self._lab]
        lost = self._note_at(at, link) if at.namespace != HOST else None
        name = own.name if own else lost.entry.object if lost else others[0].name if others else at.interface
        note = self._notes.get((self._lab, name))
        entry = None
        if at.namespace == HOST and (note is None or not own):
            if note and note.entry not in planner.result.forgotten:
                # It speaks of another device that had the name, or of the same one and of nothing that was done.
                planner.result.expired.append(note.entry)
            entry = self._entry(at, end)
        elif others and not own and tuple(others[0]) in self._notes:
            # What it had at home goes over to the lab that takes it.
            theirs = self._notes[others[0].lab, others[0].name]
            entry = theirs.entry._replace(after=str(end))
            self._forget(theirs)
        if not own:
            planner.do_noted(c.SetAltname(at, device_mark(self._lab, name), path=path), entry)
        for other in others:
            planner.do(c.SetAltname(at, device_mark(*other), is_added=False, path=path))
        if own and entry:
            # Its note is lost. What it is now is all that is known.
            return entry
        return note.entry._replace(after=str(end)) if own and note and note.entry.after != str(end) else None

    def _entry(self, at: Endpoint, end: Endpoint) -> Remembered:
        """All that a device has on the host, as a note."""
        state = self._planner.state
        link, host = self._link(at), state.namespaces[HOST]
        undo = play(copy(state), c.MoveLink(at, end))
        routes = [change.route for change in undo if isinstance(change, c.AddRoute)]
        names = {hop.dev for route in routes for hop in route.hops} | {link.master}
        home = {
            "kind": link.kind,
            "mtu": link.mtu,
            "mac": link.mac,
            "permanent_mac": link.permanent_mac,
            "paths": sorted(link.paths),
            "altnames": [altname for altname in link.altnames if not origin_of(altname)],
            "up": link.up,
            "master": link.master,
            "port": link.port,
            "vlans": link.vlans,
            "addresses": link.addresses,
            "routes": [_without_dead(route) for route in routes],
            "indexes": {name: host.links[name].index for name in sorted(names) if name in host.links},
        }
        return Remembered("device", HOST, host.inode, at.interface, json.dumps(home), str(end))


def _settings(home: Mapping[str, Any], which: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((home.get(which) or {}).items()))


def _without_dead(route: Route) -> Route:
    return route._replace(nexthops=tuple(hop._replace(dead=False) for hop in route.nexthops))


def _route(words: list[Any]) -> Route:
    fields = dict(zip(Route._fields, words))
    return Route(**{**fields, "nexthops": tuple(NextHop(*hop) for hop in fields["nexthops"])})
