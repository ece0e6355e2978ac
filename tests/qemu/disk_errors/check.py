# SPDX-License-Identifier: MIT
"""What is said of each wrong disk, and that nobody else minds."""

import re

import disk_images
from disk_images import MIB
from linux_vm import said, vm

# Disk: its partitions' labels, and what has a wrong checksum.
_DISKS = {
    "tables": {"primary": (("healed",), ("primary header",)), "both": (("lost",), ("primary array", "backup header")),
               "backup": (("twice", "sound"), ("backup array",)), "twice": (("twice",), ()), "shared": (("shared",), ())},
    "broken": {name: ((name,), ()) for name in ("hurt", "gone", "well", "pulled")},
}
_SIZE, _PARTITION = 32 * MIB, 8 * MIB

# VM: the source and mode of its disk.
_TABLE_VMS = {"healed": ("gpt:healed", "rw"), "lost": ("gpt:lost", "rw"), "twice": ("gpt:twice", "ro"),
              "sound": ("gpt:sound", "rw"), "first": ("gpt:shared", "rw"), "second": ("disk:virtio1p1", "rw"),
              "whole": ("disk:virtio1", "ro"), "missing": ("disk:nvme7", "ro")}
_SAID = {
    "tables": [
        r"^\[cairn\] warning: block: nvme0: primary header: its checksum is",
        r"^\[cairn\] warning: block: nvme0: its primary partition table is damaged, the backup is used",
        r"^\[cairn\] warning: block: nvme1: primary entry array: its checksum is",
        r"^\[cairn\] warning: block: nvme1: backup header: its checksum is",
        r"^\[cairn\] error: block: nvme1: its partitions cannot be used",
        r"^\[cairn\] warning: block: ahci0: backup entry array: its checksum is",
        r'^\[cairn\] error: block: lost: there is no partition labelled "lost"; there is twice, sound, healed, twice, shared',
        r'^\[cairn\] error: block: twice: the label "twice" is on ahci0p1, virtio0p1',
        r'^\[cairn\] error: block: second: "virtio1p1" is written by VM first',
        r'^\[cairn\] error: block: whole: "virtio1" is written by VM first',
        r'^\[cairn\] error: block: missing: there is no disk "nvme7"; there is ahci0, nvme0, nvme1, virtio0, virtio1',
        *(rf"^\[{name}\] hello from a guest" for name in ("healed", "sound", "first")),
    ],
    "broken": [
        r"^\[hurt\] test: bad-sector: ok",
        r"^\[gone\] test: vanish: ok",
        r"^\[pulled\] test: vanish: ok",
        r"^\[well\] test: load: ok",
        r"^\[cairn\] warning: block: nvme0: read at block 6144 of namespace 1 failed with status type 0x2, code 0x81",
        r"^\[cairn\] warning: block: ahci@\S+ port 0: the disk reports an error",
        r"^\[cairn\] error: block: nvme1: the controller (is not there any more|does not become ready)",
        r"^\[cairn\] error: block: nvme1 is gone: what its disks are asked for fails from now on",
        *(rf"^\[cairn\] vm: {name} ended: powered off" for name in ("hurt", "gone", "well", "pulled")),
    ],
}
# VM: what QEMU's monitor is told to take its disk away. A device leaves its slot when ACPI's registers eject it: of the first
# bus that they know (0xcd0), slot 0 (0xcc8) [QEMU docs/specs/acpi_pci_hotplug].
_TAKEN = {"gone": ("drive_del disk1",), "pulled": ("device_del nvme3", "o /w 0xcd0 0", "o /w 0xcc8 1")}
_taken: set[str] = set()


def _variant(case) -> str:
    return case.name.partition("/")[2]


def prepare(folder, case) -> None:
    for name, (labels, broken) in _DISKS[_variant(case)].items():
        disk_images.write(folder / f"{name}.img", _SIZE, [(label, _PARTITION) for label in labels], broken=broken)
    if _variant(case) == "tables":
        (folder / case.config).write_text("\n".join(_payload(name, *disk) for name, disk in _TABLE_VMS.items()))
        return
    roles = {"hurt": "bad-sector", "gone": "vanish", "well": "load", "pulled": "vanish"}
    (folder / case.config).write_text("\n".join(
        vm(name, role, disks=(f'source = "gpt:{name}"\nmode = "rw"',), cpus=2) for name, role in roles.items()))


def _payload(name: str, source: str, mode: str) -> str:
    return (f'[[vm]]\nname = "{name}"\nmemory = "16M"\nboot = "pvh"\nkernel = "hello"\ndebug_exit = true\n'
            f'[[vm.disk]]\nsource = "{source}"\nmode = "{mode}"\n')


def during(session, _lines) -> list[str]:
    for name, how in _TAKEN.items():
        if name not in _taken and said(session, name, "test: vanish: take it"):
            _taken.add(name)
            for command in how:
                session.monitor(command)
    return []


def check(session) -> list[str]:
    return [f"not said: {wanted}" for wanted in _SAID[_variant(session.case)]
            if not any(re.search(wanted, line) for line in session.lines)]
