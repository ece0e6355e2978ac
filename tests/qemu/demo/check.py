# SPDX-License-Identifier: MIT
"""Every step of both guests, as they themselves report it."""

_STEPS = {"alpha": ("address", "ping", "tcp", "disk", "peer"),
          "beta": ("address", "ping", "tcp", "container", "memory-limit", "peer")}


def check(session) -> list[str]:
    return [f"{vm} did not report the step {step}" for vm, steps in _STEPS.items() for step in steps
            if not any(line.startswith(f"[{vm}] demo: {step}: ok") for line in session.lines)]
