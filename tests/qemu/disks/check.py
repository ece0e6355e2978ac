# SPDX-License-Identifier: MIT
"""Disks of each kind, and what they hold when the machine is off."""

import hashlib
import os
import re
import threading
from pathlib import Path

import disk_images
from disk_images import MIB
from linux_vm import said, vm

from cairn import config, run

_LOAD = {"a": "nvme", "b": "ahci", "c": "virtio"}
_SIZE = 64 * MIB
_WRITTEN = 2 * MIB  # at either end, by step_writes
_PAGE = 4096
_HIGH = 1 << 32  # QEMU's q35 has 2 GiB of RAM below, and from here on what is beyond
_HIGH_SIZE = 1 << 30  # of it, in `kinds`
_PATIENCE = 30  # seconds
_SECOND_RUN = 120  # seconds

# One behind the other in the VM `kinds`, from vdb on: what it is, and the source's keys.
_KINDS = [
    ("large", 'source = "gpt:large"\nmode = "rw"'),
    ("second", 'source = "disk:nvme0n2"\nmode = "rw"'),
    ("whole", 'source = "disk:ahci0"\nmode = "rw"'),
    ("serial", 'source = "disk:disk3"\nmode = "rw"'),
    ("covered", 'source = "gpt:covered"\nmode = "cow"'),
    ("readable", 'source = "gpt:readable"\nmode = "ro"'),
    ("grows", 'source = "disk:virtio1"\nmode = "rw"'),
]
_GROWN = 12 * MIB
_grown = False
_partitions: dict[str, disk_images.Partition] = {}


def prepare(folder, case) -> None:
    if case.name == "disks/load":
        for name in _LOAD:
            disk_images.write(folder / f"{name}.img", _SIZE, [(f"data-{name}", 24 * MIB)])
        (folder / case.config).write_text(_load_vms("test.load=new test.stay=yes"))
        (folder / "again.toml").write_text(_load_vms("test.load=again"))
        return
    labels = ("large", "covered", "readable")
    made = disk_images.write(folder / "large.img", _SIZE, [(label, 8 * MIB) for label in labels], block=4096)
    _partitions.update(zip(labels, made))
    with (folder / "large.img").open("r+b") as image:
        image.seek(_partitions["readable"].first)
        image.write(b"readable" * (MIB // 8))
    for name in ("second", "whole", "serial", "grows"):
        with (folder / f"{name}.img").open("wb") as image:
            image.truncate(8 * MIB)
    (folder / case.config).write_text(vm("kinds", "kinds", disks=tuple(keys for _, keys in _KINDS)))


def _load_vms(words: str) -> str:
    vms = (vm(name, "load", words, (f'source = "gpt:data-{name}"\nmode = "rw"',), ('switch = "lan"',), cpus=2) for name in _LOAD)
    return "\n".join(['[switch.lan]\nuplink = "nic0"\n', *vms])


def during(session, lines) -> list[str]:
    global _grown
    if not _grown and said(session, "kinds", "test: grows: make it larger"):
        _grown = True
        session.monitor(f"block_resize disk4 {_GROWN}B")
    if session.case.name == "disks/load" and all(said(session, name, "test: load: ok") for name in _LOAD):
        session.finish()
    if any(line.startswith("[kinds] test: large: ok") for line in lines):
        return _look_into_memory(session)
    return []


def _look_into_memory(session) -> list[str]:
    """What the guest has just written to the disk, and read from it, lies in host memory above 4 GiB."""
    written = _partitions["large"].read(session.files / "large.img")[:_WRITTEN]
    missing = {written[at:at + _PAGE] for at in range(0, _WRITTEN, _PAGE)}
    pipe = session.files / "high-memory"
    os.mkfifo(pipe)
    reader = threading.Thread(target=_take_out, args=(pipe, missing), daemon=True)
    reader.start()
    answer = session.monitor(f'pmemsave {_HIGH:#x} {_HIGH_SIZE:#x} "{pipe}"')
    reader.join(_PATIENCE)
    if reader.is_alive():
        return [f"QEMU does not show its memory: {answer}"]
    return [f"{len(missing)} pages of what is on the disk are not in memory above 4 GiB"] if missing else []


def _take_out(memory: Path, pages: set[bytes]) -> None:
    with memory.open("rb", buffering=MIB) as pipe:
        while page := pipe.read(_PAGE):
            pages.discard(page)


def check(session) -> list[str]:
    if session.case.name == "disks/load":
        return _second_run(session)
    return _kinds(session)


def _second_run(session) -> list[str]:
    outcome, lines = run.observe(session.hardware, config.load(session.files / "again.toml"), _SECOND_RUN)
    problems = session.unwanted(lines)
    problems += [f"{name} ({kind}) did not find its data again" for name, kind in _LOAD.items()
                 if not any(line.startswith(f"[{name}] test: load-again: ok") for line in lines)]
    if outcome.status != 0:
        problems += [f"the second run: status {outcome.status}: {outcome.reason}", *lines[-20:]]
    return problems


def _kinds(session) -> list[str]:
    """What the guest wrote is in the images, what it must not write is as it was."""
    contents = {name: (session.files / f"{name}.img").read_bytes() for name in ("second", "whole", "serial", "grows")}
    contents |= {name: where.read(session.files / "large.img") for name, where in _partitions.items()}
    problems = []
    for name, _ in _KINDS:
        data = contents[name]
        holds = {hashlib.md5(part).hexdigest() for part in (data[:_WRITTEN], data[-_WRITTEN:], data)}
        match = next((match for line in session.lines if (match := re.search(rf"test: {name}: ok .* (\w{{32}})$", line))), None)
        if name == "covered":
            if data.strip(b"\0"):
                problems.append("what was written to the overlay is on the disk below")
        elif match is None or match[1] not in holds:
            problems.append(f"{name}: the image does not hold what the guest says: {match and match[0]}")
    if not said(session, "kinds", f"test: grows: ok {_GROWN // 1024} KiB in blocks of 512"):
        problems.append("the guest does not see the disk's new size")
    if not said(session, "kinds", "test: large: ok 8192 KiB in blocks of 4096"):
        problems.append("the guest does not see blocks of 4 KiB")
    return problems
