# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sysctls of a link, which the kernel tells along with it: as arrays of numbers, without their names.

So they are there for free when a link is looked at, and can be given to one that is made again in its place. The order
is that of include/uapi/linux/ip.h (IPV4_DEVCONF_*) and ipv6.h (DEVCONF_*), the names are those of devinet_sysctl and
addrconf_sysctl. Empty names are of what cannot be set, or follows from something else.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from .session import attributes

# include/uapi/linux/if_link.h
_AF_INET, _AF_INET6 = 2, 10
_IFLA_INET_CONF, _IFLA_INET6_CONF = 1, 2

_IPV4 = (
    "forwarding", "", "proxy_arp", "accept_redirects", "secure_redirects", "send_redirects", "shared_media",
    "rp_filter", "accept_source_route", "bootp_relay", "log_martians", "tag", "arp_filter", "medium_id",
    "disable_xfrm", "disable_policy", "force_igmp_version", "arp_announce", "arp_ignore", "promote_secondaries",
    "arp_accept", "arp_notify", "accept_local", "src_valid_mark", "proxy_arp_pvlan", "route_localnet",
    "igmpv2_unsolicited_report_interval", "igmpv3_unsolicited_report_interval", "ignore_routes_with_linkdown",
    "drop_unicast_in_l2_multicast", "drop_gratuitous_arp", "bc_forwarding", "arp_evict_nocarrier",
)  # fmt: skip
_IPV6 = (
    "forwarding", "hop_limit", "", "accept_ra", "accept_redirects", "autoconf", "dad_transmits",
    "router_solicitations", "router_solicitation_interval", "router_solicitation_delay", "use_tempaddr",
    "temp_valid_lft", "temp_prefered_lft", "regen_max_retry", "max_desync_factor", "max_addresses",
    "force_mld_version", "accept_ra_defrtr", "accept_ra_pinfo", "accept_ra_rtr_pref", "router_probe_interval",
    "accept_ra_rt_info_max_plen", "proxy_ndp", "optimistic_dad", "accept_source_route", "", "disable_ipv6",
    "accept_dad", "force_tllao", "ndisc_notify", "mldv1_unsolicited_report_interval",
    "mldv2_unsolicited_report_interval", "suppress_frag_ndisc", "accept_ra_from_local", "use_optimistic",
    "accept_ra_mtu", "", "use_oif_addrs_only", "accept_ra_min_hop_limit", "ignore_routes_with_linkdown",
    "drop_unicast_in_l2_multicast", "drop_unsolicited_na", "keep_addr_on_down",
    "router_solicitation_max_interval", "seg6_enabled", "seg6_require_hmac", "enhanced_dad", "addr_gen_mode",
    "disable_policy", "accept_ra_rt_info_min_plen", "ndisc_tclass", "rpl_seg_enabled", "ra_defrtr_metric",
    "ioam6_enabled", "ioam6_id", "ioam6_id_wide", "ndisc_evict_nocarrier", "accept_untracked_na",
    "accept_ra_min_lft",
)  # fmt: skip
#: Told in milliseconds, and set in seconds.
_IN_SECONDS = (
    "router_solicitation_interval",
    "router_solicitation_delay",
    "router_solicitation_max_interval",
    "router_probe_interval",
)


def _arrays(af_spec: bytes) -> tuple[bytes, bytes]:
    """Those of IPv4 and of IPv6; empty where the link has none."""
    families = dict(attributes(af_spec))
    found = []
    for family, kind in ((_AF_INET, _IFLA_INET_CONF), (_AF_INET6, _IFLA_INET6_CONF)):
        found.append(dict(attributes(families.get(family, b""))).get(kind, b""))
    return found[0], found[1]


def settings(af_spec: bytes) -> dict[str, str]:
    """The sysctls of a link, as ``ipv4/rp_filter`` and the like, and their values."""
    found = {}
    for family, names, array in zip(("ipv4", "ipv6"), (_IPV4, _IPV6), _arrays(af_spec)):
        for name, value in zip(names, _numbers(array)):
            if name:
                number = value & 0xFFFFFFFF if name == "ioam6_id_wide" else value
                found[f"{family}/{name}"] = str(number // 1000 if name in _IN_SECONDS and number > 0 else number)
    return found


def differing(wanted: Mapping[str, str], af_spec: bytes) -> dict[str, str]:
    """Of such settings those that a link, as it is, has other values of."""
    now = settings(af_spec)
    return {name: value for name, value in wanted.items() if now.get(name, value) != value}


def key(interface: str, setting: str) -> str:
    """The sysctl that a setting is: ``ipv4/rp_filter`` of an interface, or of ``all`` and ``default``."""
    family, _slash, name = setting.partition("/")
    return f"net/{family}/conf/{interface}/{name}"


def _numbers(array: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={len(array) // 4}i", array[: len(array) // 4 * 4])
