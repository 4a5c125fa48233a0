"""Listings of compiled kernels: their instructions, and how many of them a warp issues at least."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_LINE = re.compile(
    r"^(?P<label>\.L_\w+):|^\s+/\*[0-9a-f]{4,}\*/\s+(?P<predicate>@!?U?P\w+\s+)?(?P<name>[A-Z][A-Z0-9_.]*)(?P<rest>.*)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Instruction:
    """An instruction; `target` is the index of the one that a branch leads to, if its condition (if any) holds."""

    name: str
    conditional: bool
    target: int | None


def instructions(listing: str) -> list[Instruction]:
    """Those of a listing of nvdisasm, without the ones that do nothing."""
    lines: list[re.Match[str]] = []
    labels: dict[str, int] = {}
    for line in _LINE.finditer(listing):
        if line["label"]:
            labels[line["label"]] = len(lines)
        elif line["name"] != "NOP":
            lines.append(line)
    found = []
    for line in lines:
        branch = re.search(r"`\((\.L_\w+)\)", line["rest"]) if line["name"].startswith("BRA") else None
        # A branch may have a second condition among its operands.
        conditional = bool(line["predicate"] or (branch and line["rest"][: branch.start()].strip()))
        found.append(Instruction(line["name"], conditional, labels[branch[1]] if branch else None))
    return found


def fewest(code: Sequence[Instruction], trips: float) -> float:
    """Instructions on the shortest way through a kernel whose loops run `trips` times each.

    The way skips what a tile without borders skips, but no loop, and may end at the first exit.
    """
    loops = [
        (branch.target, index)
        for index, branch in enumerate(code)
        if branch.target is not None and branch.target <= index
    ]

    def between(first: int, end: int) -> float:
        least = {end: 0.0}
        for index in range(end - 1, first - 1, -1):
            instruction, onward = code[index], least[index + 1]
            target = instruction.target
            if instruction.name == "EXIT":
                onward = 0.0
            elif target is not None and target <= index:
                onward += (trips - 1) * (between(target, index) + 1)
            elif target is not None:
                over_a_loop = any(index < start and last < target for start, last in loops)
                taken = math.inf if over_a_loop else least.get(target, math.inf)
                onward = min(taken, onward) if instruction.conditional else taken
            least[index] = 1 + onward
        return least[first]

    return between(0, len(code))
