# SPDX-License-Identifier: MIT
"""The two VMs say their lines in any order."""


def check(session) -> list[str]:
    said = any(line.startswith("[neighbour] smp: 2 CPUs run, 100 IPIs answered") for line in session.lines)
    return [] if said else ["the neighbour did not finish"]
