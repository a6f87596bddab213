# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands that run others inside a namespace, in plain sh with the programs of util-linux. Imports nothing.

What is run gets what `ip netns exec` gives: the namespace, a /sys of its own, and the files of /etc/netns/NAME; and the
host name that the namespace has.

Private to the collection: no stable interface.
"""

from __future__ import annotations

# Names and commands are arguments of the scripts, so that nothing in them needs quotes.

#: $0: the script below. Arguments: the namespace, whether /sys shall be its own, and a command. Runs it inside.
_INSIDE = """
if ! [ -e "/run/netns/$1" ]; then
  echo "nslab.netns: there is no namespace $1 on this host" >&2
  exit 1
fi
uts=
if [ -e "/run/nslab/uts/$1" ]; then uts="--uts=/run/nslab/uts/$1"; fi
if [ "$2" = no ] && ! [ -d "/etc/netns/$1" ]; then
  net="/run/netns/$1"
  shift 2
  exec nsenter --net="$net" $uts -- "$@"
fi
exec nsenter --net="/run/netns/$1" $uts -- unshare --mount --propagation slave -- /bin/sh -c "$0" "" "$@"
"""

#: The same, in a mount namespace of its own, in the order of `ip netns exec` (iproute2, netns_switch()); but what is at
#: /sys is covered, not taken away, which is one program less.
_MOUNTING = """
if [ "$2" = yes ]; then mount -n -t sysfs sysfs /sys || exit 1; fi
for file in "/etc/netns/$1"/*; do
  if [ -e "$file" ]; then mount --bind "$file" "/etc/${file##*/}"; fi
done
shift 2
exec "$@"
"""


def inside(name: str, command: list[str], sysfs: bool = True) -> list[str]:
    """The command that runs another one, as root, inside the namespace of that name.

    Without ``sysfs``, /sys shows the interfaces of the namespace that it comes from; then nothing is mounted, unless
    there is a folder /etc/netns/NAME.
    """
    return ["/bin/sh", "-c", _INSIDE, _MOUNTING, name, "yes" if sysfs else "no", *command]
