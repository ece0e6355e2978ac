# SPDX-License-Identifier: MIT
"""Two VMs run at the same time: the other one's verdict, wherever it stands."""


def check(session) -> list[str]:
    return [] if "[apic] local apic: all right" in session.lines else ["no verdict on the local APIC"]
