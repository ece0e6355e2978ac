# SPDX-License-Identifier: MIT
"""Of what the guest said through a stream, nothing is lost."""


def check(session) -> list[str]:
    numbers = [int(line) for line in session.lines if line.strip().isdecimal()]
    return [] if numbers == list(range(1, 3001)) else [f"{len(numbers)} numbers came, the last {numbers[-1:]}"]
