# SPDX-License-Identifier: MIT
"""The machine that an emulator is asked for, whichever emulator it is, and a running one."""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

from cairn import stopping
from cairn.errors import usage

MACHINES = ("svm", "vmx", "kvm")
BOOTS = ("direct", "iso", "usb", "pxe")
FIRMWARES = ("bios", "uefi")
DISK_KINDS = ("nvme", "ahci", "virtio")
NIC_KINDS = ("virtio", "e1000", "e1000e")


@dataclasses.dataclass(frozen=True)
class Disk:
    """`nvme-ns`, for tests, is one more namespace of the NVMe disk before it. QEMU's options, for tests too: DEVICE adds
    to those of the device, DRIVE stands in place of the file as it is, and one with a PORT can be pulled out of it."""

    kind: str
    file: Path
    device: str = ""
    drive: str = ""
    port: bool = False

    @staticmethod
    def parse(text: str) -> "Disk":
        """[nvme:|ahci:|virtio:]FILE; without a kind: nvme."""
        kind, colon, name = text.partition(":")
        if not colon or kind not in DISK_KINDS:
            kind, name = DISK_KINDS[0], text
        file = Path(name)
        if not file.exists():
            raise usage(f"--disk {text}: no such file (allowed: [{'|'.join(f'{k}:' for k in DISK_KINDS)}]FILE)")
        if "," in name:
            raise usage(f"--disk {text}: the emulators take no file name with a comma")
        return Disk(kind, file.resolve())


@dataclasses.dataclass(frozen=True)
class Nic:
    kind: str
    forwards: tuple[str, ...] = ()
    cable: str = ""  # "listen=ADDR:PORT" or "connect=ADDR:PORT" to a NIC of another emulated machine, "hub=N" to others of this

    @staticmethod
    def parse(text: str) -> "Nic":
        """[virtio|e1000|e1000e][,hostfwd=tcp:[ADDR]:PORT-[ADDR]:PORT]... or [KIND],CABLE; without a kind: virtio."""
        words = text.split(",")
        kind = words.pop(0) if words[0] in NIC_KINDS else NIC_KINDS[0]
        if len(words) == 1 and re.fullmatch(r"(listen|connect)=[0-9.]+:\d+|hub=\d+", words[0]):
            return Nic(kind, cable=words[0])
        for word in words:
            if not re.fullmatch(r"hostfwd=(tcp|udp):[0-9.]*:\d+-[0-9.]*:\d+", word):
                raise usage(f"--nic {text}: {word!r} is not allowed; allowed: [{'|'.join(NIC_KINDS)}]"
                            f"[,hostfwd=tcp:[ADDR]:PORT-[ADDR]:PORT] or [,listen=ADDR:PORT] or [,connect=ADDR:PORT] or [,hub=NUMBER]")
        return Nic(kind, tuple(word.removeprefix("hostfwd=") for word in words))


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What ./cairn run's options say. `complete()` has settled what they leave open."""

    machine: str
    boot: str | None = None
    firmware: str = "bios"
    cpus: int | None = None
    memory: int = 1 << 30
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    headless: bool = False
    icount: bool = False
    instruction_ns: int = 0  # of the machine's time for each instruction, a power of two; 0: the emulator's own pace
    gdb: bool = False
    stopped: bool = False  # until QEMU's monitor is told to go on, for tests

    def complete(self) -> "Hardware":
        boot = self.boot
        if boot is None:
            boot = "direct" if self.machine != "vmx" and self.firmware == "bios" else "iso"
        cpus = self.cpus if self.cpus is not None else 1 if self.icount or self.instruction_ns else 2
        return dataclasses.replace(self, boot=boot, cpus=cpus)

    def allow(self, option: str, allowed: tuple, value, why: str) -> None:
        """Refuses an option's value that this machine does not have."""
        if value not in allowed:
            raise usage(f"--{option} {value}: not with --machine {self.machine}: {why}; allowed: {' '.join(map(str, allowed))}")


def parse_size(text: str) -> int:
    """512M, 2G; bytes as the result, a multiple of a MiB."""
    match = re.fullmatch(r"(\d+)([MG])", text)
    if not match or int(match[1]) == 0:
        raise usage(f"--memory {text}: a size is a number and M or G, as in 512M")
    return int(match[1]) << {"M": 20, "G": 30}[match[2]]


def nesting_kvm() -> bool:
    """Whether this host's KVM runs guests that run guests."""
    for vendor in ("intel", "amd"):
        switch = Path(f"/sys/module/kvm_{vendor}/parameters/nested")
        if switch.exists() and switch.read_text().strip() in ("1", "Y"):
            return os.access("/dev/kvm", os.R_OK | os.W_OK)
    return False


class Machine:
    """An emulator at work. `console_out` is a file descriptor with all that the serial line says, `console_in` leads back."""

    def __init__(self, command: list, work: Path, console_out: int | None = None, console_in: int | None = None):
        """Starts COMMAND; without descriptors, its standard input and output are the console."""
        self.work = work
        self._errors = work / "emulator.err"
        pipes = console_out is None
        (work / "command").write_text(" ".join(map(str, command)) + "\n")
        with self._errors.open("wb") as errors:
            self.process = stopping.start(
                [str(word) for word in command], cwd=work, stderr=errors,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else (work / "emulator.out").open("wb"))
        self.console_out = self.process.stdout.fileno() if pipes else console_out
        self.console_in = self.process.stdin.fileno() if pipes else console_in

    def filter(self, data: bytes) -> bytes:
        """Takes out of the console's bytes what the emulator itself put there; may keep back a line without an end."""
        return data

    def leftover(self) -> bytes:
        """What filter() still keeps back, at the run's end."""
        return b""

    def death(self) -> str:
        """Why the emulator ended, for a message; called after its end."""
        errors = [line for line in self._errors.read_text(errors="replace").splitlines()
                  if "warning: TCG doesn't support" not in line]
        text = f"the emulator ended with status {self.process.returncode}"
        return text + (":\n" + "\n".join(errors[-10:]) if errors else "")

    def wait(self, seconds: float) -> bool:
        """Whether the emulator has ended by itself within SECONDS."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Pulls the plug: ends the emulator and all that it started."""
        stopping.kill(self.process)
