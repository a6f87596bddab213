# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a link is that is neither a veth nor a bridge: the kinds that the collection makes, in the words of ``ip link``.

Knows nothing of netlink, files, or Ansible. Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Union

if TYPE_CHECKING:
    from ._model import Endpoint

Setting = Union[str, int, bool]

#: The settings of each kind, and what a new link of it has that says nothing. None: it has to be said.
#: ``macvlan`` and ``ipvlan`` have the modes that container engines give theirs; the kernel's own are vepa and l3.
KINDS: dict[str, dict[str, Setting | None]] = {
    "dummy": {},
    "vlan": {
        "id": None,
        "protocol": "802.1Q",
        "reorder_hdr": True,
        "gvrp": False,
        "mvrp": False,
        "loose_binding": False,
        "bridge_binding": False,
    },
    "macvlan": {"mode": "bridge"},
    "ipvlan": {"mode": "l2", "flag": "bridge"},
    "vxlan": {
        "id": None,
        "remote": "",
        "group": "",
        "local": "",
        "dstport": 4789,
        "learning": True,
        "ageing": 300,
        "ttl": 0,
        "tos": 0,
        "df": "unset",
    },
    "vrf": {"table": None},
}

#: What lies on another link, and cannot be without; a vxlan may lie on one.
STACKED = ("vlan", "macvlan", "ipvlan")

#: What is on the same segment as the link that it lies on, beside it.
SHARING = ("macvlan", "ipvlan")

#: The MTU of a new dummy, and that of a new VRF (vrf_setup(): the largest of IPv6).
VRF_MTU = 65575

#: What a vxlan adds to each packet over IPv4 and over IPv6 (vxlan_headroom()).
VXLAN_HEADROOM = {4: 50, 6: 70}

#: Why one cannot come up for something else that has its address (vxlan_open(), macvlan_open()).
WHY_TAKEN = {
    "vxlan": "something else has its UDP port; choose another 'dstport', or end what has it ('ss --udp --listening')",
    "macvlan": "the link that it lies on, or another macvlan there, has its MAC address; choose another 'mac'",
}

#: Those whose ``id`` only one link can have, in what it goes through or lies on.
NUMBERED = ("vlan", "vxlan")

#: What the tag of a VLAN adds to each packet (VLAN_HLEN).
TAG_SIZE = 4


class Kind(NamedTuple):
    """What a link is, whole: each of its settings has a value. ``link``: what it lies on.

    ``netns`` is the namespace through which the packets of a vxlan go, empty for its own; of what lies on a link that
    is where that link is.
    """

    name: str
    settings: tuple[tuple[str, Setting], ...] = ()
    link: Endpoint | None = None
    netns: str = ""

    def get(self, setting: str) -> Setting:
        return dict(self.settings)[setting]

    @property
    def family(self) -> int:
        """The IP version that carries a vxlan."""
        return 6 if ":" in f"{self.get('remote')}{self.get('group')}{self.get('local')}" else 4

    def identity(self, namespace: str) -> tuple[object, ...]:
        """What the kernel lets only one link have, where this one is in a namespace; empty for nothing."""
        if self.name == "vlan":
            return ("vlan", self.link, self.get("id"), self.get("protocol"))
        if self.name == "vxlan":
            underlay = self.link.namespace if self.link else self.netns or namespace
            # As vxlan_vni_in_use() has it.
            return ("vxlan", underlay, self.get("id"), self.get("dstport"), self.family)
        return ("vrf", namespace, self.get("table")) if self.name == "vrf" else ()

    @property
    def is_bound(self) -> bool:
        """Does it go up and down with what it lies on?"""
        return self.name == "vlan" and not self.get("loose_binding")

    def text(self, namespace: str) -> str:
        """The words behind ``type`` of ``ip link add``, of what differs from a new one; empty for none."""
        words = []
        if self.link:
            words.append(f"link {self.link.interface if self.link.namespace == namespace else self.link}")
        elif self.netns:
            words.append(f"link_netns {self.netns}")
        for name, value in self.settings:
            if value != KINDS[self.name][name]:
                words.append(f"{name} {value if not isinstance(value, bool) else 'on' if value else 'off'}")
        return " ".join(words)


def kind(name: str, said: Mapping[str, Setting], link: Endpoint | None = None, netns: str = "") -> Kind:
    """A kind with the settings that are said, and the usual ones besides."""
    settings = {setting: said.get(setting, usual) for setting, usual in KINDS[name].items()}
    return Kind(
        name, tuple((setting, "" if value is None else value) for setting, value in settings.items()), link, netns
    )


def conflict(kind: Kind, there: Kind) -> str:
    """Why a link cannot lie beside another one, in words; empty if it can."""
    if {kind.name, there.name} == {"macvlan", "ipvlan"}:
        return f"shares the link with no {kind.name}"
    if kind.name != there.name:
        return ""
    if kind.name == "macvlan" and "passthru" in (kind.get("mode"), there.get("mode")):
        return "a 'passthru' is alone on its link"
    if kind.name == "ipvlan" and kind.settings != there.settings:
        # ipvlan_set_port_mode() would change all of them.
        words = f"'mode: {there.get('mode')}' and 'flag: {there.get('flag')}'"
        return f"all on one link are of one mode and flag; its are {words}"
    if kind.name == "vlan" and all(kind.get(setting) == there.get(setting) for setting in ("id", "protocol")):
        return "has the same number"
    return ""
