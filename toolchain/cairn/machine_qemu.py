# SPDX-License-Identifier: MIT
"""QEMU: svm (TCG, whose processor has AMD-V) and kvm (what the host's KVM nests)."""

import shutil
import socket
from pathlib import Path

from cairn import paths
from cairn.errors import usage
from cairn.machine import Hardware, Machine, Nic, nesting_kvm
from cairn.shell import say

_OVMF = Path("/usr/share/OVMF")
_PROCESSORS = {
    # One emulating thread: with one a CPU, TCG 7.2 now and then loses an outer machine that runs guests.
    "svm": ["-accel", "tcg,thread=single", "-cpu", "EPYC,+svm,+npt"],
    "kvm": ["-accel", "kvm", "-cpu", "host"],
}
# Nothing of the outside gets in.
_DETERMINISTIC = ["-rtc", "base=2026-01-01T00:00:00,clock=vm", "-seed", "1"]
_NIC_DEVICES = {"virtio": "virtio-net-pci,disable-legacy=on", "e1000": "e1000", "e1000e": "e1000e"}


def check(hardware: Hardware) -> None:
    if hardware.machine == "kvm":
        if not nesting_kvm():
            raise usage("--machine kvm: this host's KVM is absent, not permitted or does not nest; allowed: svm vmx")
        if hardware.icount:
            raise usage("--icount: only svm counts instructions")
    if hardware.icount and hardware.cpus != 1:
        raise usage(f"--icount: counts the instructions of one CPU; allowed: --cpus 1, not {hardware.cpus}")
    if hardware.firmware == "uefi" and hardware.boot == "direct":
        raise usage("--boot direct: QEMU's own loader needs --firmware bios; allowed with uefi: iso usb pxe")


def needs(hardware: Hardware) -> list[str]:
    return ["qemu", *(["uefi"] if hardware.firmware == "uefi" else []), *(["gdb"] if hardware.gdb else [])]


