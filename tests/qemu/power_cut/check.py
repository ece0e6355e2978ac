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


class _Cut:
    """Used as a pattern: matches the line with which each VM has written as many records as were drawn for it."""

    def __init__(self):
        self.drawn = {kind: random.randint(3, 20) for kind in _KINDS}
        self._left = dict(self.drawn)

    def search(self, line: str) -> bool:
        if match := re.match(r"\[(\w+)\] test: records: \d+$", line):
            self._left[match[1]] -= 1
        return all(left <= 0 for left in self._left.values())


_cut = _Cut()


def prepare(folder, case) -> None:
    _new_disks(folder)
    (folder / case.config).write_text("\n".join(
        vm(kind, "records", disks=(f'source = "gpt:{kind}"\nmode = "rw"',), memory="64M") for kind in _KINDS))


def _new_disks(folder) -> None:
    for kind in _KINDS:
        disk_images.write(folder / f"{kind}.img", _SIZE, [(kind, _PARTITION)])
        (folder / f"{kind}.img.log").write_bytes(b"")


def during(session, lines) -> list[str]:
    if any(_cut.search(line) for line in lines):
        session.finish()
    return []


def _told(cut: _Cut, problems: list[str]) -> list[str]:
    """With what is needed to see them again."""
    return [f"cut after records {cut.drawn}:", *problems] if problems else []


def check(session) -> list[str]:
    problems = _told(_cut, _lost(session.files, session.lines))
    for _ in range(_ROUNDS[session.case.name] - 1):
        _new_disks(session.files)
        cut = _Cut()
        outcome, lines = run.observe(session.hardware, config.load(session.files / session.case.config), _ROUND_LIMIT, cut)
        problems += _told(cut, [*session.unwanted(lines), *_lost(session.files, lines)])
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
