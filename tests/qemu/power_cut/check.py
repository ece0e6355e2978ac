# SPDX-License-Identifier: MIT
"""Disks with a log of what was written and what was flushed, and VMs whose acknowledged records have to be in it."""

import random
import re

import disk_images
from disk_images import MIB
from linux_vm import vm

from cairn import config, run

_KINDS = ("nvme", "ahci", "virtio")
_ROUNDS = {"power_cut/thrice": 3, "power_cut/often": 20}
_SIZE, _PARTITION, _RECORD = 16 * MIB, 8 * MIB, 4096
_ROUND_LIMIT = 180  # seconds

_cut = None  # the line with which the power fails


def prepare(folder, case) -> None:
    _new_disks(folder, _KINDS[0])
    (folder / case.config).write_text("\n".join(
        vm(kind, "records", disks=(f'source = "gpt:{kind}"\nmode = "rw"',), memory="64M") for kind in _KINDS))


def _new_disks(folder, cut_at: str) -> None:
    """Empty disks; the power fails when the VM CUT_AT has written some records."""
    global _cut
    for kind in _KINDS:
        disk_images.write(folder / f"{kind}.img", _SIZE, [(kind, _PARTITION)])
        (folder / f"{kind}.img.log").write_bytes(b"")
    _cut = re.compile(rf"^\[{cut_at}\] test: records: {random.randint(5, 40)}$")


def during(session, lines) -> list[str]:
    if any(_cut.search(line) for line in lines):
        session.finish()
    return []


def check(session) -> list[str]:
    problems = _lost(session.files, session.lines)
    for number in range(1, _ROUNDS[session.case.name]):
        _new_disks(session.files, _KINDS[number % len(_KINDS)])
        outcome, lines = run.observe(session.hardware, config.load(session.files / session.case.config), _ROUND_LIMIT, _cut)
        problems += _lost(session.files, lines)
        if outcome.status != 0:
            problems += [f"a later round: status {outcome.status}: {outcome.reason}", *lines[-20:]]
    return problems


def _lost(folder, lines) -> list[str]:
    """Records that a guest was told to be on its disk, and that are not."""
    problems = []
    for kind in _KINDS:
        numbers = [int(match[1]) for line in lines if (match := re.match(rf"\[{kind}\] test: records: (\d+)$", line))]
        disk, kept = disk_images.after_power_cut(_SIZE, folder / f"{kind}.img.log")
        lost = [number for number in numbers if not _has(disk, number)]
        if lost:
            problems.append(f"{kind}: of {len(numbers)} records, {len(lost)} are lost, the first {lost[0]}; {kept} writes are on the disk")
    return problems


def _has(disk: bytes, number: int) -> bool:
    at = MIB + number * _RECORD
    return disk[at:at + _RECORD] == b"record %-4088d\n" % number