def start(hardware: Hardware, medium: "Path", words: str, work: Path, monitor: Path | None = None) -> Machine:
    """MEDIUM is what hardware.boot says: an image, a TFTP folder, or for `direct` the bundle."""
    command = ["qemu-system-x86_64", "-M", "q35", *_PROCESSORS[hardware.machine], "-smp", hardware.cpus,
               "-m", f"{hardware.memory >> 20}M", "-nodefaults", "-no-user-config", "-vga", "std", "-display", "none",
               "-no-reboot", "-d", "cpu_reset", "-D", work / "resets",
               "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    if hardware.icount or hardware.instruction_ns:
        shift = max(hardware.instruction_ns, 1).bit_length() - 1
        command += ["-icount", f"shift={shift},sleep=off,align=off", *_DETERMINISTIC]
    command += _firmware(hardware, work)
    command += _boot(hardware, medium, words)
    command += _disks(hardware)
    command += _nics(hardware, medium)
    if hardware.gdb or hardware.stopped:
        command += ["-S"]
    if hardware.gdb:
        command += _gdb()
    if monitor:
        command += ["-monitor", f"unix:{monitor},server=on,wait=off"]
    return QemuMachine(command, work)


def start_bare(kernel: Path, words: str, memory: str, more: list, work: Path) -> Machine:
    """A Linux kernel on svm's hardware, instructions counted, without Cairn: to compare with. MORE: options of QEMU."""
    command = ["qemu-system-x86_64", "-M", "q35", *_PROCESSORS["svm"], "-smp", 1, "-m", memory, "-nodefaults", "-no-user-config",
               "-display", "none", "-no-reboot", "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
               *_DETERMINISTIC, "-kernel", kernel, "-append", words, *more]
    return QemuMachine(command, work)


def virtio_disk(file: Path) -> list:
    """Options of a machine for start_bare()."""
    return ["-drive", f"if=none,id=disk,format=raw,readonly=on,file={file}", "-device", "virtio-blk-pci,disable-legacy=on,drive=disk"]


class QemuMachine(Machine):
    def death(self) -> str:
        log = self.work / "resets"
        if self.process.returncode == 0:
            # Power-on is in the log as well.
            if log.exists() and "Triple fault" in log.read_text(errors="replace"):
                return "the machine reset itself by a triple fault"
            return "the machine was reset or powered off without a word"
        return super().death()


def _firmware(hardware: Hardware, work: Path) -> list:
    if hardware.firmware == "bios":
        return []
    variables = work / "OVMF_VARS.fd"
    shutil.copyfile(_OVMF / "OVMF_VARS_4M.fd", variables)
    return ["-drive", f"if=pflash,format=raw,readonly=on,file={_OVMF / 'OVMF_CODE_4M.fd'}",
            "-drive", f"if=pflash,format=raw,file={variables}"]


def _boot(hardware: Hardware, medium: Path, words: str) -> list:
    match hardware.boot:
        case "direct":
            return ["-kernel", paths.HYPERVISOR, "-append", words, "-initrd", medium]
        case "iso":
            return ["-drive", f"if=none,id=medium,format=raw,readonly=on,file={medium}",
                    "-device", "ide-cd,drive=medium,bootindex=0"]
        case "usb":
            return ["-drive", f"if=none,id=medium,format=raw,file={medium}", "-device", "qemu-xhci",
                    "-device", "usb-storage,drive=medium,bootindex=0,removable=on"]
    return []


def _disks(hardware: Hardware) -> list:
    words = []
    if any(disk.kind == "ahci" for disk in hardware.disks):
        words += ["-device", "ich9-ahci,id=sata"]
    ports = 0
    controller = ""  # of the last NVMe disk
    for number, disk in enumerate(hardware.disks):
        words += ["-drive", f"if=none,id=disk{number},{disk.drive or f'format=raw,file={disk.file}'}"]
        if disk.port:
            words += ["-device", f"pcie-root-port,id=port{number},chassis={number}"]
        match disk.kind:
            case "nvme":
                controller = f"nvme{number}"
                device = f"nvme,id={controller},serial=disk{number}"
            case "nvme-ns":
                device = f"nvme-ns,bus={controller}"
            case "ahci":
                device = f"ide-hd,bus=sata.{ports},serial=disk{number}"
                ports += 1
            case _:
                device = f"virtio-blk-pci,disable-legacy=on,serial=disk{number}"
        more = [disk.device] if disk.device else []
        more += [f"bus=port{number}"] if disk.port else []
        words += ["-device", ",".join([f"{device},drive=disk{number}", *more])]
    return words


def _nics(hardware: Hardware, medium: Path) -> list:
    """The first NIC, or one that is there for nothing else, boots by PXE."""
    nics = [(_NIC_DEVICES[nic.kind], _network(nic)) for nic in hardware.nics]
    boot = ""
    if hardware.boot == "pxe":
        nics = nics or [(_NIC_DEVICES["e1000e"], "user")]
        file = "cairn.efi" if hardware.firmware == "uefi" else "cairn.pxe"
        boot = f",tftp={medium},bootfile={file}"
    words = []
    for number, (device, network) in enumerate(nics):
        first = number == 0 and boot
        words += ["-netdev", f"{network},id=nic{number}{boot if first else ''}",
                  "-device", f"{device},netdev=nic{number}{',bootindex=0' if first else ''}"]
    return words


def _network(nic: Nic) -> str:
    if nic.cable.startswith("hub="):
        return f"hubport,hubid={nic.cable.removeprefix('hub=')}"
    return f"socket,{nic.cable}" if nic.cable else "user" + "".join(f",hostfwd={rule}" for rule in nic.forwards)


def _gdb() -> list:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    say(f"waiting for GDB: gdb {paths.shown(paths.HYPERVISOR)} -ex 'target remote localhost:{port}'")
    return ["-gdb", f"tcp:127.0.0.1:{port}"]
