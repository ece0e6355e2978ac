# SPDX-License-Identifier: MIT
"""Tests that need no machine: unit tests, fuzz targets, both compilers, the image, format and lint."""

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest.mock
from pathlib import Path

from cairn import build, media, packages, paths, stopping
from cairn.config import Config
from cairn.errors import USAGE, Failure
from cairn.report import Report, Result, excerpt, verdict
from cairn.shell import run as shell_run
from cairn.shell import say

_SOURCES = ("arch", "boot", "drivers", "guest", "tests", "toolchain", "vmm")
_FUZZ_RUNS = 20000
_TIMEOUT = 600.0
_STAMP_KEPT = 30 * 24 * 3600.0  # seconds since it was last of use


def run(pattern: str, report: Report) -> None:
    packages.ensure("host tests")
    for name, test in [("format", _format), ("build kernel-gcc", lambda: _build("kernel-gcc", ["all"])),
                       ("build kernel-clang", lambda: _build("kernel-clang", ["all", "headers"])),
                       ("image", _image), ("command line", _command_line), ("media", _media), ("pcap", _pcap), ("cache", _cache),
                       ("stopping", _stopping)]:
        if pattern in name:
            report.add(verdict(name, test))
    _programs("host-asan", _unit_programs(), _unit, pattern, report)
    _programs("host-fuzz", _fuzz_programs(), _fuzz, pattern, report)
    if pattern in "lint":
        report.add(verdict("lint", _lint))


def _build(preset: str, targets: list[str]) -> list[str]:
    build.preset(preset, targets)
    return []


def _image() -> list[str]:
    sys.path.insert(0, str(paths.ROOT / "toolchain"))
    import check_image
    build.preset("kernel-gcc")
    build.preset("kernel-clang")
    return [line for preset in ("kernel-gcc", "kernel-clang")
            for line in check_image.problems(str(paths.BUILD / preset / "cairn.elf"))]


def _format() -> list[str]:
    files = [str(path) for folder in _SOURCES for suffix in ("*.cpp", "*.hpp") for path in (paths.ROOT / folder).rglob(suffix)]
    done = subprocess.run(["clang-format", "--dry-run", *files], text=True, capture_output=True, check=False)
    problems = sorted({line.split(":")[0] + ": clang-format would change it" for line in done.stderr.splitlines()
                       if "warning: code should be clang-formatted" in line})
    if done.returncode != 0 and not problems:
        problems = [f"clang-format: status {done.returncode}: {done.stderr.strip()[-500:]}"]
    return problems


