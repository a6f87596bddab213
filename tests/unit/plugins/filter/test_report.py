# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report says of a topology."""

from __future__ import annotations

from ansible_collections.nslab.netns.plugins.filter.report import report


def test_services_stand_with_their_namespaces() -> None:
    services = {"web": {"command": ["httpd", "-p", 80, "a b"], "user": "www"}, "ticker": {"command": "sleep 1000"}}
    told = report({"name": "lab", "namespaces": {"a": {"services": services}, "b": None}})
    assert told.splitlines() == [
        "Lab lab",
        "",
        "a",
        "  services        web: httpd -p 80 'a b'",
        "                  ticker: sleep 1000",
        "",
        "b",
    ]
