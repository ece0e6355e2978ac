# SPDX-License-Identifier: MIT
"""From a config and an idea of a machine to the outcome of a run."""

import re
import shutil
import tempfile
from pathlib import Path

from cairn import build, config, console, images, machine_bochs, machine_qemu, media, packages, paths
from cairn.console import Outcome, Relay, Transcript, Watcher
from cairn.errors import OK, usage
from cairn.machine import Hardware, Machine, nesting_kvm
from cairn.media import Payload
from cairn.shell import say


def default_machine() -> str:
    return "kvm" if nesting_kvm() else "svm"


def _emulator(hardware: Hardware):
    return machine_bochs if hardware.machine == "vmx" else machine_qemu


def prepare(hardware: Hardware) -> Hardware:
    """Settles what the options leave open, refuses what cannot be, installs what the machine needs."""
    hardware = hardware.complete()
    emulator = _emulator(hardware)
    emulator.check(hardware)
    media_needs = [] if hardware.boot == "direct" else [hardware.boot]
    packages.ensure(*emulator.needs(hardware), *media_needs)
    return hardware


def words(hardware: Hardware, more: tuple[str, ...] = ()) -> str:
    """The hypervisor's command line."""
    mode = ["headless"] if hardware.headless else []
    own = machine_bochs.words(hardware) if hardware.machine == "vmx" else []
    return " ".join([*mode, *own, *more])


def start(hardware: Hardware, cfg: config.Config, work: Path, monitor: Path | None = None,
          more_words: tuple[str, ...] = ()) -> Machine:
    """Makes the medium in WORK and starts the machine that boots from it."""
    line = words(hardware, more_words)
    payload = Payload(cfg, line)
    match hardware.boot:
        case "direct":
            medium = work / "bundle.tar"
            media.bundle(cfg, medium)
        case "iso":
            medium = work / "cairn.iso"
            images.iso(payload, medium)
        case "usb":
            medium = work / "cairn.usb"
            images.usb(payload, medium)
        case _:
            medium = work / "tftp"
            images.pxe(payload, medium)
    if hardware.machine == "vmx":
        return machine_bochs.start(hardware, medium, work)
    return machine_qemu.start(hardware, medium, line, work, monitor)


def work_folder() -> Path:
    """A new folder for one run."""
    paths.BUILD.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="run-", dir=paths.BUILD))


def command(hardware: Hardware, config_path: Path | None, timeout: float | None) -> int:
    """`./cairn run`."""
    hardware = prepare(hardware)
    cfg = config.load(config_path) if config_path else config.demo(hardware.headless)
    if cfg.memory > hardware.memory:
        raise usage(f"--memory {hardware.memory >> 20}M: the VMs of {paths.shown(cfg.path)} take {cfg.memory >> 20}M")
    build.hypervisor()
    work = work_folder()
    try:
        attend = console.on_stdout if hardware.headless else console.at_terminal
        outcome = attend(start(hardware, cfg, work), Transcript(work / "transcript"), timeout)
        if outcome.status != OK:
            say(outcome.reason)
            _keep_logs(work)
        return outcome.status
    finally:
        shutil.rmtree(work, ignore_errors=True)


def observe(hardware: Hardware, cfg: config.Config, timeout: float,
            until: re.Pattern | None = None) -> tuple[Outcome, list[str]]:
    """Runs without showing anything; the transcript's lines. One with UNTIL is a good end."""
    work = work_folder()
    try:
        return watch(start(prepare(hardware), cfg, work), work, timeout, until)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def watch(machine: Machine, work: Path, timeout: float, until: re.Pattern | None = None) -> tuple[Outcome, list[str]]:
    """As observe(), for a machine that was started already; a line with UNTIL is a good end."""
    transcript = Transcript(work / "transcript")
    outcome = Relay(machine, transcript, _Until(until)).run(timeout)
    return outcome, transcript.lines


class _Until(Watcher):
    def __init__(self, pattern: re.Pattern | None):
        self._pattern = pattern

    def on_lines(self, lines: list[str]) -> bool:
        return self._pattern is not None and any(self._pattern.search(line) for line in lines)


def _keep_logs(work: Path) -> None:
    """What a failed run leaves behind to look at."""
    kept = paths.BUILD / "last-run"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for name in ("transcript", "command", "emulator.err", "bochs.log", "com1", "resets"):
        if (work / name).exists():
            shutil.copyfile(work / name, kept / name)
    say(f"its transcript and the emulator's logs are in {paths.shown(kept)}")


def image(kind: str, out: Path, config_path: Path | None) -> None:
    """`./cairn image`."""
    packages.ensure(kind)
    cfg = config.load(config_path) if config_path else config.demo(headless=False)
    build.hypervisor()
    payload = Payload(cfg, patient=True)
    if kind != "pxe" and out.is_dir():
        raise usage(f"{paths.shown(out)} is a folder; allowed: a file to write")
    {"iso": images.iso, "usb": images.usb, "pxe": images.pxe}[kind](payload, out.absolute())
    say(f"{paths.shown(out)} is written; docs/boot-media.md says how a machine boots from it")
