# SPDX-License-Identifier: MIT
"""Each VM counted how long it ran in the same windows of the host's time: its share is what its weight and cap say."""

import re
import tomllib

_WINDOW = re.compile(r"\[(\w+)\] spin: window (\d+) ran (\d+) of (\d+)")
_WAKE_UPS = re.compile(r"\[(\w+)\] spin: (\d+) wake-ups, (\d+) ticks late on average, (\d+) at most")
_WEIGHTS = 0.03
_CAPS = 0.02
_LATE = 30_000  # ticks; a slice has 3,000,000


def check(session) -> list[str]:
    vms = tomllib.loads((session.case.folder / session.case.config).read_text())["vm"]
    loose = 1 if session.case.icount or session.case.machine == "vmx" else 3  # a busy computer runs a CPU late
    ran, late = _read(session.lines)
    spinners = {vm["name"]: vm for vm in vms if "sleep=" not in vm["cmdline"]}
    if ran.keys() != spinners.keys():
        return [f"windows of {sorted(ran)}, not of {sorted(spinners)}"]
    common = set.intersection(*(set(windows) for windows in ran.values()))
    if len(common) < 3:
        return [f"only {len(common)} windows in which all ran"]
    problems = []
    shares = _due(list(spinners.values()))
    for name, (due, tolerance) in shares.items():
        ticks = sum(ran[name][window][0] for window in common)
        share = ticks / sum(ran[name][window][1] for window in common)
        if abs(share - due) > tolerance * due * loose:
            problems.append(f"{name} ran for {share:.2%} of the time; due are {due:.2%}")
    for vm in vms:
        if vm["name"] in spinners:
            continue
        if vm["name"] not in late:
            problems.append(f"{vm['name']} does not say how late it woke")
        elif loose == 1 and late[vm["name"]] > _LATE:
            problems.append(f"{vm['name']} woke {late[vm['name']]} ticks late")
    return problems


def _read(lines: list[str]) -> tuple[dict[str, dict[int, tuple[int, int]]], dict[str, int]]:
    ran: dict[str, dict[int, tuple[int, int]]] = {}
    late = {}
    for line in lines:
        if match := _WINDOW.match(line):
            ran.setdefault(match[1], {})[int(match[2])] = (int(match[3]), int(match[4]))
        elif match := _WAKE_UPS.match(line):
            late[match[1]] = int(match[4])
    return ran, late


def _due(vms: list[dict]) -> dict[str, tuple[float, float]]:
    """Shares of a CPU, with the tolerance of each. VMs with the same pin, or none, have one CPU together."""
    due = {}
    for pin in {tuple(vm.get("pin", ())) for vm in vms}:
        group = [vm for vm in vms if tuple(vm.get("pin", ())) == pin]
        capped = [vm for vm in group if vm.get("cap", 0)]
        rest = 1 - sum(vm["cap"] / 100 for vm in capped)
        weights = sum(vm["weight"] for vm in group if vm not in capped)
        for vm in group:
            due[vm["name"]] = (vm["cap"] / 100, _CAPS) if vm in capped else (rest * vm["weight"] / weights, _WEIGHTS)
    return due
