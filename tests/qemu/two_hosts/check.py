# SPDX-License-Identifier: MIT
"""The other host: it plugs its end of the cable in while the first one runs."""

import concurrent.futures
import dataclasses

from cairn import config
from cairn import run as runs
from cairn.machine import Nic

_other: list[concurrent.futures.Future] = []
_pool = concurrent.futures.ThreadPoolExecutor(1)


def during(session, _lines) -> list[str]:
    if not _other:
        nic = session.hardware.nics[0]
        hardware = dataclasses.replace(session.hardware, nics=(Nic("e1000e", cable=nic.cable.replace("listen", "connect")),))
        cfg = config.load(session.case.folder / "there.toml")
        _other.append(_pool.submit(runs.observe, hardware, cfg, session.case.timeout))
    return []


def check(session) -> list[str]:
    if not _other:
        return ["the first host said nothing, the other one was not started"]
    outcome, lines = _other[0].result()
    problems = session.unwanted(lines)
    if outcome.status != 0:
        problems += [f"the other host ended with status {outcome.status}: {outcome.reason}", *lines[-20:]]
    return problems
