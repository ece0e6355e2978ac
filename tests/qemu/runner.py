# SPDX-License-Identifier: MIT
"""Runs the boot tests: each case on svm and vmx, and on kvm where the host's KVM nests."""

import concurrent.futures
import re
import shutil
import socket
import tempfile
import time
import traceback
from pathlib import Path

import case as cases
from case import Case

from cairn import build, config, packages, paths, stopping
from cairn import run as runs
from cairn.console import Outcome, Relay, Transcript, Watcher
from cairn.errors import Failure
from cairn.machine import Hardware, Machine, nesting_kvm
from cairn.report import Report, Result
from cairn.shell import lock, say

# No guest makes the hypervisor say these; any run in which they come has failed.
_NEVER = (r"^\[cairn\] panic: ", r"^\[cairn\] .*assertion", r"runtime error:")
_SHOWN_LINES = 40


class Session(Watcher):
    """A run under test, as check.py sees it: `lines` said so far, `monitor()` for the machine's own view, `hardware` that
    was asked for, `files` as prepare() left them."""

    def __init__(self, case: Case, hooks, hardware: Hardware, files: Path, transcript: Transcript, monitor: Path | None):
        self.case = case
        self.hardware = hardware
        self.files = files
        self.problems: list[str] = []
        self.relay: Relay | None = None
        self._transcript = transcript
        self._monitor = monitor
        self._hooks = hooks
        self._inputs = list(case.input)
        self._typed_at = 0
        self._finished = False
        self._stopped = hardware.stopped

    @property
    def lines(self) -> list[str]:
        return self._transcript.lines

    def monitor(self, command: str) -> str:
        """The answer of QEMU's monitor to COMMAND."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._monitor))
            _until_prompt(connection)
            connection.sendall(command.encode() + b"\n")
            return _until_prompt(connection).split("\n", 1)[-1]

    def on_lines(self, lines: list[str]) -> bool:
        if hasattr(self._hooks, "during"):
            self.problems += self._hooks.during(self, lines)
        return self._finished or bool(self.case.until) and any(re.search(self.case.until, line) for line in lines)

    def finish(self) -> None:
        """For check.py: the run has shown what it had to; the machine is unplugged."""
        self._finished = True

    def on_idle(self) -> None:
        """Types the next input once what it waits for stands behind the place of the last one."""
        if self._stopped:
            self._begin()
        if not self._inputs:
            return
        said = "\n".join([*self.lines, self._transcript.unfinished()])
        match = re.compile(self._inputs[0]["after"], re.MULTILINE).search(said, self._typed_at)
        if match:
            self._typed_at = match.end()
            self.relay.type(self._inputs.pop(0)["send"].encode())

    def _begin(self) -> None:
        """begin() of check.py, then the machine runs."""
        try:
            self.monitor("info status")
        except (FileNotFoundError, ConnectionRefusedError):
            return  # it does not listen yet
        self._stopped = False
        self._hooks.begin(self)
        self.monitor("cont")

    def unwanted(self, lines: list[str]) -> list[str]:
        """What must not be said, in LINES of this run, or of another one that check.py observed."""
        problems = []
        for pattern in (*_NEVER, *self.case.forbid):
            problems += [f"must not be said: {line}" for line in lines if re.search(pattern, line)][:3]
        return problems

    def judge(self, outcome: Outcome) -> list[str]:
        """What is wrong with the run, when it is over."""
        problems = list(self.problems)
        if outcome.status != self.case.status:
            problems.append(f"status {outcome.status}, not {self.case.status}" + (f": {outcome.reason}" if outcome.reason else ""))
        position = 0
        for wanted in self.case.expect:
            found = next((i for i in range(position, len(self.lines)) if re.search(wanted, self.lines[i])), None)
            if found is None:
                problems.append(f"expected, and not said after line {position}: {wanted}")
                break
            position = found + 1
        problems += self.unwanted(self.lines)
        if self._inputs:
            problems.append(f"never came, so nothing was typed after it: {self._inputs[0]['after']}")
        if hasattr(self._hooks, "check"):
            problems += self._hooks.check(self)
        return problems


def _until_prompt(connection: socket.socket) -> str:
    data = b""
    while not data.endswith(b"(qemu) "):
        piece = connection.recv(65536)
        if not piece:
            break
        data += piece
    return data.decode(errors="replace").replace("\r", "").removesuffix("(qemu) ")


def run(pattern: str, report: Report) -> None:
    """Runs the cases whose title holds PATTERN."""
    machines = ("svm", "vmx", *(("kvm",) if nesting_kvm() else ()))
    chosen = [case for case in cases.load_all(machines) if pattern in case.title]
    if not chosen:
        return
    packages.ensure("qemu", "uefi", "bochs", "iso", "usb", "pxe")
    build.hypervisor()
    build.config_tool()
    wanted = []
    for case in chosen:
        reason = case.skip or ("" if pattern or not case.long else f"takes minutes: ./cairn test qemu {case.name}")
        if reason:
            report.add(Result("SKIP", case.title, reason))
        else:
            wanted.append(case)
    say(f"{len(wanted)} boot tests; transcripts are kept in {paths.shown(paths.BUILD / 'test')}")
    # The long ones first, so that none is left alone at the end.
    wanted.sort(key=lambda case: -case.timeout)
    with lock(paths.BUILD / ".boot-tests.lock"), stopping.pool() as pool:
        for done in concurrent.futures.as_completed([pool.submit(_run, case) for case in wanted]):
            report.add(done.result())


def _run(case: Case) -> Result:
    work = paths.BUILD / "test" / case.title.replace("/", "-").replace(" ", "-").replace("[", "").replace("]", "")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    began = time.monotonic()
    try:
        problems = _attend(case, work)
    except Failure as failure:
        problems = str(failure).splitlines()
    except Exception:  # of a check.py: the other cases go on
        problems = traceback.format_exc().splitlines()
    seconds = f"{time.monotonic() - began:.1f} s"
    for name in ("bundle.tar", "cairn.iso", "cairn.usb", "OVMF_VARS.fd"):
        (work / name).unlink(missing_ok=True)
    shutil.rmtree(work / "tftp", ignore_errors=True)
    if not problems:
        return Result("PASS", case.title, seconds)
    transcript = work / "transcript"
    tail = transcript.read_text().splitlines()[-_SHOWN_LINES:] if transcript.exists() else []
    return Result("FAIL", case.title, seconds, "\n".join([*problems, f"the end of {paths.shown(transcript)}:", *("  " + line for line in tail)]))


def _attend(case: Case, work: Path) -> list[str]:
    hooks = case.hooks()
    config_path = _config_path(case, hooks, work)
    hardware = runs.prepare(case.hardware(config_path.parent))
    cfg = config.load(config_path)
    with tempfile.TemporaryDirectory(prefix="cairn-") as short:  # a socket's path has few characters
        monitor = Path(short) / "monitor" if case.machine != "vmx" else None
        machine: Machine = runs.start(hardware, cfg, work, monitor, case.words)
        transcript = Transcript(work / "transcript")
        session = Session(case, hooks, hardware, config_path.parent, transcript, monitor)
        session.relay = Relay(machine, transcript, session, headless=hardware.headless)
        outcome = session.relay.run(case.timeout)
        return session.judge(outcome)


def _config_path(case: Case, hooks, work: Path) -> Path:
    """A case whose files have to be made first gets a folder for them, with the config in it: its own, or one made too."""
    original = (case.folder / case.config).resolve()
    if not hasattr(hooks, "prepare"):
        return original
    folder = work / "files"
    folder.mkdir()
    hooks.prepare(folder, case)
    made = folder / case.config
    return made if made.exists() else Path(shutil.copy(original, folder))
