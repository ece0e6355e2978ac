#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the assembly source of the symbol table that panics print backtraces with.

usage: symbols.py OUT.S [NM ELF]   (without an ELF: an empty table, for the first of the two links)
"""
import subprocess
import sys

BASE = "image_start"


def functions(nm: str, elf: str) -> list[tuple[int, str]]:
    """(offset from the image's start, demangled name without parameters) of all functions, ascending."""
    lines = subprocess.run([nm, "--demangle", "--defined-only", elf], check=True, capture_output=True, text=True).stdout
    symbols = [line.split(" ", 2) for line in lines.splitlines()]
    base = next(int(address, 16) for address, _, name in symbols if name == BASE)
    found = {}
    for address, kind, name in symbols:
        if kind in "tTwW" and name not in (BASE, "text_end"):
            found.setdefault(int(address, 16) - base, short(name))
    return sorted(found.items())


def short(name: str) -> str:
    """Drops parameter lists, template arguments and our namespace."""
    name = name.replace("(anonymous namespace)::", "").replace("hv::", "")
    depth, out = 0, []
    for character in name:
        if character in "(<[" and not "".join(out).endswith("operator"):
            depth += 1
        if depth == 0:
            out.append(character)
        if character in ")>]" and depth > 0:
            depth -= 1
    return "".join(out).strip()[:64] or name[:64]


class Strings:
    """Texts that end with a zero byte, each there once, and where they begin."""

    def __init__(self):
        self._offsets = {}
        self._size = 0

    def offset(self, text: str) -> int:
        if text not in self._offsets:
            self._offsets[text] = self._size
            self._size += len(text) + 1
        return self._offsets[text]

    def texts(self) -> list[str]:
        if self._size > 1 << 16:
            raise SystemExit("symbols.py: the names no longer fit offsets of 16 bits")
        return list(self._offsets)


def main(out: str, *source: str) -> None:
    """A name is kept in two parts, since few scopes hold many functions: the scope with its last ::, and the rest."""
    table = functions(*source) if source else []
    strings = Strings()
    scopes, names = [], []
    for _, name in table:
        scope, colons, rest = name.rpartition("::")
        scopes.append(strings.offset(scope + colons))
        names.append(strings.offset(rest))
    with open(out, "w", encoding="ascii") as file:
        print('    .section .rodata.zz_symbols, "a"', file=file)
        print("    .globl symbol_count, symbol_offsets, symbol_scopes, symbol_names, symbol_text", file=file)
        print(f"    .balign 4\nsymbol_count: .long {len(table)}", file=file)
        for label, size, values in (("symbol_offsets", "long", [offset for offset, _ in table]),
                                    ("symbol_scopes", "short", scopes), ("symbol_names", "short", names)):
            print(f"{label}:", *(f"    .{size} {value}" for value in values), sep="\n", file=file)
        print("symbol_text:", file=file)
        for text in strings.texts():
            print('    .asciz "%s"' % text.replace("\\", "\\\\").replace('"', '\\"'), file=file)
        print('    .section .note.GNU-stack, "", @progbits', file=file)


main(*sys.argv[1:])
