# SPDX-License-Identifier: MIT
"""Bochs: vmx, a processor with VT-x in software. Debian's build has the debugger in it, which a two-line script drives."""

import os
import re
import shutil
import subprocess
import tty
from pathlib import Path

from cairn.errors import usage
from cairn.machine import Hardware, Machine
from cairn.shell import say

_MOST_MEMORY = 2 << 30
_INSTRUCTION_NS = 20  # about what Bochs takes for one

# What Bochs' debugger writes between the console's lines: banner, prompt, the instruction that each CPU stands at.
_NOISE = re.compile(rb"={20,}|\s+(Bochs x86 Emulator|Built from|Compiled on|Timestamp)|0{11}[a-z\d]\[|<bochs:\d+>|Next at t=|"
                    rb"(\(\d+\)\.?\s?)?\[0x[0-9a-f]+\] |\(\d+\)\.\[")


def check(hardware: Hardware) -> None:
    hardware.allow("boot", ("iso",), hardware.boot, "Bochs' BIOS boots from its CD drive")
    hardware.allow("firmware", ("bios",), hardware.firmware, "Bochs has a BIOS of its own")
    if hardware.icount:
        raise usage("--icount: only svm counts instructions")
    if hardware.gdb:
        raise usage("--gdb: Debian's Bochs is built with its own debugger instead of GDB's protocol; allowed: svm kvm")
    if hardware.stopped:
        raise usage("stopped: Bochs has no monitor that lets it go on; allowed: svm kvm")
    if hardware.disks:
        raise usage("--disk: Bochs has ATA disks alone, and Cairn drives none of them; allowed: svm kvm")
    if hardware.memory > _MOST_MEMORY:
        raise usage("--memory: Bochs has at most 2G")
    if hardware.cpus > 8:
        raise usage(f"--cpus {hardware.cpus}: Bochs has at most 8")
    for nic in hardware.nics:
        hardware.allow("nic", ("e1000",), nic.kind, "it is the only NIC that Bochs and Cairn both know")
        if nic.cable:
            raise usage(f"--nic {nic.kind},{nic.cable}: Bochs' NIC leads to the outside alone; allowed: --machine svm kvm")
    if len(hardware.nics) > 1:
        raise usage("--nic: one is all that is offered with --machine vmx")


def needs(_hardware: Hardware) -> list[str]:
    return ["bochs"]


def words(hardware: Hardware) -> list[str]:
    """Words for the hypervisor's command line: here a byte to port 0xe9 costs one instruction, one to COM1 thousands."""
    return ["console=e9"] if hardware.headless else []


def start(hardware: Hardware, medium: Path, work: Path) -> Machine:
    forwards = [rule for nic in hardware.nics for rule in nic.forwards]
    command = ["bochs-bin", "-q", "-f", "bochsrc", "-rc", "commands"]
    # Bochs shows its screen by VNC to whoever asks, on every address: not out of a network namespace.
    if not forwards and shutil.which("unshare") and subprocess.run(["unshare", "-rn", "true"], check=False,
                                                                  capture_output=True).returncode == 0:
        command = ["unshare", "-rn", *command]
    else:
        say("note: Bochs shows the machine's screen by VNC on port 5900 to everyone who can reach this host")
    (work / "commands").write_text("c\nq\n")
    if hardware.headless:
        _write_rc(hardware, medium, work, f"mode=file, dev={work / 'com1'}")
        return BochsMachine(command, work)
    master, slave = os.openpty()
    tty.setraw(slave)
    _write_rc(hardware, medium, work, f"mode=term, dev={os.ttyname(slave)}")
    return BochsMachine(command, work, master, master)


def _write_rc(hardware: Hardware, medium: Path, work: Path, serial: str) -> None:
    ips = 1_000_000_000 // (hardware.instruction_ns or _INSTRUCTION_NS)
    lines = [
        f"cpu: model=broadwell_ult, count={hardware.cpus}, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=1",
        f"megs: {hardware.memory >> 20}",
        "romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot",
        "vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest",
        f"ata0-master: type=cdrom, path={medium}, status=inserted",
        "boot: cdrom",
        f"com1: enabled=1, {serial}",
        'display_library: rfb, options="timeout=0"',
        "clock: sync=none",
        "panic: action=fatal",
        "info: action=ignore",
        "error: action=report",
        f"log: {work / 'bochs.log'}",
        "port_e9_hack: enabled=1",
        "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy",
        "plugin_ctrl: speaker=0, gameport=0, parallel=0",
    ]
    if hardware.nics:
        script = work / "slirp"
        script.write_text("# slirp config\n" + "".join(f"hostfwd={rule}\n" for rule in hardware.nics[0].forwards))
        lines.append(f"e1000: enabled=1, mac=52:54:00:12:34:56, ethmod=slirp, script={script}")
    (work / "bochsrc").write_text("\n".join(lines) + "\n")


class BochsMachine(Machine):
    _rest = b""

    def filter(self, data: bytes) -> bytes:
        if self.process.stdout is None:  # the console is COM1, the debugger's own words go elsewhere
            return data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(line + b"\n" for line in lines if not _NOISE.match(line))

    def leftover(self) -> bytes:
        return b"" if _NOISE.match(self._rest) else self._rest

    def death(self) -> str:
        log = _text(self.work / "bochs.log")
        panics = [line for line in log.splitlines() if ">>PANIC<<" in line]
        if any("3rd" in line for line in panics):
            reason = "the machine shut down by a triple fault"
        elif panics:
            reason = "Bochs gave up: " + panics[-1]
        else:
            reason = super().death()
        # What came before the hypervisor read its command line went to COM1.
        before = _text(self.work / "com1").strip() if self.process.stdout else ""
        return f"{reason}; COM1 said:\n{before}" if before else reason


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""
