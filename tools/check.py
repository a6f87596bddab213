# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""make test: run the stages in order, stop after the first that fails, and end with the line `N passed, N failed`.

A stage is a function below; its docstring is what `make test stage=help` shows. A pytest run counts its tests, anything
else counts as one check.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from ansibletest import AnsibleTest
from environment import (
    CACHE,
    OLDEST_CONTROLLER,
    ROOT,
    Unavailable,
    Version,
    collection_tree,
    compiling_once,
    dotted,
    need_commands,
    newest_controller,
    pythons,
    say,
    sshd,
    venv,
    wheels,
)

THROWAWAY_HOST = str(ROOT / "tools/throwaway-host.sh")

# The oracles of the tests, and what brings up a throw-away host.
KERNEL_TOOLS = {
    "bridge": "iproute2",
    "flock": "util-linux",
    "ip": "iproute2",
    "ip6tables-legacy-save": "iptables",
    "iptables": "iptables",
    "iptables-legacy-save": "iptables",
    "nft": "nftables",
    "ping": "iputils-ping",
    "sysctl": "procps",
    "unshare": "util-linux",
}

#: How often the tests of the stage trust have tried what.
COUNTS = CACHE / "counts.jsonl"

#: Targets of the stage integration that take about as long as all others.
LONG_TARGETS = {"ns_link", "ns_route", "ns_service", "ns_snat", "topology", "veth"}

#: Tests of tests/kernel that need what kernels of distributions have, and the machine's may lack.
NEEDING_A_VM = ("kinds", "impairments", "rules", "hosts", "documentation")

#: So many lines of so many letters say at the end why a run of ansible-test has failed.
MOST_COMPLAINTS = 5
MOST_LETTERS = 300

# A stage that takes longer hangs.
DEADLINE_SECONDS = 30 * 60


def lint(run: Run) -> None:
    """Style, types, roles and playbooks, changelog fragments, documentation."""
    commands = venv("lint", newest_controller(), ["lint"])
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(collection_tree()),
        "ANSIBLE_HOME": str(CACHE / "ansible"),
        # ansible-lint and antsibull-docs call their companions by name.
        "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]),
    }
    for command in (
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["ansible-lint", "--offline", "--profile", "production"],
        ["antsibull-changelog", "lint"],
        ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "."],
    ):
        run.check(shlex.join(command), [str(commands / command[0]), *command[1:]], environment)


def planner(run: Run) -> None:
    """What needs no kernel: reading documents, and planning."""
    version = oldest_controller()
    run.pytest(f"Python {dotted(version)}", venv(f"test-{dotted(version)}", version, ["test"]), ["tests/unit"])


def engine(run: Run) -> None:
    """The engine against the kernel, with the newest pyroute2."""
    need_commands(KERNEL_TOOLS)
    version = oldest_controller()
    commands = venv(f"test-{dotted(version)}", version, ["test"])
    title = f"Python {dotted(version)}, newest pyroute2"
    run.pytest(title, commands, ["tests/kernel"], on=THROWAWAY_HOST, workers=3)


def trust(run: Run) -> None:
    """The promises, tried in numbers: check = apply, every fault, every kill, thousands of odd documents."""
    need_commands(KERNEL_TOOLS)
    version = oldest_controller()
    commands = venv(f"test-{dotted(version)}", version, ["test"])
    COUNTS.parent.mkdir(parents=True, exist_ok=True)
    COUNTS.write_text("")
    environment = {"NSLAB_COUNTS": str(COUNTS)}
    title = f"Python {dotted(version)}, in numbers"
    # Where a link goes, the kernel waits for a grace period.
    run.pytest(title, commands, ["tests/trust"], environment, on=THROWAWAY_HOST, workers=6)
    for line in COUNTS.read_text().splitlines():
        what, number = json.loads(line)
        run.counts[what] = run.counts.get(what, 0) + number


