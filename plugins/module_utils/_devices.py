# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the devices are called that links belong to, on their buses and by udev: what /sys says of the hardware.

/sys shows the links of the network namespace in which it was mounted, but all the buses.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os

_SYS = "/sys"
#: Buses whose devices are a part of another one, which people name in their place.
_INNER = ("virtio", "usb")


def names(bus: str, device: str) -> frozenset[str]:
    """All names of a device of a bus: ``virtio0``, ``0000:00:03.0`` under it, udev's ``pci-0000:00:03.0``."""
    return _names(f"{_SYS}/bus/{bus}/devices/{device}") if bus and device else frozenset()


def names_by_link(interface: str, index: int) -> frozenset[str]:
    """The same for kernels before 5.14, which do not say what a link belongs to; for links that /sys shows only."""
    folder = f"{_SYS}/class/net/{interface}"
    try:
        with open(f"{folder}/ifindex", encoding="ascii") as file:
            is_it = int(file.read()) == index
    except (OSError, ValueError):
        return frozenset()
    return _names(f"{folder}/device") if is_it else frozenset()


def _names(path: str) -> frozenset[str]:
    folder = os.path.realpath(path) if os.path.isdir(path) else ""
    found: set[str] = set()
    while folder.startswith(f"{_SYS}/devices/"):
        bus = _bus(folder)
        if bus:
            found.add(os.path.basename(folder))
        if bus and bus not in _INNER:
            break
        folder = os.path.dirname(folder)
    udev = _id_path(folder, path)
    return frozenset(found | {udev} - {""})


def _bus(folder: str) -> str:
    try:
        return os.path.basename(os.readlink(f"{folder}/subsystem"))
    except OSError:
        return ""


def _id_path(carrier: str, path: str) -> str:
    """What udev calls it (ID_PATH): the device that is no part of another one, and the way from there on USB."""
    bus = _bus(carrier) if carrier else ""
    if bus not in ("pci", "platform"):
        return ""
    interface = os.path.basename(os.path.realpath(path))
    on_usb = _bus(os.path.realpath(path)) == "usb"
    # The number of the bus says nothing, as it is another one after each boot.
    return f"{bus}-{os.path.basename(carrier)}" + (f"-usb-0:{interface.partition('-')[2]}" if on_usb else "")
