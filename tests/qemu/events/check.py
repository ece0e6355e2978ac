# SPDX-License-Identifier: MIT
"""The VMs end in any order."""

VERDICTS = (r"[events] events: all ok", r"[real_mode] real_mode: ")


def check(session) -> list[str]:
    return [f"nobody says {verdict}" for verdict in VERDICTS if not any(
        line.startswith(verdict) and line.endswith(" ok") for line in session.lines)]