def oldest(run: Run) -> None:
    """Kernel tests that depend on versions, as an old target has them: the oldest pyroute2, on the oldest Python."""
    need_commands(KERNEL_TOOLS)
    version = oldest_target_python()
    if version != (3, 9):
        run.leave_out("the oldest Python of a target, 3.9", "it is not on this machine")
    title = f"Python {dotted(version)}, oldest pyroute2"
    run.pytest(title, oldest_target(), ["tests/kernel", "-m", "not once"], on=THROWAWAY_HOST, workers=3)


def e2e(run: Run) -> None:
    """Whole playbooks through ansible-playbook: all with the newest ansible-core, one of each kind with the oldest."""
    need_commands({**KERNEL_TOOLS, "ssh": "openssh-client", "sudo": "sudo", "openssl": "openssl"})
    versions = controllers(run)
    for version in versions:
        commands = venv(f"test-{dotted(version)}", version, ["test"])
        chosen = [] if version == versions[-1] else ["-m", "not once"]
        title = f"{ansible_core(commands)}, Python {dotted(version)}"
        target = {}
        if version == OLDEST_CONTROLLER and oldest_target_python() == (3, 9):
            target["NSLAB_TARGET_PYTHON"] = str(oldest_target() / "python")
            title += ", on the target Python 3.9 with the oldest pyroute2"
        environment = {
            **target,
            "NSLAB_ANSIBLE_PLAYBOOK": str(commands / "ansible-playbook"),
            "NSLAB_SSHD": sshd(),
            "NSLAB_WHEELS": str(wheels(commands)),
            "PYTHONPATH": str(compiling_once(CACHE / "sitecustomize")),
        }
        run.pytest(title, commands, ["tests/e2e", *chosen], environment, on=THROWAWAY_HOST)


def sanity(run: Run) -> None:
    """ansible-test sanity, with the newest ansible-core."""
    need_commands({"shellcheck": "shellcheck"})
    test = AnsibleTest(newest_controller())
    test.stage()
    run.check(f"ansible-test sanity, {ansible_core(test.commands)}", *test.command("sanity"), cwd=test.tree)


def units(run: Run) -> None:
    """ansible-test units on the oldest target's Python, if it is there: `planner` has them on a controller's."""
    test = AnsibleTest(newest_controller())
    test.stage()
    version = (3, 9) if (3, 9) in pythons() else test.version
    title = f"ansible-test units, {ansible_core(test.commands)}, Python {dotted(version)}"
    results = f"python{dotted(version)}-*-units.xml"
    run.check(title, *test.command("units", python=version), cwd=test.tree, junit=(test.junit, results))


def integration(run: Run) -> None:
    """ansible-test integration on a throw-away host: all with the newest of everything, examples with the oldest."""
    need_commands(KERNEL_TOOLS)
    targets = integration_targets()
    preparations, tests, copies = [], [], []
    for version in controllers(run):
        old = version == OLDEST_CONTROLLER
        for number, part in enumerate([{"examples"}] if old else [targets - LONG_TARGETS, targets & LONG_TARGETS]):
            test = AnsibleTest(version, f"integration-{dotted(version)}-{number}")
            test.stage(instead="oldest" if old else None)
            copies.append(test)
            title = f"ansible-test integration, {ansible_core(test.commands)}, {'oldest' if old else 'newest'} pyroute2"
            title += f": {', '.join(sorted(part))}"
            # A throw-away host has no network, so what ansible-test installs has to be there before.
            preparations.append(Command(f"Preparation of {title}", *test.prepare_integration(), test.tree))
            command, environment = test.integration(sorted(part))
            tests.append(Command(title, [THROWAWAY_HOST, *command], environment, test.tree))
    if not run.check_together(preparations, counts=False):
        for test in copies:
            test.compile_once()
        run.check_together(tests)


def vm(run: Run) -> None:
    """The scenario smoke on a virtual machine over ssh, and kernel tests on another one: Debian 12 as it is."""
    # In a few minutes; `kernel-vm` has the rest.
    chosen = ["-k", "whole_life or delayed"]
    _on_machines(run, _scenarios(["smoke"]), _kernel_tests(run, ("kinds", "impairments"), chosen))


