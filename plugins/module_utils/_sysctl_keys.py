# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names of sysctls: their spellings, and what they belong to. Pure.

A key is a path below /proc/sys: ``net/ipv4/conf/eth0.100/rp_filter``.

Private to the collection: no stable interface.
"""

from __future__ import annotations

#: The sysctl directories whose next element names an interface; what follows never has a dot.
_PER_INTERFACE = ("net.ipv4.conf.", "net.ipv6.conf.", "net.ipv4.neigh.", "net.ipv6.neigh.", "net.mpls.conf.")


#: The sysctls of IPv6 of which all interfaces get what is set for ``all`` (addrconf_fixup_forwarding() and others).
PASSED_ON = ("forwarding", "disable_ipv6")


def key_of(name: str) -> str:
    """The path of a sysctl in any of its spellings.

    As sysctl(8) has it, the first separator tells which of ``.`` and ``/`` separates, and the other stands for a dot
    in an element. Besides, an interface name's own dots may stand as they are: ``net.ipv4.conf.eth0.100.rp_filter``.
    """
    if "/" in name and ("." not in name or name.index("/") < name.index(".")):
        return name.strip("/")
    for prefix in _PER_INTERFACE:
        if name.startswith(prefix):
            interface, _dot, last = name[len(prefix) :].rpartition(".")
            return prefix.replace(".", "/") + interface.replace("/", ".") + "/" + last
    return name.translate(str.maketrans("./", "/."))


def name_of(key: str) -> str:
    """A key as people write it: with dots, unless an element has a dot of its own."""
    return key if "." in key else key.replace("/", ".")


def normal(value: str) -> str:
    """A value with its white space folded, as values of several numbers are reported with tabs."""
    return " ".join(value.split())


def generic_key(key: str) -> str:
    """The key of a per-interface sysctl as every namespace has it: that of its ``lo``."""
    interface = interface_of(key)
    return key.replace(f"/{interface}/", "/lo/", 1) if interface else key


def interface_of(key: str) -> str:
    """The interface that a sysctl key belongs to; empty for none and for the pseudo-interfaces all and default."""
    parts = key.split("/")
    if len(parts) >= 5 and parts[0] == "net" and parts[2] in ("conf", "neigh") and parts[3] not in ("all", "default"):
        return parts[3]
    return ""


def ipv6_conf(interface: str, name: str) -> str:
    """The key of a sysctl of IPv6 of an interface."""
    return f"net/ipv6/conf/{interface}/{name}"


def disable_ipv6_of(interface: str) -> str:
    """The key of the sysctl that keeps IPv6 addresses off an interface."""
    return ipv6_conf(interface, "disable_ipv6")


def sysctl_rank(key: str) -> int:
    """The order of setting: sysctls that the kernel passes on to others go before those."""
    if key == "net/ipv4/ip_forward":
        return 0
    if "/conf/all/" in key:
        return 1
    return 2 if "/default/" in key else 3
