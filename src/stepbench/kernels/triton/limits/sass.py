"""Read what `cuobjdump --dump-sass` prints: instructions with the control bits that ptxas wrote beside them.

Each instruction is 128 bits. Bits 105 to 125 tell the hardware what it does not find out by itself: for how many cycles
the warp stalls, which of six scoreboards the instruction raises when it has read or written, and which it waits for.

Source: Jia et al., Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking (2018), section 2.1; the format
has stayed the same up to sm_90.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FIRST = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\* 0x[0-9a-f]{16} \*/")
_SECOND = re.compile(r"/\* (0x[0-9a-f]{16}) \*/")
_KINDS = {
    "imad": "IMAD IDP",
    "fma": "FFMA FMUL FADD HFMA2 HMUL2 FFMA32I FADD32I FMUL32I",
    "xu": "MUFU I2F F2I F2F POPC FLO BREV",
    "shuffle": "SHFL",
    "shared": "LDS STS STSM ATOMS",
    "shared matrix": "LDSM",
    "load": "LDGSTS",
    "load group": "LDGDEPBAR",
    "load wait": "DEPBAR",
    "global": "LDG LD",
    "store": "STG ST",
    "spill": "LDL STL",
    "constant": "LDC",
    "uniform": "LDCU",
    "atomic": "RED REDG ATOM ATOMG UTMAREDG",
    "copy": "UTMALDG",
    "copy store": "UTMASTG UTMACMDFLUSH UTMACCTL UTMAPF",
    "barrier": "BAR",
    "exit": "EXIT",
    "branch": "BRA BRX JMP",
    "special": "S2R S2UR R2UR CS2R VOTEU B2R VOTE ELECT",
    "alu": "FMNMX FSEL FSETP ISETP LOP3 IADD3 SHF PRMT SEL LEA MOV VIADD F2FP F2IP I2FP PLOP3 IABS IMNMX VIMNMX P2R "
    "R2P ISCADD LOP BMSK SGXT FCHK HADD2 HMNMX2 IADD VABSDIFF LOP32I",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
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
    lines = sass.splitlines()
    found = [(int(match[1], 16), match[2], i) for i, line in enumerate(lines) if (match := _FIRST.match(line))]
    if not found:
        raise ValueError(f"`sass` must hold instructions as cuobjdump --dump-sass prints them, got {sass[:80]!r}")
    index = {address: i for i, (address, _, _) in enumerate(found)}
    program = []
    for _, text, i in found:
        high = _SECOND.search(lines[i + 1]) if i + 1 < len(lines) else None
        if high is None:
            raise ValueError(f"`sass` must hold two words for each instruction, got one for {text!r}")
        program.append(_instruction(text, int(high[1], 16) >> 41, index))
    return program


def _instruction(text: str, control: int, index: dict[int, int]) -> Instruction:
    guard, text = text.split(None, 1) if text.startswith("@") else ("", text)
    name, *modifiers = text.split()[0].split(".")
    waits = tuple(b for b in range(6) if control >> 11 >> b & 1)

    def make(kind: str, target: int = -1, amount: int = 1, size: int = 0, *, closes: bool = False) -> Instruction:
        bits = control & 15, control >> 5 & 7, control >> 8 & 7
        return Instruction(name, kind, *bits, waits, bool(guard), target, amount, size, closes)

    if name == "HGMMA":
        shape = re.fullmatch(r"(\d+)x(\d+)x(\d+)", modifiers[0])
        if shape is None:
            raise ValueError(f"HGMMA must name its shape, got {text!r}")
        columns, depth_bytes = int(shape[2]), int(shape[3]) * (4 if "TF32" in modifiers else 2)
        # The first operand comes from registers, or is 64 rows in shared memory.
        rows = columns + (0 if re.search(r"HGMMA\S*\s+R\d+,\s*R\d+,", text) else 64)
        return make("product", amount=columns, size=rows * depth_bytes, closes="gsb0" in text)
    if name == "WARPGROUP":
        left = re.search(r"gsb0, (0x[0-9a-f]+)", text)
        return make("wait", amount=int(left[1], 16)) if left and modifiers[0] == "DEPBAR" else make("group")
    if name == "SYNCS":
        if "TRYWAIT" in modifiers:
            return make("phase")
        expects = {"ARRIVE", "TRANS64"} <= set(modifiers) and "RZ" in text.split(",")[0] and "A1T0" not in modifiers
        return make("expect" if expects else "barrier object")
    kind = _KIND_OF.get(name, "hmma" if name == "HMMA" else "uniform" if name.startswith("U") else "other")
    if kind == "branch":
        address = re.search(r"(0x[0-9a-f]+)\s*$", text)
        return make(kind, target=index.get(int(address[1], 16), -1) if address else -1)
    if kind == "load wait":
        left = re.search(r"SB0, (0x[0-9a-f]+)", text)
        return make(kind, amount=int(left[1], 16) if left else 0)
    if kind in ("shared", "shared matrix", "load"):
        return make(kind, amount=_words(name, modifiers))
    return make(kind)


def _words(name: str, modifiers: list[str]) -> int:
    if name in ("LDSM", "STSM"):
        return next((int(m[-1]) for m in modifiers if re.fullmatch(r"x?[24]", m)), 1)
    return 4 if "128" in modifiers else 2 if "64" in modifiers else 1


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


def mask_branch(program: Sequence[Instruction], loop: tuple[int, int]) -> int | None:
    """Return the index of the branch that jumps over the mask of a loop that asks for it, None if it does not ask."""
    first, last = loop
    for i in range(first, last):
        x = program[i]
        if x.kind == "branch" and x.guarded and i < x.target <= last:
            skipped = program[i + 1 : x.target]
            if sum(y.name in MASKING for y in skipped) >= 16 and not any(y.kind == "product" for y in skipped):
                return i
    return None
