"""Compile every Triton kernel of the table without a GPU and record what each needs: benchmarks/results/triton.json.

With `--cells 128,64` it tries those sizes for the attention kernels and records nothing: how the table was found.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import triton
from rich.progress import track

from acmix.ops.triton import table
from acmix.ops.triton.compiled import DTYPES, Usage, Variant, compile_variant, variants

RESULTS = Path(__file__).parent / "results/triton.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", help="sizes to try, comma-separated")
    parser.add_argument("--only", default="", help="variants whose name has this part")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [variant for variant in variants() if arguments.only in variant.name]
    with ProcessPoolExecutor(arguments.processes) as pool:
        if arguments.cells:
            for variant in chosen:
                if variant.kernel in ("forward", "query", "key"):
                    search(variant, [int(cells) for cells in arguments.cells.split(",")])
            return
        used = pool.map(compile_variant, chosen)
        usages = dict(zip((variant.name for variant in chosen), track(used, total=len(chosen)), strict=True))
    record(usages)
    spilled = [name for name, usage in usages.items() if usage.stack]
    print(f"{len(usages)} kernels compiled; spilling registers: {', '.join(spilled) or 'none'}")  # noqa: T201


def search(variant: Variant, sizes: list[int]) -> None:
    tile = table.attention(variant.kernel, variant.size, variant.stride, DTYPES[variant.dtype])
    for cells in sizes:
        print(variant.name, cells, compile_variant(variant, replace(tile, cells=cells)), flush=True)  # noqa: T201


def record(usages: dict[str, Usage]) -> None:
    known = json.loads(RESULTS.read_text())["kernels"] if RESULTS.is_file() else {}
    kernels = {**known, **{name: asdict(usage) for name, usage in usages.items()}}
    ordered = {variant.name: kernels[variant.name] for variant in variants() if variant.name in kernels}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(usage)}" for name, usage in ordered.items())
    RESULTS.write_text(f'{{\n  "triton": "{triton.__version__}",\n  "kernels": {{\n{lines}\n  }}\n}}\n')


if __name__ == "__main__":
    main()
