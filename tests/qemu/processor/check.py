# SPDX-License-Identifier: MIT
"""The VMs end in any order."""

PAYLOADS = ("processor", "protection", "fpu")


def check(session) -> list[str]:
    return [f"{name} does not say that its checks are ok" for name in PAYLOADS
            if not any(line.startswith(f"[{name}] {name}: ") and line.endswith(" checks ok") for line in session.lines)]
