# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left over on a machine: of killed runs, of labs that somebody has taken apart by hand. Pure.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ._model import HOST, NOBODY, Endpoint, Link, Remembered, State
from ._service import Service, ServiceKey


class Orphan(NamedTuple):
    """Something left over. ``kind``:

    stale, dangling or foreign: a name in /run/netns that stands for no namespace; unfinished: a link that a killed run
    has made or was removing; device: one of the host that is on its way to a lab or from there, or has fallen back when
    somebody removed its namespace; unpaired: a lab's end of a veth whose other end is not the lab's, or not to be seen;
    half: a namespace of a lab with such links in it; memory: what a lab has changed on a namespace that is gone;
    service: what runs, or shall run, in a namespace that is gone, or of which nothing can be read.
    """

    kind: str
    namespace: str
    name: str
    lab: str
    text: str


def orphans(
    state: State, broken: Mapping[str, tuple[str, str]], memories: Mapping[str, Sequence[Remembered]]
) -> list[Orphan]:
    """What is left over in ``state``, which was looked at as nobody's.

    ``broken`` has the kind and the text for each name in /run/netns that stands for no namespace, ``memories`` what
    each lab has changed on things that are not its own.
    """
    found = [Orphan(kind, "", name, "", text) for name, (kind, text) in sorted(broken.items())]
    links = [orphan for end, link in state.links() for orphan in _link(state, end, link)]
    found += links
    for name in dict.fromkeys(orphan.namespace for orphan in links):
        lab = state.namespaces[name].lab
        if lab:
            ends = ", ".join(orphan.name for orphan in links if orphan.namespace == name)
            text = f"the namespace {name} of the lab {lab!r} is only half there: see {ends}"
            found.append(Orphan("half", name, name, lab, text))
    found += _lost_devices(state, memories)
    inodes = {namespace.inode for namespace in state.namespaces.values()}
    for lab, entries in sorted(memories.items()):
        gone = dict.fromkeys(entry.namespace for entry in entries if entry.inode not in inodes)
        for name in gone:
            text = f"the lab {lab!r} has changed things in a namespace {name} that is gone"
            found.append(Orphan("memory", name, name, lab, text))
    found += [Orphan("service", *key, "", text) for key, text in sorted(state.unreadable_services.items())]
    found += [orphan for key, service in sorted(state.services.items()) for orphan in _service(state, key, service)]
    return found


def _lost_devices(state: State, memories: Mapping[str, Sequence[Remembered]]) -> Iterator[Orphan]:
    marked = {tuple(origin) for _end, link in state.links() for origin in link.origins}
    for lab, entries in sorted(memories.items()):
        for entry in entries:
            namespace, _colon, interface = (entry.after or "").partition(":")
            there = state.link(Endpoint(HOST, entry.object)) or state.link(Endpoint(namespace, interface))
            if entry.kind == "device" and (lab, entry.object) not in marked and not there:
                whose = f"the lab {lab!r}" if lab else "no lab"
                text = f"the device {entry.object!r}, which was moved to {entry.after} for {whose}, is gone, or in a"
                yield Orphan("device", "", entry.object, lab, f"{text} namespace without a name")


def _service(state: State, key: ServiceKey, service: Service) -> Iterator[Orphan]:
    namespace = state.namespaces.get(key.namespace)
    whose = f"of the lab {service.lab!r}" if service.lab else "of no lab"
    if namespace is None:
        text = f"the service {key} {whose} is left of a namespace that is gone"
        yield Orphan("service", *key, service.lab, text)
    elif service.inode != namespace.inode:
        text = f"the service {key} {whose} is of an earlier namespace of that name"
        yield Orphan("service", *key, service.lab, text)


def _link(state: State, end: Endpoint, link: Link) -> Iterator[Orphan]:
    if link.unfinished == NOBODY:
        yield Orphan("unfinished", *end, "", f"{end} was left by a run that was killed while it made or removed it")
        return
    for origin in link.origins if end.namespace == HOST else ():
        whose = f"the lab {origin.lab!r}" if origin.lab else "no lab"
        text = f"{end} is the device {origin.name!r} that was moved into a namespace for {whose}, and is not there"
        yield Orphan("device", *end, origin.lab, text)
    namespace = state.namespaces[end.namespace]
    lab = link.lab or ("" if end.namespace == HOST else namespace.lab)
    if link.kind != "veth" or not link.lab or link.origins:
        return
    peer = state.link(link.peer) if link.peer else None
    if peer is None:
        yield Orphan("unpaired", *end, lab, f"{end} of the lab {lab!r} is wired to a namespace that has no name")
    elif peer.lab != link.lab:
        whose = f"the lab {peer.lab!r}" if peer.lab else "no lab"
        yield Orphan("unpaired", *end, lab, f"{end} of the lab {lab!r} is wired to {link.peer}, which is of {whose}")