def _command_line() -> list[str]:
    """Wrong arguments and configs end with status 2 and one line that says what is allowed."""
    build.config_tool()
    folder = paths.BUILD / "test"
    folder.mkdir(parents=True, exist_ok=True)
    wrong = folder / "wrong.toml"
    wrong.write_text('[host]\nwhen_idel = "poweroff"\n[[vm]]\nname = "a"\nmemory = "64M"\nkernel = "hello"\n')
    absent = folder / "absent.toml"
    absent.write_text('[[vm]]\nname = "a"\nmemory = "64M"\nkernel = "no-such-file"\n')
    problems = []
    for words, said in [(["run", "--cpus", "0"], "number above 0"), (["run", "--machine", "arm"], "svm"),
                        (["run", "--machine", "vmx", "--boot", "usb"], "allowed: iso"),
                        (["run", "--disk", "floppy:x"], "allowed"), (["run", "--memory", "1T"], "512M"),
                        (["run", "--memory", "64M", "tests/qemu/does_not_fit/vm.toml"], "take"), (["run", str(wrong)], "wrong.toml:2"), (["run", str(absent)], "absent.toml:4")]:
        done = subprocess.run([paths.ROOT / "cairn", *words], cwd=paths.ROOT, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 2 or said not in done.stderr or len(done.stderr.splitlines()) != 1:
            problems.append(f"./cairn {' '.join(words)}: status {done.returncode}, not 2 with {said!r}: {done.stderr.strip()}")
    return problems


# By name in a config, what GRUB finds by itself on a stick, and what its script has to name.
_FOUND = ("vmlinuz", "bzImage", "debian/vmlinuz", "debian/initrd.img", "Debian-12/x", "LONGCAPITALS", "Readme.md",
          "aux.img", "a.b.C")
_NAMED = ("images/debian/vmlinuz", "./vmlinuz", "debian//vmlinuz", "../x", "/x", "VMLINUZ", "DISK.img", "disk.IMG", "DEBIAN/x",
          "BzImage", "debian", "vmlinuz/x", "debian-12/y", ".x", "x.", "con")


def _media() -> list[str]:
    """On every medium, each file of a config is found under the name that it has there, or the config is refused."""
    config = Config(Path("media.toml"), dict.fromkeys((*_FOUND, *_NAMED), Path(__file__)), 0)
    places = media.module_places(config)
    wanted = {name: f"/cairn/{name}" for name in _FOUND}
    wanted |= {name: f"/boot/modules/{number}" for number, name in enumerate(_NAMED, len(_FOUND))}
    problems = [f"{name} lies at {places[name]}, not at {place}" for name, place in wanted.items() if places[name] != place]
    return problems + _unfit_media()


def _unfit_media() -> list[str]:
    """What no medium carries is refused in one line, for a bundle and for GRUB."""
    folder = paths.BUILD / "test"
    folder.mkdir(parents=True, exist_ok=True)
    small, large = folder / "small", folder / "large"
    small.touch()
    with large.open("wb") as file:
        file.truncate(1 << 32)  # takes no blocks
    problems = []
    for name, file, said in [("cairn.toml", small, "any other name"), ("./cairn.toml", small, "any other name"),
                             ("large", large, "less than 4 GiB"), ("x" * 101, small, "100 characters"),
                             (f"{'x' * 156}/y", small, "100 characters"), (f"{'x' * 155}/{'y' * 100}", small, None)]:
        config = Config(small, {name: file}, 0)
        for make in (media.module_places, lambda config: media.bundle(config, folder / "bundle.tar")):
            got = _refusal(lambda: make(config))
            if (got is None) != (said is None) or said and (said not in got or "\n" in got):
                problems.append(f"file {name!r}: {got}, not {said!r}")
    large.unlink()
    for character in " \t\n'\"\\$*?[]{}<>()&|;#!^`:\xe4":
        got = _refusal(lambda: media.module_places(Config(small, {f"a{character}b": small}, 0)))
        if got is None or "allowed" not in got:
            problems.append(f"a name with {character!r} gets into GRUB's script")
    return problems


def _refusal(make) -> str | None:
    try:
        make()
    except Failure as failure:
        return str(failure) if failure.status == USAGE else f"status {failure.status}: {failure}"
    return None


# A file header and two packets of 3 and 1 bytes, in lines as the console shows them; one that a VM wrote.
_CAPTURE = (b"[cairn] pcap TTyyoQIABAAAAAAAAAAAAP//AAABAAAA\r\n[web] pcap AAAA\r\ncairn> ne\r\x1b[Kpcap AQAAAAIAAAADAAAAAwAAAGFiYw==\r\n"
            b"a line of something else\r\npcap AQAAAAIAAAABAAAAAQAAAHo=\r\n")
_CAPTURED = b"\x4d\x3c\xb2\xa1\2\0\4\0" + bytes(8) + b"\xff\xff\0\0\1\0\0\0" + b"".join(
    b"\1\0\0\0\2\0\0\0" + bytes([len(data), 0, 0, 0]) * 2 + data for data in (b"abc", b"z"))

# A third packet: a frame that is a capture itself.
_NESTED_DATA = b"\1\0\0\0\2\0\0\0" + bytes([len(_CAPTURED), 0, 0, 0]) * 2 + _CAPTURED
_NESTED = b"pcap " + base64.b64encode(_NESTED_DATA) + b"\n"


def _pcap() -> list[str]:
    """./cairn pcap takes the last capture out of a console's log, whole packets only."""
    folder = paths.BUILD / "test"
    folder.mkdir(parents=True, exist_ok=True)
    log, out = folder / "capture.log", folder / "capture.pcap"
    problems = []
    for text, status, data, said in [(_CAPTURE, 0, _CAPTURED, "2 packets"), (_CAPTURE * 2, 0, _CAPTURED, "2 packets"),
                                     (_CAPTURE + _NESTED, 0, _CAPTURED + _NESTED_DATA, "3 packets"),
                                     (_CAPTURE[:_CAPTURE.rindex(b"pcap")], 0, _CAPTURED[:24 + 19], "1 packets"),
                                     (_CAPTURE + b"pcap AQAAAAIA", 0, _CAPTURED, "cut off"), (b"[web] pcap TTyyoQIABAAAAAAAAAAAAP//AAABAAAA\n", 2, None, "no capture")]:
        log.write_bytes(text)
        out.unlink(missing_ok=True)
        done = subprocess.run([paths.ROOT / "cairn", "pcap", log, out], text=True, capture_output=True, check=False)
        if done.returncode != status or said not in done.stdout + done.stderr:
            problems.append(f"status {done.returncode}, not {status} with {said!r}: {done.stdout}{done.stderr}")
        elif data is not None and out.read_bytes() != data:
            problems.append(f"{out.read_bytes()!r}, not {data!r}")
    return problems


def _cache() -> list[str]:
    """Compilers work where nothing can be kept, and keep it in the same place wherever ./cairn is called; a cache of the
    user's own is left as it is."""
    folder = paths.BUILD / "test"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "a-file"
    file.touch()
    problems = []
    for variables, wanted in [({"CAIRN_CACHE": f"{file}/below"}, {"CCACHE_DISABLE": "1", "CCACHE_DIR": None}),
                              ({"CAIRN_CACHE": os.path.relpath(folder / "kept")}, {"CCACHE_DIR": f"{folder}/kept/ccache", "CCACHE_DISABLE": None}),
                              ({"CCACHE_DIR": "/own"}, {"CCACHE_DIR": "/own", "CCACHE_MAXSIZE": None}),
                              ({"CCACHE_DISABLE": "1"}, {"CCACHE_DISABLE": "1"})]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CCACHE_", "CAIRN_"))}
        with unittest.mock.patch.dict(os.environ, clean | variables, clear=True):
            got = build.compiler_environment()
        problems += [f"{variables}: {name} is {got.get(name)}, not {value}" for name, value in wanted.items() if got.get(name) != value]
    return problems


# Two threads, each with a program that never ends, and a third piece of work that has to wait for one of them.
_NEVER_ENDS = """
import os
from cairn import stopping
def work(_):
    process = stopping.start(["sleep", "600"])
    os.write(1, b"%d\\n" % process.pid)
    process.wait()
stopping.install()
os.cpu_count = lambda: 2
with stopping.pool() as pool:
    list(pool.map(work, range(3)))
"""


def _stopping() -> list[str]:
    """Ctrl-C and SIGTERM end ./cairn at once, with all that it started."""
    problems = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen([sys.executable, "-c", _NEVER_ENDS], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              cwd=paths.ROOT / "toolchain", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as python:
            started = [int(python.stdout.readline()) for _ in range(2)]
            python.send_signal(number)
            try:
                more, said = python.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                python.kill()
                more, said = "", "does not end"
        if python.returncode != 128 + number or more or said:
            problems.append(f"{number.name}: status {python.returncode}, not {128 + number}: {more}{said}")
        for process in started:
            if Path(f"/proc/{process}").exists():
                problems.append(f"{number.name}: left behind: process {process}")
                os.kill(process, signal.SIGKILL)
    return problems


def _unit_programs() -> set[str]:
    """One for each folder with tests, as tests/host/CMakeLists.txt names them."""
    folder = paths.ROOT / "tests" / "host"
    return {"test_" + str(file.parent.relative_to(folder)).replace("/", "_") for file in folder.rglob("*_test.cpp")}


def _fuzz_programs() -> set[str]:
    return {"fuzz_" + file.stem.removesuffix("_fuzz") for file in (paths.ROOT / "tests" / "host" / "fuzz").glob("*_fuzz.cpp")}


def _programs(preset: str, names: set[str], test, pattern: str, report: Report) -> None:
    """Builds those of the programs that are wanted and runs TEST with each."""
    wanted = sorted(name for name in names if pattern in name)
    if not wanted:
        return
    try:
        build.preset(preset, wanted)
    except Failure as failure:
        report.add(Result("FAIL", f"build {preset}", detail=excerpt(str(failure))))
        return
    folder = paths.BUILD / preset / "tests" / "host"
    with stopping.pool() as pool:
        for result in pool.map(lambda name: test(folder / name), wanted):
            report.add(result)


def _execute(command: list) -> tuple[int, str]:
    try:
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              stdin=subprocess.DEVNULL, errors="replace", timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return 1, f"did not end in {_TIMEOUT:.0f} s"
    return done.returncode, done.stdout


def _unit(program: Path) -> Result:
    status, output = _execute([program])
    cases = re.search(r"All tests passed \(.* in (\d+) test cases?\)", output)
    if status != 0 or not cases:
        return Result("FAIL", program.name, detail=excerpt(output))
    return Result("PASS", program.name, f"{cases[1]} cases")


def _fuzz(program: Path) -> Result:
    status, output = _execute([program, f"-runs={_FUZZ_RUNS}", "-seed=1", "-max_len=4096", "-timeout=20",
                               f"-artifact_prefix={program}-"])
    if status != 0:
        return Result("FAIL", program.name, detail=excerpt(output))
    return Result("PASS", program.name, f"{_FUZZ_RUNS} runs")


# --- clang-tidy: a file again only when it, a header of it, its command, the list of checks or the program has changed -----

def _lint() -> list[str]:
    build.preset("host-fuzz")
    commands = {Path(entry["file"]): entry["command"].replace(str(paths.ROOT), "")
                for entry in json.loads((paths.BUILD / "host-fuzz" / "compile_commands.json").read_text())}
    files = [file for file in commands if file.is_relative_to(paths.ROOT) and not file.is_relative_to(paths.BUILD)
             and file.relative_to(paths.ROOT).parts[0] not in ("tests", "toolchain")]
    stamps = packages.kept("lint") or paths.BUILD / "lint"
    stamps.mkdir(exist_ok=True)
    for stamp in stamps.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another ./cairn was faster
            if stamp.stat().st_mtime < time.time() - _STAMP_KEPT:
                stamp.unlink()
    rules = (paths.ROOT / ".clang-tidy").read_text() + shell_run(["clang-tidy", "--version"])
    depends = _dependencies()
    say(f"clang-tidy looks at {len(files)} files")
    with stopping.pool() as pool:
        found = pool.map(lambda file: _tidy(file, depends[file], rules + commands[file], stamps), files)
        return list(dict.fromkeys(line for lines in found for line in lines))


def _dependencies() -> dict[Path, list[Path]]:
    """Source: the files of the project that its object was made from, as Ninja knows."""
    folder = paths.BUILD / "host-fuzz"
    output = subprocess.run(["ninja", "-C", folder, "-t", "deps"], text=True, capture_output=True, check=False).stdout
    depends = {}
    for block in output.split("\n\n"):
        files = [Path(os.path.realpath(folder / line.strip())) for line in block.splitlines()[1:] if line.startswith("    ")]
        own = [file for file in files if file.is_relative_to(paths.ROOT)]
        if own:
            depends[own[0]] = own
    return depends


def _tidy(file: Path, depends: list[Path], how: str, stamps: Path) -> list[str]:
    """HOW: all that the verdict depends on beside the files."""
    stamp = stamps / _digest(how, depends)
    if stamp.exists():
        stamp.touch()
        return []
    done = subprocess.run(["clang-tidy", "--quiet", "-p", paths.BUILD / "host-fuzz", file], text=True, capture_output=True, check=False)
    # A header is named by the view of each layer that includes it.
    problems = [re.sub(r"^.*/views/[^/]*/", "", line) for line in done.stdout.splitlines() if re.search(r": (warning|error): ", line)]
    if done.returncode != 0 and not problems:
        problems = [f"clang-tidy {file}: status {done.returncode}: {done.stderr.strip()[-500:]}"]
    if not problems and stamp.name == _digest(how, depends):  # not changed meanwhile
        stamp.touch()
    return problems


def _digest(how: str, files: list[Path]) -> str:
    digest = hashlib.sha256(how.encode())
    for file in files:
        digest.update(f"\n{file.relative_to(paths.ROOT)} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()
