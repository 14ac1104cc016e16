"""How each instruction of a program makes the address of its memory operand: `python trace_table.py PROGRAM > TABLE`.

From objdump's listing, for ct_trace. An instruction that takes addresses from a vector register (gather, scatter) ends it with an
error: no kernel may have one.
"""

from __future__ import annotations

import re
import subprocess
import sys

REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
NARROW = {"eax": 0, "ecx": 1, "edx": 2, "ebx": 3, "esp": 4, "ebp": 5, "esi": 6, "edi": 7} | {f"r{n}d": n for n in range(8, 16)}
NUMBERS = {name: number for number, name in enumerate(REGISTERS)} | NARROW
NONE = 16
OPERAND = re.compile(r"(-?0x[0-9a-f]+)?\((%\w+)?(?:,(%\w+)(?:,(\d))?)?\)")
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\t(.+)")
PREFIXES = {"rep", "repz", "repnz", "lock", "bnd", "notrack", "data16", "cs"}
# in these the parentheses give no address that is read or written
NO_ACCESS = ("lea", "nop", "prefetch")
# string instructions read at rsi, write at rdi, or both: the sum stands for both
STRING = re.compile(r"%[de]s:\(%(r[sd]i)\)")
RSI, RDI = 6, 7


def table(listing: str) -> list[str]:
    lines = []
    first = last = 0
    for text in listing.splitlines():
        found = INSTRUCTION.match(text)
        if found is None:
            continue
        at, instruction = int(found[1], 16), found[2].split("#")[0]
        first, last = first or at, at
        operand = OPERAND.search(instruction)
        mnemonic = next(word for word in instruction.split() if word not in PREFIXES)
        if operand is None or mnemonic.startswith(NO_ACCESS) or operand[2] == "%rip":
            continue
        pointers = STRING.findall(instruction)
        if pointers:
            lines.append(f"{at:x} {RDI if 'rdi' in pointers else NONE} {RSI if 'rsi' in pointers else NONE} 1 0")
            continue
        base, index = (operand[2] or "")[1:], (operand[3] or "")[1:]
        if index[:3] in {"xmm", "ymm", "zmm"}:
            raise SystemExit(f"{text.strip()}: an address from a vector register")
        numbers = NUMBERS.get(base, NONE), NONE if index in {"", "riz", "eiz"} else NUMBERS[index]
        lines.append(f"{at:x} {numbers[0]} {numbers[1]} {operand[4] or 1} {int(operand[1] or '0', 16)}")
    return [f"{first:x} {last + 1:x}", *lines]


if __name__ == "__main__":
    command = ["objdump", "-d", "--no-show-raw-insn", "-j", ".text", sys.argv[1]]
    print("\n".join(table(subprocess.run(command, check=True, capture_output=True, text=True).stdout)))
