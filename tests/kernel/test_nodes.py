# Copyright: (c) 2026, nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces that look like machines of their own: host names, and files in the place of those in /etc."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.nslab.netns.plugins.module_utils import _node
from ansible_collections.nslab.netns.plugins.module_utils._errors import NslabError, Refused
from ansible_collections.nslab.netns.plugins.module_utils._facts import gather
from ansible_collections.nslab.netns.plugins.module_utils._model import NodeSetting
from ansible_collections.nslab.netns.tests.unit.topologies import Document, routed
from applying import fail_each_call, host_without_lab_traces, kill_at, netns, refused, run
from throwaway import differences, ip, own_etc

ETC = Path("/etc/netns")
UTS = Path("/run/nslab/uts")


@pytest.fixture(autouse=True)
def etc(host: None, tmp_path: Path) -> None:
    own_etc(tmp_path)


def machines(**more: Any) -> Document:
    """The routed lab, whose server has all that makes a machine of it."""
    document = routed()
    document["namespaces"]["server"].update(
        {
            "hostname": "server.example",
            "resolv_conf": {
                "nameservers": ["192.0.2.53", "2001:db8::53"],
                "search": ["example"],
                "options": ["ndots:2"],
            },
            "hosts_file": {"entries": {"192.0.2.7": ["db", "db.example"]}},
            **more,
        }
    )
    return document


RESOLV_CONF = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example\noptions ndots:2\n"
HOSTS = """\
127.0.0.1 localhost server.example
::1 localhost ip6-localhost ip6-loopback server.example
10.0.1.1 router
10.0.2.2 client
192.0.2.7 db db.example
"""


def hostname(name: str) -> str:
    command = ["nsenter", f"--uts={UTS}/{name}", "uname", "--nodename"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def text(what: str, name: str = "server") -> str:
    """A file of a namespace, without the line that says whose it is."""
    first, _newline, rest = (ETC / name / what).read_text().partition("\n")
    assert first.startswith("# nslab:routed ")
    return rest


def test_a_machine_comes_drifts_and_goes() -> None:
    fresh, etc = host_without_lab_traces(), sorted(os.listdir("/etc"))
    predicted = run(machines(), check=True)
    assert not ETC.exists()
    assert run(machines()) == predicted
    assert "add hostname server server.example" in predicted
    assert (hostname("server"), text("resolv.conf"), text("hosts")) == ("server.example", RESOLV_CONF, HOSTS)
    assert os.uname().nodename != "server.example"
    assert (ETC / "server/hosts").stat().st_mode & 0o777 == 0o644
    assert run(machines()) == []

    subprocess.run(["nsenter", f"--uts={UTS}/server", "hostname", "other"], check=True)
    (ETC / "server/resolv.conf").unlink()
    with (ETC / "server/hosts").open("a") as file:
        file.write("192.0.2.8 more\n")
    assert [change.split(" ")[:3] for change in run(machines(), check=True)] == [
        ["change", "hostname", "server"],
        ["add", "file", "/etc/netns/server/resolv.conf"],
        ["change", "file", "/etc/netns/server/hosts"],
    ]
    run(machines())
    assert (hostname("server"), text("resolv.conf"), text("hosts")) == ("server.example", RESOLV_CONF, HOSTS)

    # What leaves the document goes, and what is changed is set.
    run(machines(hostname="new", resolv_conf=None, hosts_file=None))
    assert hostname("server") == "new"
    assert not ETC.exists()
    run(routed())
    assert not UTS.exists()

    run(machines())
    run({"name": "routed"}, absent=True)
    assert run({"name": "routed"}, absent=True) == []
    assert not differences(fresh, host_without_lab_traces())
    assert sorted(os.listdir("/etc")) == etc


@pytest.mark.parametrize("key", ["resolv_conf", "hosts_file"])
def test_a_file_can_be_given_as_text(key: str) -> None:
    run(machines(**{key: "# by hand\nanything"}))
    assert text({"resolv_conf": "resolv.conf", "hosts_file": "hosts"}[key]) == "# by hand\nanything\n"


def test_what_was_captured_changes_nothing() -> None:
    run(machines())
    facts = gather(None, (), "")
    assert run(facts["topology"]) == []
    server = facts["namespaces"]["server"]
    assert (server["hostname"], server["files"]) == ("server.example", ["hosts", "resolv.conf"])
    assert facts["namespaces"]["client"]["hostname"] is None


def test_a_file_of_others_is_refused_or_taken_over() -> None:
    (ETC / "server").mkdir(parents=True)
    (ETC / "server/resolv.conf").write_text("nameserver 192.0.2.99\n")
    (ETC / "server/issue").write_text("hello\n")
    told = "namespaces.server.resolv_conf: /etc/netns/server/resolv.conf exists already and is not this lab's"
    assert told in refused(machines())
    # What the document does not speak of stays.
    run(machines(resolv_conf=None))
    assert (ETC / "server/resolv.conf").read_text() == "nameserver 192.0.2.99\n"
    run(machines(), adopt=True)
    assert text("resolv.conf") == RESOLV_CONF
    run({"name": "routed"}, absent=True)
    assert sorted(os.listdir(ETC / "server")) == ["issue"]


@pytest.mark.parametrize("how", ["document", "none", "module"])
def test_what_a_namespace_leaves_that_was_removed_by_hand(how: str) -> None:
    run(machines())
    if how == "module":
        netns("server", state="absent")
        assert not UTS.exists()
        assert not ETC.exists()
        return
    ip("netns", "del", "server")
    if how == "document":
        run(machines())
        assert (hostname("server"), text("hosts")) == ("server.example", HOSTS)
    run({"name": "routed"}, absent=True)
    assert not UTS.exists()
    assert not ETC.exists()


@pytest.mark.parametrize("way", ["create", "change", "remove"])
def test_every_failing_call_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    document = machines()
    if way != "create":
        run(document)
        document = machines(hostname="new", hosts_file=True) if way == "change" else routed()
    before = {path: path.read_text() for path in ETC.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        assert fail_each_call(patch, document) >= 3
    run(routed() if way == "create" else machines())
    if way != "create":
        assert {path: path.read_text() for path in ETC.rglob("*") if path.is_file()} == before
        assert hostname("server") == "server.example"


@pytest.mark.parametrize("count", range(1, 40, 3))
def test_kill_at_any_step_then_one_run_converges(count: int) -> None:
    fresh = host_without_lab_traces()
    kill_at(count, machines())
    run(machines())
    assert run(machines()) == []
    assert (hostname("server"), text("resolv.conf"), text("hosts")) == ("server.example", RESOLV_CONF, HOSTS)
    kill_at(count, {**machines(), "namespaces": {}, "links": []})
    run({"name": "routed"}, absent=True)
    assert not ETC.exists()
    assert not differences(fresh, host_without_lab_traces())


@pytest.mark.parametrize("what", ["symlink", "of another user", "for all to write"])
def test_nobody_directs_what_is_written(tmp_path: Path, what: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ETC.mkdir()
    if what == "symlink":
        (ETC / "server").symlink_to(elsewhere)
    else:
        (ETC / "server").mkdir()
        if what == "of another user":
            os.chown(ETC / "server", 65534, 65534)
        else:
            (ETC / "server").chmod(0o777)
    for check in (True, False):
        with pytest.raises(Refused, match=r"cannot use /etc/netns/server: .*it has to be root's own folder"):
            run(machines(), check=check)
    with pytest.raises(NslabError, match="cannot use /etc/netns/server"):
        _node.write("server", "hosts", NodeSetting("routed", HOSTS))
    assert list(elsewhere.iterdir()) == []
