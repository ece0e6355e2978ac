# SPDX-License-Identifier: MIT
"""Both VMs counted for the same time, so their turns are in the ratio of their weights."""

import re
import tomllib

_TOLERANCE = 0.08  # they do not begin and end in the same instant


def check(session) -> list[str]:
    vms = tomllib.loads((session.case.folder / session.case.config).read_text())["vm"]
    weights = {vm["name"]: vm["weight"] for vm in vms}
    turns = {}
    for line in session.lines:
        if match := re.match(r"\[(\w+)\] spin: (\d+) turns", line):
            turns[match[1]] = int(match[2])
    if turns.keys() != weights.keys():
        return [f"turns of {sorted(turns)}, not of {sorted(weights)}"]
    problems = []
    for name, weight in weights.items():
        share, due = turns[name] / sum(turns.values()), weight / sum(weights.values())
        if abs(share - due) > _TOLERANCE:
            problems.append(f"{name} got {share:.1%} of the turns; its weight is worth {due:.1%}")
    return problems
