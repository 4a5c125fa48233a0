"""Compile every Triton kernel of the table without a GPU and record what each needs: benchmarks/results/triton.json.

With `--tiles "cells=64,heads=2 cells=128"` it tries those in place of the table's and records nothing. So the table was
found: of tiles that spill no registers, or hardly any, those that issue the fewest instructions.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import triton
from rich.progress import track

from acmix.ops.triton.compiled import Usage, Variant, compile_variant, least_issued, tile_of, variants

RESULTS = Path(__file__).parent / "results/triton.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", help="tiles to try, separated by spaces, as attributes that differ from the table's")
    parser.add_argument("--only", default="", help="variants whose name has this part")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [variant for variant in variants() if arguments.only in variant.name]
    with ProcessPoolExecutor(arguments.processes) as pool:
        if arguments.tiles:
            for variant in chosen:
                search(variant, arguments.tiles.split())
            return
        used = pool.map(compile_variant, chosen)
        usages = dict(zip((variant.name for variant in chosen), track(used, total=len(chosen)), strict=True))
    record(usages)
    spilled = [name for name, usage in usages.items() if usage.stack]
    print(f"{len(usages)} kernels compiled; spilling registers: {', '.join(spilled) or 'none'}")  # noqa: T201


def search(variant: Variant, tiles: list[str]) -> None:
    for text in tiles:
        changes = {name: int(value) for name, value in (part.split("=") for part in text.split(","))}
        tile = replace(tile_of(variant), **changes)
        issued = least_issued(variant, 1, 56, tile)
        print(variant.name, text, f"{issued:,.0f} issued", compile_variant(variant, tile), flush=True)  # noqa: T201


def record(usages: dict[str, Usage]) -> None:
    known = json.loads(RESULTS.read_text())["kernels"] if RESULTS.is_file() else {}
    kernels = {**known, **{name: asdict(usage) for name, usage in usages.items()}}
    ordered = {variant.name: kernels[variant.name] for variant in variants() if variant.name in kernels}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(usage)}" for name, usage in ordered.items())
    RESULTS.write_text(f'{{\n  "triton": "{triton.__version__}",\n  "kernels": {{\n{lines}\n  }}\n}}\n')


if __name__ == "__main__":
    main()
