# SPDX-License-Identifier: MIT
"""The role `reboot` restarts for ever: seen twice, it has worked."""


def during(session, _lines) -> list[str]:
    if session.case.name == "linux/reboot" and sum("test: reboot: ok" in line for line in session.lines) == 2:
        session.finish()
    return []
