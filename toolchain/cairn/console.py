# SPDX-License-Identifier: MIT
"""The serial line of a running machine: shows it, keeps it, knows from it how the run ends, and types into it."""

import contextlib
import dataclasses
import os
import re
import selectors
import sys
import termios
import time
import tty
from pathlib import Path

from cairn.errors import FAILED, OK, TIMEOUT
from cairn.machine import Machine

UNPLUG = 0x1d  # Ctrl-]

# The hypervisor's last line: all VMs ended well, or not. Headless lines name their source, so that no guest can forge
# them; at a terminal it may stand behind a guest's prompt.
_POWER_OFF = {True: re.compile(r"^\[cairn\] power off: (ok|failed)$"), False: re.compile(r"power off: (ok|failed)$")}
_PANIC = {True: re.compile(r"^\[cairn\] panic: "), False: re.compile(r"\bpanic: ")}
_POWER_OFF_GRACE = 20.0   # seconds for the machine to be really off after it said so
_PANIC_GRACE = 5.0        # seconds for registers and backtrace after the panic's first line


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: an exit status of ./cairn and, unless all is well, why."""

    status: int
    reason: str = ""


class Transcript:
    """All lines that the serial line said, without colours and carriage returns, as they come."""

    _CONTROL = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()].|[=>78c])|[\r\x00-\x08\x0b-\x1a]")

    def __init__(self, file: Path):
        self.lines: list[str] = []
        self._file = file.open("w")
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Takes bytes; returns the lines that they completed."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = [self.plain(line) for line in whole]
        for line in lines:
            self._file.write(line + "\n")
        self._file.flush()
        self.lines += lines
        return lines

    @classmethod
    def plain(cls, line: bytes) -> str:
        """LINE without what a terminal does not show."""
        return cls._CONTROL.sub("", line.decode(errors="replace"))

    def unfinished(self) -> str:
        """The line that has no end yet: a prompt."""
        return self.plain(self._rest)

    def close(self) -> None:
        if self._rest:
            self.feed(b"\n")
        self._file.close()


@contextlib.contextmanager
def raw_terminal(descriptor: int):
    """Passes every key on as it is; puts the terminal back whatever happens."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Watcher:
    """Looks at what a machine says while it runs. The boot tests' own ways are a subclass."""

    def on_lines(self, lines: list[str]) -> bool:
        """Called with complete lines; True ends the run as it was wished to end."""
        return False

    def on_idle(self) -> None:
        """Called after each piece of output and at least twice a second."""


class Relay:
    """Carries bytes between MACHINE, a screen and a keyboard (file descriptors or none) until the run ends."""

    def __init__(self, machine: Machine, transcript: Transcript, watcher: Watcher | None = None,
                 screen: int | None = None, keyboard: int | None = None, headless: bool = True):
        self._machine = machine
        self._transcript = transcript
        self._watcher = watcher or Watcher()
        self._screen = screen
        self._keyboard = keyboard
        self._power_off, self._panicked = _POWER_OFF[headless], _PANIC[headless]
        self._said: str | None = None       # what the power off line said
        self._ending: float | None = None   # when to stop waiting after the last line or a panic
        self._panic = ""

    def run(self, timeout: float | None) -> Outcome:
        """Until the emulator ends, the machine says that it failed, the user unplugs it, or TIMEOUT seconds are over."""
        deadline = time.monotonic() + timeout if timeout else None
        try:
            return self._loop(deadline)
        finally:
            self._machine.kill()
            self._show(self._machine.leftover())
            self._transcript.close()

    def _loop(self, deadline: float | None) -> Outcome:
        with selectors.DefaultSelector() as selector:
            selector.register(self._machine.console_out, selectors.EVENT_READ)
            if self._keyboard is not None:
                selector.register(self._keyboard, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                if deadline and now >= deadline:
                    return Outcome(TIMEOUT, "the time is up")
                if self._ending and now >= self._ending:
                    return self._verdict(off=False)
                for key, _ in selector.select(0.5):
                    if key.fd == self._keyboard:
                        if not self._from_keyboard(selector):
                            return Outcome(FAILED, "unplugged by Ctrl-]")
                    else:
                        ended = self._from_machine()
                        if ended is not None:
                            return ended
                self._watcher.on_idle()
                if self._machine.wait(0):
                    return self._last_words()

    def _from_machine(self) -> Outcome | None:
        try:
            data = os.read(self._machine.console_out, 65536)
        except OSError:  # a pseudo-terminal whose other end is closed
            data = b""
        if not data:
            return self._verdict(off=self._machine.wait(_POWER_OFF_GRACE))
        return self._show(self._machine.filter(data))

    def _show(self, data: bytes) -> Outcome | None:
        if self._screen is not None:
            _write_all(self._screen, data)
        lines = self._transcript.feed(data)
        for line in lines:
            if match := self._power_off.search(line):
                self._said = match[1]
                self._ending = time.monotonic() + _POWER_OFF_GRACE
            elif self._panicked.search(line) and not self._panic:
                self._panic = line
                self._ending = time.monotonic() + _PANIC_GRACE
        return Outcome(OK) if self._watcher.on_lines(lines) else None

    def _last_words(self) -> Outcome:
        """Reads what is left in the pipe of an emulator that has ended."""
        os.set_blocking(self._machine.console_out, False)
        while True:
            try:
                data = os.read(self._machine.console_out, 65536)
            except OSError:
                data = b""
            if not data:
                return self._verdict(off=True)
            ended = self._show(self._machine.filter(data))
            if ended is not None:
                return ended

    def _verdict(self, off: bool) -> Outcome:
        if self._panic:
            return Outcome(FAILED, f"the hypervisor panicked: {self._panic.split('panic: ', 1)[1]}")
        if self._said is None:
            return Outcome(FAILED, self._machine.death() if off else "the console ended, the machine did not")
        if not off:
            return Outcome(FAILED, "the hypervisor said that it powers off, and the machine is still on")
        return Outcome(OK) if self._said == "ok" else Outcome(FAILED, "a VM ended badly")

    def _from_keyboard(self, selector: selectors.BaseSelector) -> bool:
        keys = os.read(self._keyboard, 1024)
        if not keys:
            selector.unregister(self._keyboard)
        self.type(keys)
        return UNPLUG not in keys

    def type(self, keys: bytes) -> None:
        with contextlib.suppress(OSError):  # the emulator has just ended
            _write_all(self._machine.console_in, keys)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data):]


def at_terminal(machine: Machine, transcript: Transcript, timeout: float | None) -> Outcome:
    """The user's terminal becomes the machine's."""
    if sys.stdin.isatty():
        print("cairn: Ctrl-A ? shows the console's keys, Ctrl-] pulls the machine's plug", file=sys.stderr)
    with raw_terminal(sys.stdin.fileno()):
        return Relay(machine, transcript, screen=sys.stdout.fileno(), keyboard=sys.stdin.fileno(), headless=False).run(timeout)


def on_stdout(machine: Machine, transcript: Transcript, timeout: float | None) -> Outcome:
    return Relay(machine, transcript, screen=sys.stdout.fileno()).run(timeout)
