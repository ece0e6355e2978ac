# SPDX-License-Identifier: MIT
"""What happens when ./cairn is told to stop, by Ctrl-C or SIGTERM: every emulator ends, no other one starts, and the exit
status says which signal it was. Emulators are in sessions of their own, where no terminal's Ctrl-C reaches them."""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import threading

from cairn.errors import Failure

_lock = threading.RLock()  # re-entered by a signal that comes while the main thread holds it
_processes: set[subprocess.Popen] = set()
_told: int | None = None
_main_starts = False


def install() -> None:
    """What a shell let ./cairn ignore stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def start(command: list[str], **options) -> subprocess.Popen:
    """A process in a session of its own that ends, with all that it started, when ./cairn is told to stop."""
    global _main_starts
    in_main = threading.current_thread() is threading.main_thread()
    with _lock:
        if _told is not None:
            raise Failure("told to stop")
        _main_starts = in_main
        try:
            process = subprocess.Popen(command, start_new_session=True, **options)
            _processes.add(process)
        finally:
            _main_starts = False
    if in_main and _told is not None:  # while it started
        _stop(_told)
    return process


def kill(process: subprocess.Popen) -> None:
    """Ends what start() returned, and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with _lock:
        _processes.discard(process)


@contextlib.contextmanager
def pool():
    """Threads for work that waits for other programs. What has not begun is given up when the block ends by an exception."""
    executor = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        yield executor
    except BaseException:
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


def _on_signal(number: int, _frame) -> None:
    global _told
    _told = number
    if not _main_starts:  # else start() does it, so that no process is missed
        _stop(number)


def _stop(number: int) -> None:
    with _lock:
        for process in _processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    sys.exit(128 + number)
