# SPDX-License-Identifier: MIT
"""Two VMs run at the same time: the other one's verdict, wherever it stands."""

import re


def check(session) -> list[str]:
    said = any(re.match(r"\[apic\] local apic: \d+ checks ok", line) for line in session.lines)
    return [] if said else ["no verdict on the local APIC"]