def molecule(run: Run) -> None:
    """All scenarios on virtual machines."""
    _on_machines(run, _scenarios(run.only or every_scenario()))


def kernel_vm(run: Run) -> None:
    """Kernel tests of what this machine's kernel may lack, and documents with it, on that of Debian 12."""
    _on_machines(run, _kernel_tests(run, (*NEEDING_A_VM, "properties")))


def integration_vm(run: Run) -> None:
    """ansible-test integration on virtual machines of Debian 12, and how much of the collection has run there."""
    need_commands({"ssh-agent": "openssh-client"})
    test = AnsibleTest(newest_controller(), "integration-vm/all")
    test.stage()
    targets = run.only or sorted(integration_targets())
    notes = [AnsibleTest(test.version, f"integration-vm/{target}").coverage for target in targets]
    for folder in (*notes, test.coverage):
        shutil.rmtree(folder, ignore_errors=True)
    _on_machines(run, _integration_tests(test, targets))
    for folder in filter(Path.is_dir, notes):
        shutil.copytree(folder, test.coverage, dirs_exist_ok=True)
    command, environment = test.coverage_report()
    run.check("What of the collection has run", command, environment, cwd=test.tree, counts=False)


def integration_targets() -> set[str]:
    """The targets that are tests; the others help them."""
    targets = {path.name for path in (ROOT / "tests/integration/targets").iterdir() if (path / "tasks").is_dir()}
    return {name for name in targets if not name.startswith("setup_")}


class OnMachines(NamedTuple):
    """A command that starts virtual machines, and the one that ends them, whatever has become of it."""

    test: Command
    end: Command
    #: What is left then.
    folder: Path | None = None


def _scenarios(names: Sequence[str]) -> list[OnMachines]:
    commands = venv("molecule", newest_controller(), ["molecule"])
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(collection_tree()),
        # Whatever Ansible and molecule keep, and their folders for what is temporary.
        "ANSIBLE_HOME": str(CACHE / "ansible"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(CACHE / "ansible/cp"),
        "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]),
    }
    program = [str(commands / "molecule"), "--base-config", "extensions/molecule/base.yml"]
    found = []
    for name in names:
        folder = CACHE / "molecule" / name
        own = {**environment, "MOLECULE_EPHEMERAL_DIRECTORY": str(folder)}
        test = Command(f"scenario {name}", [*program, "test", "-s", name], own, ROOT)
        end = Command(f"end of scenario {name}", [*program, "destroy", "-s", name], own, ROOT)
        found.append(OnMachines(test, end, folder))
    return found


def _kernel_tests(run: Run, parts: Sequence[str], chosen: Sequence[str] = ()) -> list[OnMachines]:
    name = "kernel"
    tests = [f"tests/kernel/test_{part}.py" for part in parts]
    script = [sys.executable, str(ROOT / "tests/vm/kernel.py"), name, "--numprocesses=2"]
    test = Command(
        f"pytest {shlex.join(tests)}, on Debian 12", [*script, *tests, *chosen, *run.pytest_arguments], {}, ROOT
    )
    end = [sys.executable, str(ROOT / "tests/vm/machine.py"), "down", name]
    return [OnMachines(test, Command("the end of its machine", end, {}, ROOT))]


def _integration_tests(test: AnsibleTest, targets: Sequence[str]) -> list[OnMachines]:
    found = []
    title = f"ansible-test integration, {ansible_core(test.commands)}, on Debian 12"
    for target in targets:
        script = [sys.executable, str(ROOT / "tests/vm/integration.py"), target]
        end = [sys.executable, str(ROOT / "tests/vm/machine.py"), "down", f"integration-{target.replace('_', '-')}"]
        found.append(
            OnMachines(
                Command(f"{title}: {target}", script, {}, ROOT), Command("the end of its machine", end, {}, ROOT)
            )
        )
    return found


