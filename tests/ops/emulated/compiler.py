"""A C++ compiler, named by the first arguments, for which AVX-512, AVX512-BF16 and AMX are emulated on AVX2."""

import subprocess
import sys
from pathlib import Path

# Which products and sums are fused would depend on the code around them, and results on the number of threads.
MEANT = {
    "-mamx-tile": ["-D__AMX_TILE__"],
    "-mamx-bf16": ["-D__AMX_BF16__"],
    "-mprefer-vector-width=512": ["-O1", "-ffp-contract=off"],
}


def emulated(flag):
    if flag.startswith("-mavx512"):
        return [f"-D__{flag.removeprefix('-m').upper()}__"]
    return MEANT.get(flag, [flag])


flags = [each for flag in sys.argv[1:] for each in emulated(flag)]
sys.exit(subprocess.call([*flags, "-I", str(Path(__file__).parent)]))  # noqa: S603
