# SPDX-License-Identifier: MIT
"""Text of configs for VMs that run our Linux with a role of guest/test/roles."""


def vm(name: str, role: str, words: str = "", disks: tuple[str, ...] = (), nics: tuple[str, ...] = (),
       memory: str = "160M", cpus: int = 1) -> str:
    """A VM whose first disk is the root file system. DISKS and NICS: each the keys of a table, as `source = "..."`."""
    tables = ['[[vm.disk]]\nsource = "module:test.erofs"\n', *(f"[[vm.disk]]\n{keys}\n" for keys in disks),
              *(f"[[vm.nic]]\n{keys}\n" for keys in nics)]
    return "\n".join([f"""[[vm]]
name = "{name}"
cpus = {cpus}
memory = "{memory}"
kernel = "vmlinux"
cmdline = "console=ttyS0 quiet root=/dev/vda ro cairn.role={role} cairn.end=poweroff {words}"
debug_exit = true
""", *tables])


def said(session, name: str, text: str) -> bool:
    """Whether the VM NAME has said a line with TEXT."""
    return any(line.startswith(f"[{name}] ") and text in line for line in session.lines)
