# SPDX-License-Identifier: MIT
"""Running other programs, and telling the user what goes on (always on stderr: stdout belongs to the serial line)."""

import contextlib
import fcntl
import subprocess
import sys
from pathlib import Path

from cairn.errors import Failure


def say(message: str) -> None:
    print(f"cairn: {message}", file=sys.stderr, flush=True)


def run(command: list, **options) -> str:
    """Runs COMMAND silently and returns what it prints; when it fails, all that it printed is the message."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False, errors="replace", **options)
    except FileNotFoundError as error:
        raise Failure(f"{words[0]} is not installed") from error
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)} failed:\n{done.stdout.strip()}")
    return done.stdout


@contextlib.contextmanager
def lock(path: Path):
    """Keeps two ./cairn apart that would write the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another ./cairn that holds {path.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
