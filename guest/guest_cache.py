# SPDX-License-Identifier: MIT
"""The cache of built guest parts, and what both recipes need: running commands with a log, and showing progress.

An entry is one file whose name carries the hash of everything that went into it. It is built in a temporary folder and
renamed into place, so a build that is interrupted leaves nothing half done; a lock keeps two builders apart.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


KEPT_VERSIONS = 8  # of each part, the latest built ones


class BuildError(Exception):
    """A build that cannot go on; the message is for the user."""


def cache_dir() -> Path:
    chosen = os.environ.get("CAIRN_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cairn"


def content_key(parts: list[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:20]


def run(command: list[str], **options) -> str:
    """Runs COMMAND and returns what it prints; its own error output is the message when it fails."""
    options.setdefault("env", {**os.environ, "LC_ALL": "C"})
    try:
        return subprocess.run(command, check=True, text=True, capture_output=True, **options).stdout
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{' '.join(command)} failed:\n{error.stderr.strip()}") from error


class Progress:
    """One line that is updated on a terminal; elsewhere a line now and then."""

    def __init__(self, what: str, stream=sys.stderr):
        self.what = what
        self.stream = stream
        self.terminal = stream.isatty()
        self.interval = 0.2 if self.terminal else 30.0
        self.begun = time.monotonic()
        self.shown = 0.0

    def show(self, text: str, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self.shown < self.interval:
            return
        self.shown = now
        line = f"{self.what}: {text} ({int(now - self.begun)} s)"
        self.stream.write(f"\r\033[K{line}" if self.terminal else f"{line}\n")
        self.stream.flush()

    def end(self, text: str) -> None:
        self.show(text, force=True)
        if self.terminal:
            self.stream.write("\n")
            self.stream.flush()


class Log:
    """The output of a build's commands."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def run(self, command: list[str], cwd: Path, env: dict[str, str], on_line=lambda line: None) -> None:
        with self.path.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            try:
                process = subprocess.Popen(command, cwd=cwd, env=env, text=True, errors="replace",
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            except FileNotFoundError as error:
                raise BuildError(f"{command[0]} is not installed") from error
            try:
                for line in process.stdout:
                    log.write(line)
                    on_line(line)
                status = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if status != 0:
            raise self.error(f"{command[0]} ended with status {status}")

    def error(self, message: str) -> BuildError:
        tail = self.path.read_text(errors="replace").splitlines()[-30:]
        return BuildError("\n".join([*tail, message, f"the whole log: {self.path}"]))


@contextlib.contextmanager
def locked(progress: Progress):
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.show("waiting for another build to end", force=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name: str, suffix: str, key: str, make) -> Path:
    """The cache entry NAME-KEY.SUFFIX. If it is missing, MAKE(work, log, progress) has to build it in the folder WORK
    and return the path of the file."""
    entry = cache_dir() / f"{name}-{key}{suffix}"
    if entry.exists():
        return entry
    progress = Progress(name)
    with locked(progress):
        if entry.exists():
            return entry
        # Whoever holds the lock is the only builder, so a folder found here belongs to one that was killed.
        work = cache_dir() / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            made = make(work, Log(cache_dir() / "log" / f"{name}.log"), progress)
            made.chmod(0o444)
            os.replace(made, entry)
            _forget_old(name)
        finally:
            progress.show("removing the temporary files", force=progress.terminal)
            shutil.rmtree(work, ignore_errors=True)
        progress.end(f"built, {entry.stat().st_size / 1e6:.1f} MB")
    return entry


def _forget_old(name: str) -> None:
    entries = sorted(cache_dir().glob(f"{name}-*"), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in entries[KEPT_VERSIONS:]:
        entry.unlink()


def place(entry: Path, target: Path) -> None:
    """Makes TARGET a hard link to ENTRY, or a copy where the file system cannot link."""
    if target.exists() and target.samefile(entry):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        os.link(entry, new)
    except OSError:
        shutil.copyfile(entry, new)
    os.replace(new, target)
