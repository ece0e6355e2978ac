# SPDX-License-Identifier: MIT
"""An HTTP server on the host for guests behind the machine's NICs, and a client of theirs."""

import hashlib
import http.server
import os
import re
import threading
import urllib.request

from linux_vm import vm

_DATA = "".join(f"{os.urandom(32).hex()}\n" for _ in range(1 << 14)).encode()
_TICKS = 8_000_000_000  # that the VMs of `absent` stay, of a TSC with some 2.5 GHz

_ABSENT = [
    r"^\[cairn\] error: net: switch none: there is no nic7; there is nic0 nic1 nic2$",
    *(rf"^\[cairn\] warning: net: switch s{number}: its uplink nic{number} has no link$" for number in range(3)),
    *(rf"^\[cairn\] net: nic{number}: link up" for number in range(3)),
    *(rf"^\[{name}\] idle: done" for name in ("n", "v0", "v1", "v2")),
]

_server = None
_done: set[str] = set()  # names of guests whose data the host has
_threads: list[threading.Thread] = []
_wrong: list[str] = []


def _variant(case) -> str:
    return case.name.partition("/")[2]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/data" or self.path.removeprefix("/done/") in _done
        self.send_response(200 if known else 404)
        body = _DATA if self.path == "/data" else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def prepare(folder, case) -> None:
    (folder / case.config).write_text({"absent": _absent, "iperf": _iperf, "cables": _cabled}.get(_variant(case), lambda: _uplinks(case))())


def _uplinks(case) -> str:
    global _server
    _server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=_server.serve_forever, daemon=True).start()
    names = _names(case)
    switches = "".join(f'[switch.s{number}]\nuplink = "nic{number}"\n' for number in range(len(names)))
    words = f"test.port={_server.server_port}"
    return switches + "\n".join(vm(name, "uplink", f"{words} test.name={name}", nics=(f'switch = "s{number}"',), memory="64M")
                                for number, name in enumerate(names))


def _names(case) -> list[str]:
    """Each guest is called like its switch's NIC."""
    return [nic.partition(",")[0] for nic in case.nics]


def _absent() -> str:
    uplinks = {"none": "nic7", "s0": "nic0", "s1": "nic1", "s2": "nic2"}
    switches = "".join(f'[switch.{name}]\nuplink = "{nic}"\n' for name, nic in uplinks.items())
    return switches + "".join(
        f'[[vm]]\nname = "{name}"\nmemory = "16M"\nboot = "pvh"\nkernel = "idle"\ncmdline = "ticks={_TICKS}"\ndebug_exit = true\n'
        f'[[vm.nic]]\nswitch = "{switch}"\n' for name, switch in zip(("n", "v0", "v1", "v2"), uplinks))


def _iperf() -> str:
    return "[switch.lan]\n" + _pair("", "lan", "lan")


def _cabled() -> str:
    """Of four NICs, the first and the second are joined, and the others."""
    switches = "".join(f'[switch.s{number}]\nuplink = "nic{number}"\n' for number in range(4))
    return switches + _pair("-intel", "s0", "s1") + _pair("-virtio", "s2", "s3")


def _pair(suffix: str, *switches: str) -> str:
    """A server of iperf3 and its client, each on one of the two switches."""
    return "\n".join(
        vm(f"{name}{suffix}", f"iperf-{name}", f"cairn.ip=10.0.0.{own}/24 cairn.peer=10.0.0.{peer}", nics=(f'switch = "{switch}"',))
        for name, own, peer, switch in zip(("server", "client"), (1, 2), (2, 1), switches))


def begin(session) -> None:
    """`absent`: no NIC has a link when the hypervisor finds it; they get one once the last VM runs."""
    _set_links(session, "off")


def during(session, lines) -> list[str]:
    if _variant(session.case) == "absent" and any("vm: v2 starts" in line for line in lines):
        _set_links(session, "on")
    for line in lines:
        if match := re.match(r"\[(\w+)\] test: serve: MD5 (\w+)", line):
            port = int(session.hardware.nics[_names(session.case).index(match[1])].forwards[0].split(":")[2].partition("-")[0])
            _threads.append(threading.Thread(target=_fetch, args=(match[1], port, match[2])))
            _threads[-1].start()
    return []


def _fetch(name: str, port: int, digest: str) -> None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data", timeout=60) as answer:
            got = hashlib.md5(answer.read()).hexdigest()
    except OSError as error:
        got = str(error)
    if got != digest:
        _wrong.append(f"{name} serves {digest}, the host got {got}")
    _done.add(name)


def _set_links(session, state: str) -> None:
    for number in range(len(session.hardware.nics)):
        session.monitor(f"set_link nic{number} {state}")


def _measured(client: str) -> list[str]:
    return [rf"^\[{client}\] test: {text}" for text in (r"iperf: forward .* receiver", r"iperf: --reverse .* receiver",
                                                      r"iperf-client: all \d+ steps ok")]


def check(session) -> list[str]:
    if _server is not None:
        _server.shutdown()
        _server.server_close()
    for thread in _threads:
        thread.join()
    match _variant(session.case):
        case "absent":
            wanted = _ABSENT
        case "iperf":
            wanted = _measured("client")
        case "cables":
            wanted = _measured("client-intel") + _measured("client-virtio")
        case _:
            digest = hashlib.md5(_DATA).hexdigest()
            wanted = [rf"^\[{name}\] test: {text}" for name in _names(session.case)
                      for text in (f"fetch: ok {len(_DATA)} bytes, MD5 {digest}$", "serve: ok")]
    return _wrong + [f"not said: {text}" for text in wanted if not any(re.search(text, line) for line in session.lines)]
