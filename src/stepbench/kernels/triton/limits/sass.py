"""Read what `cuobjdump --dump-sass` prints: instructions with the control bits that ptxas wrote beside them.

Each instruction is 128 bits. Bits 105 to 125 tell the hardware what it does not find out by itself: for how many cycles
the warp stalls, which of six scoreboards the instruction raises when it has read or written, and which it waits for.

Source: Jia et al., Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking (2018), section 2.1; the format
has stayed the same up to sm_90.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Address, text, and the second of two words, which stands on its own line.
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\* 0x[0-9a-f]{16} \*/(?:\s*/\* (0x[0-9a-f]{16}) \*/)?")
# What the replay tells apart. Other names that begin with U are "uniform", but for those of the copy engine; what is
# left is "other" and takes an issue slot and nothing else.
_KINDS = {
    "product": "HGMMA",
    "hmma": "HMMA",
    "wait": "WARPGROUP",
    "imad": "IMAD IDP",
    "fma": "FFMA FMUL FADD HFMA2 HMUL2 FFMA32I FADD32I FMUL32I",
    "xu": "MUFU I2F F2I F2F POPC FLO BREV",
    "shuffle": "SHFL",
    "shared": "LDS STS STSM ATOMS LDL STL",  # what spills go to costs about the same
    "shared matrix": "LDSM",
    "load": "LDGSTS",
    "load group": "LDGDEPBAR",
    "load wait": "DEPBAR",
    "global": "LDG LD",
    "store": "STG ST",
    "constant": "LDC",
    "atomic": "RED REDG ATOM ATOMG UTMAREDG",
    "copy": "UTMALDG",
    "phase": "SYNCS",
    "barrier": "BAR",
    "exit": "EXIT",
    "branch": "BRA BRX JMP",
    "special": "S2R S2UR R2UR CS2R VOTEU B2R VOTE ELECT",
    "alu": "FMNMX FSEL FSETP ISETP LOP3 IADD3 SHF PRMT SEL LEA MOV VIADD F2FP F2IP I2FP PLOP3 IABS IMNMX VIMNMX P2R "
    "R2P ISCADD LOP BMSK SGXT FCHK HADD2 HMNMX2 IADD VABSDIFF LOP32I",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_WORDS = {"2": 2, "4": 4, "64": 2, "128": 4}  # modifier → 32-bit words of a lane, else one
MASKING = ("FSEL", "ISETP", "SEL", "FSETP")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        stall: cycles until the warp's next instruction.
        sets_written: scoreboard that it holds until it has written its result, 7 for none.
        sets_read: scoreboard that it holds until it has read its operands, 7 for none.
        waits: scoreboards that must be free before it issues.
        guarded: whether a predicate may turn it off.
        target: index of the instruction that a branch goes to, −1 if it is no branch or none of these.
        amount: kind "product": columns N; "shared" and "load": 32-bit words of a lane; "wait" and "load wait": how
            many groups may still be under way.
        bytes: kind "product": of operands in shared memory.
        closes: kind "product": whether it ends a group.
    """

    name: str
    kind: str
    stall: int
    sets_written: int
    sets_read: int
    waits: tuple[int, ...]
    guarded: bool
    target: int = -1
    amount: int = 1
    bytes: int = 0
    closes: bool = False


def parse(sass: str) -> list[Instruction]:
    """Return the instructions of the one kernel in `sass`.

    Raises:
        ValueError: there are none, or not in pairs of lines.
    """
    found = _INSTRUCTION.findall(sass)
    if not found:
        raise ValueError(f"`sass` must hold instructions as cuobjdump --dump-sass prints them, got {sass[:80]!r}")
    index = {int(address, 16): i for i, (address, _, _) in enumerate(found)}
    for _, text, second in found:
        if not second:
            raise ValueError(f"`sass` must hold two words for each instruction, got one for {text!r}")
    return [_instruction(text, int(second, 16) >> 41, index) for _, text, second in found]


def _instruction(text: str, control: int, index: Mapping[int, int]) -> Instruction:
    guard, text = text.split(None, 1) if text.startswith("@") else ("", text)
    name, *modifiers = text.split()[0].split(".")
    return Instruction(
        name,
        stall=control & 15,
        sets_written=control >> 5 & 7,
        sets_read=control >> 8 & 7,
        waits=tuple(board for board in range(6) if control >> 11 >> board & 1),
        guarded=bool(guard),
        **_meaning(name, modifiers, text, index),
    )


def _meaning(name: str, modifiers: Sequence[str], text: str, index: Mapping[int, int]) -> dict[str, Any]:
    """Return the kind of an instruction, and what that kind has besides."""
    kind = _KIND_OF.get(name, "uniform" if re.match("U(?!TMA)", name) else "other")
    if kind == "product":
        _, columns, depth = map(int, modifiers[0].split("x"))
        # The first operand comes from registers, or is 64 rows in shared memory.
        rows = columns + (0 if re.search(r"HGMMA\S*\s+R\d+,\s*R\d+,", text) else 64)
        return {"kind": kind, "amount": columns, "bytes": 2 * rows * depth, "closes": "gsb0" in text}
    if kind == "phase" and "TRYWAIT" not in modifiers:
        expects = {"ARRIVE", "TRANS64"} <= set(modifiers) and "RZ" in text.split(",")[0] and "A1T0" not in modifiers
        return {"kind": "expect" if expects else "barrier object"}
    if kind == "wait" and "DEPBAR" not in modifiers:
        return {"kind": "other"}
    if kind in ("shared", "shared matrix", "load"):
        return {"kind": kind, "amount": next((_WORDS[each] for each in modifiers if each in _WORDS), 1)}
    if kind in ("branch", "wait", "load wait"):
        found = re.search(r"0x[0-9a-f]+$", text)
        number = int(found[0], 16) if found else -1
        return {"kind": kind, "target": index.get(number, -1)} if kind == "branch" else {"kind": kind, "amount": number}
    return {"kind": kind}


def loops(program: Sequence[Instruction]) -> list[tuple[int, int]]:
    """Return first and last index of every loop that holds products, in the order of the program."""
    found = []
    for last, x in enumerate(program):
        if x.kind == "branch" and 0 <= x.target < last:
            body = program[x.target : last]
            # A cold block behind the program's end may jump back into it: that is no loop.
            ends = any(y.kind == "exit" and not y.guarded for y in body)
            if not ends and any(y.kind in ("product", "hmma") for y in body):
                found.append((x.target, last))
    return found


def mask_branches(program: Sequence[Instruction], loop: tuple[int, int]) -> frozenset[int]:
    """Return the branches that jump over the mask of a loop, by their indices; none if it has no `if` around it."""
    found = set()
    for i in range(*loop):
        x = program[i]
        skipped = program[i + 1 : x.target] if x.kind == "branch" and x.guarded and x.target <= loop[1] else ()
        if sum(y.name in MASKING for y in skipped) >= 16 and not any(y.kind == "product" for y in skipped):
            found.add(i)
    return frozenset(found)