def _on_machines(run: Run, *together: Sequence[OnMachines]) -> None:
    """As many at a time as there are processors: an emulated machine keeps one busy."""
    whole = [one for several in together for one in several]
    tests = failed = [one.test for one in whole]
    try:
        if len(tests) == 1:
            failed = [] if run.check(*tests[0]) else tests
        else:
            titles = ", ".join(test.title for test in tests)
            say(f"\nAs many at a time as there are processors, each shown when it is done: {titles}")
            failed = run.check_together(tests, at_once=os.cpu_count() or 1)
    finally:
        # Also when all of it is stopped by Ctrl-C.
        for one in whole:
            # A scenario that has passed has ended its machines.
            if one.test in failed or one.folder is None:
                run.check(*one.end, counts=False)
            if one.folder:
                shutil.rmtree(one.folder, ignore_errors=True)


def every_scenario() -> Sequence[str]:
    return sorted(path.parent.name for path in (ROOT / "extensions/molecule").glob("*/molecule.yml"))


STAGES: dict[str, Callable[[Run], None]] = {
    stage.__name__: stage for stage in (lint, planner, engine, trust, oldest, e2e, sanity, units, integration, vm)
}

#: The stages that run only when they are named.
NAMED_ONLY: dict[str, Callable[[Run], None]] = {
    "molecule": molecule,
    "kernel-vm": kernel_vm,
    "integration-vm": integration_vm,
}

#: The stages that work on throw-away hosts.
ON_THROWAWAY_HOSTS = {engine, trust, oldest, e2e, integration}

# A throw-away host is made in a few milliseconds.
STUCK_SECONDS = 60


@functools.cache
def broken_kernel() -> str:
    """Why no throw-away host can be had from this kernel; empty if that is not so.

    A kernel that has hit a bug with its mount lock held answers no mount any more and lets nobody kill who waits for
    one, or kills who asks. A host that is refused for any other reason is for the stage to complain of.
    """
    process = subprocess.Popen([THROWAWAY_HOST, "true"], stdin=subprocess.DEVNULL)
    try:
        killed = process.wait(STUCK_SECONDS) < 0
    except subprocess.TimeoutExpired:
        what = f"has not returned for {STUCK_SECONDS} s"
    else:
        if not killed:
            return ""
        what = "was killed by the kernel"
    return (
        f"THE KERNEL OF THIS MACHINE IS BROKEN: 'unshare --net --mount' {what}. "
        "Nothing of this stage was tested; restart the machine (dmesg tells why) and run it again"
    )


def oldest_controller() -> Version:
    """The Python with the oldest ansible-core that this machine can run."""
    return min((version for version in pythons() if version >= OLDEST_CONTROLLER), default=newest_controller())


def oldest_target_python() -> Version:
    """The oldest Python that a target may have, if this machine has it."""
    return (3, 9) if (3, 9) in pythons() else oldest_controller()


def oldest_target() -> Path:
    """The commands of a target with the oldest of everything."""
    version = oldest_target_python()
    return venv(f"oldest-{dotted(version)}", version, ["test"], instead="oldest")


def controllers(run: Run) -> list[Version]:
    """The Pythons that stand for the oldest and for the newest supported ansible-core."""
    both = [oldest_controller(), newest_controller()]
    if both[0] == both[1]:
        run.leave_out(
            "a second ansible-core", f"Python {dotted(both[0])} is the only one on this machine that can run one"
        )
        return both[:1]
    return both


