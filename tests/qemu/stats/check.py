# SPDX-License-Identifier: MIT
"""What `stats` says of weights, waiting and exits."""

import re
from pathlib import Path

_SECOND = {"svm": 1_000_000_000, "vmx": 50_000_000}  # ticks of the TSC
_OF_SHARE = 0.03
_CPU = 100.0

_SHARE = re.compile(r"^(light|heavy)(/0)? +(\d+\.\d) % +(\d+\.\d) % .* (\d+\.\d+) s +(\d+\.\d+) s$")
_WORK = re.compile(r"^(light|heavy)/0 +(\d+) +(\d+\.\d) us +(\d+\.\d) us +(\d+) +(\d+)$")
_DUE = {"light": 25.0, "heavy": 75.0}


def prepare(folder: Path, case) -> None:
    second = _SECOND.get(case.machine, _SECOND["svm"])
    text = (case.folder / case.config).read_text()
    (folder / case.config).write_text(text.replace("SECOND", str(second)).replace("TENTH", str(second // 10)))


def check(session) -> list[str]:
    problems = []
    shares = {match[1] + (match[2] or ""): match for line in session.lines if (match := _SHARE.match(line))}
    work = {match[1]: match for line in session.lines if (match := _WORK.match(line))}
    for vm, due in _DUE.items():
        # The first `stats` counts from when the VM was built; the second one of `heavy` is the last that is kept.
        first = next((match for line in session.lines if (match := _SHARE.match(line)) and match[1] == vm), None)
        if first is None or vm + "/0" not in shares or vm not in work:
            problems.append(f"stats does not tell of {vm}")
            continue
        if float(first[4]) != due:
            problems.append(f"{vm} is due {first[4]} %, not {due} %")
        if abs(float(first[3]) - due) > _OF_SHARE * due:
            problems.append(f"{vm} got {first[3]} %; due are {due} %")
        ran, waited = float(first[5]), float(first[6])
        if abs(ran / (ran + waited) * _CPU - due) > _OF_SHARE * due:
            problems.append(f"{vm} ran for {ran} s and waited for {waited} s; due are {due} %")
        if int(work[vm][5]) == 0 or int(work[vm][6]) == 0:
            problems.append(f"{vm} has no exits: {work[vm][0]}")
    return problems
