"""Write the README's measured table out of benchmarks/results/layers-cpu.json, between its two markers."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
START, END = "<!-- measured: made by `make bench`, do not edit -->", "<!-- end of measured -->"


def table(results: dict) -> str:
    """Markdown of the results: medians with quartiles, ratios to the convolution and the unfold formulation."""
    machine = results["machine"]
    lines = [
        f"{machine['processor']} ({machine['instructions']}), {machine['threads']} threads, torch {machine['torch']}, "
        f"float32, batch {results['layers'][0]['batch']}; median (quartiles) of interleaved runs; load average before: "
        f"{machine['load_average']}.",
        "",
        "| layer | candidate | forward, ms | x convolution | forward + backward, ms | x convolution | memory, x qkv |",
        "|---|---|---|---|---|---|---|",
    ]
    for layer in results["layers"]:
        convolution = layer["candidates"]["convolution"]
        for name, measured in layer["candidates"].items():
            cells = []
            for kind in ("forward", "training"):
                timing = {key: 1e3 * value for key, value in measured[kind].items() if key != "runs"}
                cells.append("{median:.1f} ({lower:.1f} to {upper:.1f})".format(**timing))
                cells.append(f"{measured[kind]['median'] / convolution[kind]['median']:.2f}")
            memory = [measured[kind] / layer["qkv_bytes"] for kind in ("forward_memory", "training_memory")]
            cells.append(f"{memory[0]:.1f} / {memory[1]:.1f}")
            lines.append(f"| {layer['channels']}, {layer['size']}x{layer['size']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Replace the text between the markers."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(START)
    after = rest.split(END)[1]
    results = json.loads((ROOT / "benchmarks/results/layers-cpu.json").read_text())
    readme.write_text(f"{before}{START}\n{table(results)}\n{END}{after}")


if __name__ == "__main__":
    main()
