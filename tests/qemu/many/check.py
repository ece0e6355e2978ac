# SPDX-License-Identifier: MIT
"""VMs of 16 MB that idle with a timer: 64, in Bochs fewer, as there each costs seconds."""

import re

_VMS = {"svm": 64, "vmx": 16, "kvm": 64}
# How long each stays, in ticks of its TSC: longer than it takes to build them all. QEMU's has 1 GHz with --icount, Bochs'
# 50 MHz.
_STAYS = {"svm": 200_000_000, "vmx": 100_000_000, "kvm": 20_000_000_000}
_WAKES = 20
_MOST_BESIDE = 256  # KiB beside a VM's RAM; its nested page tables, which may come on top, are in the figure

_STARTS = re.compile(r"^\[cairn\] vm: (\w+) starts: 1 vCPUs, 16 MiB, (\d+) KiB beside")
_ENDED = re.compile(r"^\[cairn\] vm: (\w+) ended: debug exit with code 0")
_DONE = re.compile(r"^\[(\w+)\] idle: done after (\d+) wake-ups")


def prepare(folder, case) -> None:
    stays = _STAYS[case.machine]
    vms = (f'[[vm]]\nname = "{name}"\nmemory = "16M"\nboot = "pvh"\nkernel = "idle"\ndebug_exit = true\n'
           f'cmdline = "ticks={stays} period={stays // _WAKES}"\n' for name in _names(case.machine))
    (folder / case.config).write_text("\n".join(vms))


def check(session) -> list[str]:
    names = _names(session.case.machine)
    problems = []
    there, most = set(), 0
    done: dict[str, int] = {}
    for line in session.lines:
        if match := _STARTS.match(line):
            there.add(match[1])
            most = max(most, len(there))
            if int(match[2]) > _MOST_BESIDE:
                problems.append(f"{match[1]} takes {match[2]} KiB beside its RAM, more than {_MOST_BESIDE}")
        elif match := _ENDED.match(line):
            there.discard(match[1])
        elif match := _DONE.match(line):
            done[match[1]] = int(match[2])
    if most != len(names):
        problems.append(f"{most} VMs were there at once, not {len(names)}")
    if there:
        problems.append(f"did not end: {' '.join(sorted(there))}")
    # The last one is due when the time is up.
    problems += [f"{name} woke {done.get(name)} times, not {_WAKES - 1}" for name in names if done.get(name) != _WAKES - 1]
    return problems


def _names(machine: str) -> list[str]:
    return [f"vm{number}" for number in range(1, _VMS[machine] + 1)]