def ansible_core(commands: Path) -> str:
    answer = subprocess.run([str(commands / "ansible"), "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"core ([\d.]+)", answer.stdout)
    return f"ansible-core {match.group(1)}" if match else "ansible-core"


class Command(NamedTuple):
    """A command with more variables in its environment, and what it is called."""

    title: str
    command: list[str]
    environment: dict[str, str]
    cwd: Path


class Run:
    """Runs the commands of the stages and keeps count."""

    def __init__(self, pytest_arguments: list[str], only: Sequence[str] = ()) -> None:
        self.pytest_arguments = pytest_arguments
        #: The scenarios that `molecule` runs, or the targets of `integration-vm`; without one, all of them.
        self.only = only
        self.passed = self.failed = self.skipped = 0
        #: What has failed, and what it has said about it, to be read at the end of hours of output.
        self.failures: list[str] = []
        #: How often something was tried, by what it is.
        self.counts: dict[str, int] = {}

    def pytest(
        self,
        title: str,
        commands: Path,
        paths: list[str],
        environment: dict[str, str] | None = None,
        on: str | None = None,
        workers: int = 2,
    ) -> bool:
        """Run test folders, `on` a throw-away host: what a test forgets to isolate cannot reach the machine either.

        There are as many ``workers`` for each processor: most tests wait for the kernel.
        """
        results = CACHE / "junit" / f"{re.sub('[^a-z0-9.]+', '-', title.lower())}.xml"
        processes = f"--numprocesses={workers * (os.cpu_count() or 1)}"
        pytest = [str(commands / "python"), "-m", "pytest", processes, f"--junit-xml={results}"]
        return self.check(
            f"pytest {shlex.join(paths)}, {title}",
            [*([on] if on else []), *pytest, *paths, *self.pytest_arguments],
            {"ANSIBLE_COLLECTIONS_PATH": str(collection_tree()), **(environment or {})},
            junit=(results.parent, results.name),
        )

    def check(
        self,
        title: str,
        command: list[str],
        environment: dict[str, str] | None = None,
        cwd: Path = ROOT,
        junit: tuple[Path, str] | None = None,
        counts: bool = True,
    ) -> bool:
        """Run a command with more variables in its environment; count its JUnit results, or else the command itself."""
        say(f"\n--- {title}")
        for file in junit[0].glob(junit[1]) if junit else ():
            file.unlink()
        started = time.monotonic()
        try:
            code = subprocess.run(
                command, cwd=cwd, env={**os.environ, **(environment or {})}, timeout=DEADLINE_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            say(f"Stopped: this took longer than {DEADLINE_SECONDS // 60} minutes.")
            code = -1
        counted = self._count(*junit) if junit else 0
        if counts and not junit and code == 0:
            self.passed += 1
        # A command that fails without a failed test (a collection error, no tests at all, a crash) is a failure too.
        if code and not counted:
            self.fail(title)
        outcome = f"FAILED with exit status {code}" if code else "ok"
        say(f"--- {outcome}, {elapsed(started)}")
        return code == 0

    def check_together(
        self, commands: Sequence[Command], counts: bool = True, at_once: int | None = None
    ) -> list[Command]:
        """Run commands at the same time, all or so many, and show what each one has said when it is done.

        Returns those that have failed.
        """
        workers = at_once or len(commands)
        with concurrent.futures.ThreadPoolExecutor(workers) as pool, tempfile.TemporaryDirectory() as folder:
            outputs = [Path(folder) / str(number) for number in range(len(commands))]
            running = {pool.submit(_into, path, command): (path, command) for path, command in zip(outputs, commands)}
            started = time.monotonic()
            failed = []
            for done in concurrent.futures.as_completed(running):
                path, command = running[done]
                say(f"\n--- {command.title}")
                with path.open(errors="replace") as output:
                    shutil.copyfileobj(output, sys.stdout)
                code = done.result()
                say(f"--- {f'FAILED with exit status {code}' if code else 'ok'}, {elapsed(started)}")
                self.passed += counts and code == 0
                if code:
                    self.fail(command.title, *_complaints(path))
                    failed.append(command)
        return failed

    def fail(self, *words: str) -> None:
        """Count a failure, which reads so at the end."""
        self.failed += 1
        self.failures += words

    def leave_out(self, what: str, why: str) -> None:
        say(f"\n--- left out: {what}: {why}")

    def _count(self, folder: Path, pattern: str) -> int:
        """Add up JUnit files; return how many failures they hold."""
        failures = 0
        for file in folder.glob(pattern):
            for suite in ElementTree.parse(file).iter("testsuite"):
                total, failed, errors, skipped = (
                    int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")
                )
                failures += failed + errors
                self.skipped += skipped
                self.passed += total - failed - errors - skipped
                for case in suite.iter("testcase"):
                    for bad in (*case.iter("failure"), *case.iter("error")):
                        name = f"{case.get('classname')}::{case.get('name')}"
                        self.failures.append(_shortened(f"{name}: {bad.get('message', '')}"))
        self.failed += failures
        return failures


def _into(output: Path, command: Command) -> int:
    """Run a command with its output in a file. Returns its exit status."""
    with output.open("wb") as file:
        try:
            return subprocess.run(
                command.command,
                cwd=command.cwd,
                env={**os.environ, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=DEADLINE_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            file.write(f"Stopped: this took longer than {DEADLINE_SECONDS // 60} minutes.\n".encode())
            return -1


def _complaints(output: Path) -> list[str]:
    """The tasks that have failed in an output of Ansible, and the errors; the last ones, as those end it."""
    task, found = "", []
    for line in output.read_text(errors="replace").splitlines():
        if line.startswith("TASK ["):
            task = line.rstrip("* ")
        elif line.startswith(("fatal: ", "failed: ", "[ERROR]", "ERROR: ")):
            found.append(f"  {_shortened(f'{task} {line}')}")
    return found[-MOST_COMPLAINTS:]


def _shortened(line: str) -> str:
    line = " ".join(line.split())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]} ..."


def elapsed(since: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - since), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"{', '.join(STAGES)}; without one, all of them")
    parser.add_argument(
        "--pytest", default="", metavar="ARGUMENTS", help="more arguments for the stages that run pytest"
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="NAMES",
        help="the scenarios of the stage molecule, or the targets of integration-vm",
    )
    arguments = parser.parse_args()
    stages = {**STAGES, **NAMED_ONLY}
    if unknown := [name for name in arguments.stages if name not in stages]:
        say("The stages:" if unknown == ["help"] else f"There is no stage {', '.join(unknown)}. The stages:")
        for name, stage in stages.items():
            only = " (only when it is named)" if name in NAMED_ONLY else ""
            say(f"  {name:14} {(stage.__doc__ or '').splitlines()[0]}{only}")
        return 0 if unknown == ["help"] else 2
    only = arguments.only.split()
    there = {"molecule": every_scenario, "integration-vm": integration_targets}
    for name in arguments.stages:
        names = there[name]() if name in there else only
        if missing := sorted({*only} - {*names}):
            say(f"There is no {', '.join(missing)} for the stage {name}; there are {', '.join(sorted(names))}")
            return 2

    # Python compiles each file once, even where it was told not to keep the result: hundreds of processes want it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    run = Run(shlex.split(arguments.pytest), only)
    names = arguments.stages or list(STAGES)
    summary = []
    started = time.monotonic()
    for position, name in enumerate(names):
        before, since = (run.passed, run.failed, run.skipped), time.monotonic()
        width = shutil.get_terminal_size().columns
        say(f"\n{f'=== {name}: {stages[name].__doc__} '.ljust(min(width, 120), '=')}")
        stage = stages[name]
        try:
            broken = broken_kernel() if stage in ON_THROWAWAY_HOSTS else ""
            if broken:
                run.leave_out(name, broken)
                summary.append(f"{name:14} LEFT OUT: the kernel of this machine is broken")
                continue
            stage(run)
        except Unavailable as error:
            say(str(error))
            run.fail(str(error))
        passed, failed, skipped = (now - then for now, then in zip((run.passed, run.failed, run.skipped), before))
        summary.append(f"{name:14} {passed:5} passed {failed:3} failed {skipped:3} skipped   {elapsed(since)}")
        if failed:
            summary += [f"{later:14} not run" for later in names[position + 1 :]]
            break
    say("\n=== summary\n" + "\n".join(summary) + f"\nin {elapsed(started)}\n")
    if run.counts:
        say("\n".join(f"{number:7,} {what}" for what, number in run.counts.items()) + "\n")
    if run.failures:
        say("\n".join(["what has failed:", *run.failures]) + "\n")
    say(f"{run.passed} passed, {run.failed} failed")
    return 1 if run.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
