# SPDX-License-Identifier: MIT
"""The command line of ./cairn."""

import argparse
import signal
import sys
from pathlib import Path

from cairn import build, machine, packages, pcap, run, stopping
from cairn.errors import OK, ConfigError, Failure, usage
from cairn.machine import Disk, Hardware, Nic
from cairn.shell import say


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise usage(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="./cairn", description="Cairn, a bare-metal hypervisor: build it, boot it, test it.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")

    commands.add_parser("setup", help="install the Debian packages that are missing")
    one = commands.add_parser("build", help="build the hypervisor, the guest image and the host tests")
    one.add_argument("--preset", choices=build.PRESETS, help="build one CMake preset only")
    _run_options(commands.add_parser("run", help="boot a machine with the VMs of CONFIG, or with the demo"))

    one = commands.add_parser("test", help="run the tests")
    one.add_argument("group", nargs="?", default="all", metavar="host|qemu|all", help="which tests (all)")
    one.add_argument("filter", nargs="?", default="", metavar="FILTER", help="only tests whose name holds this text")

    commands.add_parser("bench", help="measure what the hypervisor costs, beside its budgets and its peers")

    one = commands.add_parser("image", help="write something to boot a real machine from")
    one.add_argument("kind", choices=("iso", "usb", "pxe"))
    one.add_argument("out", type=Path, metavar="OUT", help="the file to write; for pxe a folder")
    one.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="the VMs (default: the demo)")

    one = commands.add_parser("pcap", help="make a pcap file of what the monitor's `net capture` showed")
    one.add_argument("log", type=Path, metavar="LOG", help="what the console said")
    one.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    return parser


def _run_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", nargs="?", type=Path, metavar="CONFIG.toml", help="the VMs (default: the demo)")
    add("--machine", choices=machine.MACHINES, help="svm: QEMU/TCG with AMD-V; vmx: Bochs with VT-x; kvm: QEMU on nested KVM "
        "(default: kvm where the host's KVM nests, else svm)")
    add("--boot", choices=machine.BOOTS, help="how the machine gets the hypervisor (default: direct where it can, else iso)")
    add("--firmware", choices=machine.FIRMWARES, default="bios", help="(default: bios)")
    add("--cpus", type=_positive, metavar="N", help="CPUs of the machine (default: 2, with --icount 1)")
    add("--memory", default="1G", metavar="SIZE", help="its memory, as 512M or 2G (default: 1G)")
    add("--disk", action="append", default=[], metavar="[nvme:|ahci:|virtio:]FILE", help="a physical disk, repeatable (default kind: nvme)")
    add("--nic", action="append", default=[], metavar="[virtio|e1000|e1000e][,hostfwd=...|,listen=...|,connect=...|,hub=N]",
        help="a physical NIC (default kind: virtio): to the outside, with a cable to another machine's, or to this one's on the same hub")
    add("--headless", action="store_true", help="no terminal: the serial line goes to stdout, stdin is not read")
    add("--timeout", type=_positive, metavar="SECONDS", help="give up after that, with exit status 124")
    add("--icount", action="store_true", help="deterministic: one instruction is one nanosecond of virtual time (svm only)")
    add("--gdb", action="store_true", help="wait for GDB, and print the command that attaches")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _hardware(arguments: argparse.Namespace) -> Hardware:
    return Hardware(machine=arguments.machine or run.default_machine(), boot=arguments.boot, firmware=arguments.firmware,
                    cpus=arguments.cpus, memory=machine.parse_size(arguments.memory),
                    disks=tuple(map(Disk.parse, arguments.disk)), nics=tuple(map(Nic.parse, arguments.nic)),
                    headless=arguments.headless, icount=arguments.icount, gdb=arguments.gdb)


def _test(arguments: argparse.Namespace) -> int:
    from cairn import tests
    group, pattern = arguments.group, arguments.filter
    if group not in tests.GROUPS:
        if pattern:
            raise usage(f"test {group}: allowed: {' '.join(tests.GROUPS)}")
        group, pattern = "all", group
    return tests.command(group, pattern)


def _bench() -> int:
    from cairn import bench
    return bench.command()


def _dispatch(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "setup":
            packages.ensure(*packages.ALL)
        case "build" if arguments.preset:
            build.preset(arguments.preset)
        case "build":
            build.everything()
        case "run":
            return run.command(_hardware(arguments), arguments.config, arguments.timeout)
        case "test":
            return _test(arguments)
        case "bench":
            return _bench()
        case "image":
            run.image(arguments.kind, arguments.out, arguments.config)
        case "pcap":
            pcap.command(arguments.log, arguments.out)
    return OK


def main(words: list[str]) -> int:
    stopping.install()
    try:
        return _dispatch(_parser().parse_args(words))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.status
    except Failure as failure:
        say(str(failure))
        return failure.status
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
