"""Write measured tables out of benchmarks/results between two markers: the README's and those of docs/."""

import ast
import json
from collections.abc import Sequence
from pathlib import Path

from acmix import records, study
from acmix.bench import Comparison, Scaling
from acmix.pages import plots, studies

ROOT = Path(__file__).parent.parent
START, END = "<!-- measured: made by `make bench`, do not edit -->", "<!-- end of measured -->"


def table(results: dict) -> list[str]:
    """Markdown of comparisons: fastest runs with medians, ratios of the fastest to the baseline, memory."""
    machine, settings = results["machine"], results["comparisons"][0]["settings"]
    if settings.get("device") == "cuda":
        device = f"{machine['gpu']}, CUDA {machine['cuda']}, triton {machine['triton']}"
        device += ", compiled" * settings["compiled"] + ", CUDA graphs" * settings["graphs"]
        caveat = "Ratios are of the fastest of interleaved runs with an empty cache; medians in brackets."
    else:
        device = f"{machine['processor']} ({machine['instructions']}, compiled kernels: {machine['kernels']})"
        device += f", {machine['threads']} threads"
        caveat = (
            f"The machine withheld {machine['withheld_share']:.0%} of a busy thread's time, so ratios are of the "
            "fastest of interleaved runs; medians in brackets."
        )
    kinds = {"forward": "forward", "training": "forward + backward"}
    if settings.get("fused"):
        del kinds["training"]
    columns = ["case", "candidate", *(column for words in kinds.values() for column in (f"{words}, ms", "ratio"))]
    columns += ["memory, MB", "ratio", *["images/s"] * ("networks" in settings)]
    lines = [
        f"{device}, torch {machine['torch']}, {settings['dtype']}, revision {machine['revision']}. {caveat}",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
    ]
    last = f"{[*kinds][-1]}_memory"
    for case in results["comparisons"]:
        base = case["candidates"][case["baseline"]]
        for name, measured in case["candidates"].items():
            cells = []
            for kind in kinds:
                timing = measured[kind]
                cells.append(f"{1e3 * timing['fastest']:.1f} ({1e3 * timing['median']:.1f})")
                cells.append(f"{timing['fastest'] / base[kind]['fastest']:.2f}")
            cells.append(" / ".join(f"{measured[f'{kind}_memory'] / 1e6:.0f}" for kind in kinds))
            cells.append(f"{measured[last] / base[last]:.2f}")
            if "networks" in settings:
                batch, times = settings["batch"], (measured[kind]["fastest"] for kind in kinds)
                cells.append(" / ".join(f"{batch / seconds:,.1f}" for seconds in times))
            lines.append(f"| {case['title']} | {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def forward_bounds(results: dict) -> list[str]:
    """Markdown of forward passes on a processor beside what they must take at least."""
    lines = [
        f"The {results['comparisons'][0]['settings']['dtype']} layers above, forward, beside the least time of their "
        "bytes, products and exponentials at speeds measured in the same run; the share is that of the bytes, or of "
        "products and exponentials together, whichever is longer.",
        "",
        "| case | candidate | fastest, ms | bytes | products | exponentials | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in results["comparisons"]:
        for name in ("cpu", "convolution"):
            bound = case["bounds"][name]
            seconds = case["candidates"][name]["forward"]["fastest"], bound["bytes"], bound["products"]
            cells = " | ".join(f"{1e3 * value:.2f}" for value in (*seconds, bound["exponentials"]))
            lines.append(f"| {case['title']} | {name} | {cells} | {bound['share']:.0%} |")
    return [*lines, ""]


def exponents(results: dict) -> list[str]:
    """A sentence for every axis."""
    return [
        "Over {axis}, {first:,} to {last:,}: time grows with exponent {forward:.2f} forward and {training:.2f} forward "
        "+ backward, memory with {forward_memory:.2f} and {training_memory:.2f}.".format(
            axis=item["axis"], first=item["points"][0]["count"], last=item["points"][-1]["count"], **item["exponents"]
        )
        for item in results["scalings"]
    ]


def bounds(results: dict) -> list[str]:
    """Markdown of kernels beside what they must take at least."""
    machine, first = results["machine"], results["bounds"][0]
    rates = first["rates"]
    lines = [
        f"{machine['gpu']}, {first['settings']['dtype']}, revision {machine['revision']}: kernels beside the least "
        f"time of their bytes, at the {rates['bytes'] / 1e9:,.0f} GB/s of a large copy, and of their products, at the "
        f"{rates['flops'] / 1e12:,.0f} TFLOP/s of a large one, and of their instructions; the share is "
        "that of the longest.",
        "",
        "| case | kernel, us | fastest | bytes | products | instructions | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for layer in results["bounds"]:
        for name, kernel in layer["kernels"].items():
            seconds = kernel["time"]["fastest"], *map(kernel["bounds"].get, ("bytes", "products", "instructions"))
            cells = " | ".join("-" if value is None else f"{1e6 * value:,.1f}" for value in seconds)
            lines.append(f"| {layer['title']} | {name} | {cells} | {kernel['share']:.0%} |")
    return [*lines, ""]


def runtimes(results: dict) -> list[str]:
    """Markdown of networks in ONNX Runtime and PyTorch, one image."""
    machine, times = results["machine"], results["times"]
    base = times["resnet50, ONNX Runtime, every size"]["fastest"]
    lines = [
        f"One image of 224 x 224, ONNX Runtime {machine['onnxruntime']} beside PyTorch, {machine['threads']} threads, "
        f"revision {machine['revision']}, {machine['withheld_share']:.0%} withheld:",
        "",
        "| network, runtime, sizes that it takes | ms | ratio |",
        "|---|---|---|",
    ]
    for name, timing in times.items():
        shown = f"{1e3 * timing['fastest']:.1f} ({1e3 * timing['median']:.1f})"
        lines.append(f"| {name} | {shown} | {timing['fastest'] / base:.2f} |")
    return [*lines, ""]


def other_runtimes(results: dict) -> list[str]:
    """Markdown of what works in which runtime, how exact and how fast."""
    machine, found = results["machine"], results["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in results["packages"].items())
    lines = [
        f"{machine['processor']} ({machine['instructions']}), {machine['threads']} threads, torch {machine['torch']}, "
        f"{versions}, revision {machine['revision']}, {machine['withheld_share']:.0%} withheld.",
        "",
        "| runtime | precision | sizes | small network | detector | ACmix-ResNet-50 | its ms | ResNet-50, ms | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = [row["runtime"], row["precision"], "every" if row["dynamic"] else "one"]
        if row["accuracy"] is not None:
            share = "{quantised:.1%} of digits right, {float32:.1%} in float32".format(**row["accuracy"])
            cells += [share, "", ""]
        else:
            cells += [_shown(row, name) for name in ("classifier", "detector", "acmix_resnet50")]
        ours, theirs = ((row["times"] or {}).get(name) for name in ("acmix_resnet50", "resnet50"))
        if ours and theirs:
            cells += [f"{1e3 * each['fastest']:.1f} ({1e3 * each['median']:.1f})" for each in (ours, theirs)]
            cells.append(f"{ours['fastest'] / theirs['fastest']:.2f}")
        else:
            cells += ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _shown(row: dict, network: str) -> str:
    """The largest difference to PyTorch, or what else there is to say."""
    if network not in row["differences"]:
        return ""
    difference = row["differences"][network]
    if difference is None:
        return "converts"
    return f"{difference:.0e}" if isinstance(difference, float) else f"fails: {difference}"


def examples(path: Path) -> list[str]:
    """Markdown of an example's functions, each as it stands in the file."""
    text = path.read_text()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    lines = [f"How, each function of [{path.relative_to(ROOT)}](../{path.relative_to(ROOT)}), which the tests run:", ""]
    for function in functions:
        lines += ["```python", ast.get_source_segment(text, function) or "", "```", ""]
    return lines


def study_tables() -> list[str]:
    """Markdown of every study with its plot."""
    lines: list[str] = []
    for path in sorted((ROOT / "benchmarks/results").glob("study-*.json")):
        found = study.load_study(path)
        score = found.scores[0].title
        seen = f"validation {score} of each network over parameters, multiply-adds, time and epochs; learned rates"
        picture = f"![{seen}](../{path.with_suffix('.svg').relative_to(ROOT)})"
        lines += ["", f"### {path.stem.removeprefix('study-')}", "", study.as_markdown(found), picture, ""]
    return lines


def draw() -> None:
    """The plots of benchmarks and studies, beside their results."""
    for path in sorted((ROOT / "benchmarks/results").glob("*.svg")):
        if path.stem.startswith("study-"):
            found = study.load_study(path.with_suffix(".json"))
            path.write_bytes(studies.plot("svg", study.summarise(found), found.batch))
            continue
        results = load(path.stem)
        parts = {
            name: records.read(list[kind], results[name])
            for name, kind in (("comparisons", Comparison), ("scalings", Scaling))
        }
        path.write_bytes(plots.benchmark("svg", **parts))


def fill(document: Path, lines: Sequence[str]) -> None:
    """Replace the text between the markers of a document."""
    before, rest = document.read_text().split(START)
    after = rest.split(END)[1]
    document.write_text("\n".join([before + START, *lines, END + after]))


def on_gpu(results: dict) -> list[str]:
    """Markdown of images a second of networks on a GPU, as CUDA graphs and called."""
    machine, settings, networks = (results[name] for name in ("machine", "settings", "networks"))
    _, height, width = settings["input_size"]
    lines = [
        f"{machine['gpu']}, torch {machine['torch']}, triton {machine['triton']}, {settings['dtype']}, batch "
        f"{settings['batch']}, {height} x {width}, {settings['memory_format']}: {settings['what']}.",
        "",
        "| images/s | ResNet-50 | ACmix-ResNet-50 | ratio | memory, ratio |",
        "|---|---|---|---|---|",
    ]
    for kind, title in (("train", "training"), ("infer", "inference")):
        ours, theirs = networks[f"acmix_resnet50, {kind}"], networks[f"resnet50, {kind}"]
        for how, words in (("graph", "CUDA graphs"), ("eager", "called")):
            memory = f"{ours['peak_gib'] / theirs['peak_gib']:.2f}"
            cells = f"{theirs[how]:,} | {ours[how]:,} | {ours[how] / theirs[how]:.2f} | {memory}"
            lines.append(f"| {title}, {words} | {cells} |")
    return [*lines, ""]


def detection(results: dict) -> list[str]:
    """Markdown of training steps of detectors."""
    machine, settings, steps = (results[name] for name in ("machine", "settings", "steps"))
    base = min((step for name, step in steps.items() if name.startswith("resnet50")), key=lambda step: step["fastest"])
    lines = [
        f"{machine['processor']} ({machine['instructions']}), {machine['threads']} threads, torch {machine['torch']}, "
        f"{settings['dtype']}, revision {machine['revision']}, {machine['withheld_share']:.0%} withheld: a step of SGD "
        f"of RetinaNet for {settings['classes']} classes, {settings['images']} image of {settings['side']} x "
        f"{settings['side']}.",
        "",
        "| backbone | step, s: fastest (median) | ratio | resident memory of a step, MB | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, step in steps.items():
        backbone, kind = name.split(", ")
        cells = f"{step['fastest']:.2f} ({step['median']:.2f}) | {step['fastest'] / base['fastest']:.2f}"
        bytes_, of = results["memory"][backbone], results["memory"]["resnet50"]
        memory = f"{bytes_ / 1e6:,.0f} | {bytes_ / of:.2f}" if kind == "contiguous" else "|"
        lines.append(f"| {name} | {cells} | {memory} |")
    return [*lines, ""]


def starts(results: dict) -> list[str]:
    """Markdown of how long commands take to their first output."""
    machine = results["machine"]
    lines = [
        f"{machine['processor']}, torch {machine['torch']}, {results['runs']} starts each, revision "
        f"{machine['revision']}: seconds from typing a command to its first output on a terminal, which may "
        "say that PyTorch is loaded, and once to its end.",
        "",
        "| command | first output: fastest (median) | at most | end |",
        "|---|---|---|---|",
    ]
    rows = (
        f"| `{row['command']}` | {row['fastest']:.2f} ({row['median']:.2f}) | {row['limit']:.1f} | {row['ended']:.1f} |"
        for row in results["rows"]
    )
    return [*lines, *rows, ""]


def numbers() -> list[str]:
    """Markdown of the numbers of the README."""
    names = ("networks-cpu", "networks-avx2-cpu", "networks-fused-cpu", "networks-fused-bfloat16-cpu")
    (network,), (narrow,), *fused = (load(name)["comparisons"] for name in names)
    layer, *_ = load("layers-cpu")["comparisons"]
    growth, *_ = load("pixels-cpu")["scalings"]
    gpu = load("resnet50-h200")["networks"]
    ours, base = (network["candidates"][name] for name in ("acmix_resnet50, channels_last", network["baseline"]))
    forward, step, narrow_forward, narrow_step = (
        found["candidates"]["acmix_resnet50, channels_last"][kind]["fastest"]
        / found["candidates"][found["baseline"]][kind]["fastest"]
        for found in (network, narrow)
        for kind in ("forward", "training")
    )
    whole, pairs = (
        found["candidates"]["acmix_resnet50, channels_last"]["forward"]["fastest"]
        / found["candidates"][found["baseline"]]["forward"]["fastest"]
        for (found,) in fused
    )
    cpu, unfold = (layer["candidates"][name]["training"]["fastest"] for name in ("cpu", "unfold"))
    memory = ours["training_memory"] / base["training_memory"]
    learns, answers = (
        gpu[f"acmix_resnet50, {kind}"]["graph"] / gpu[f"resnet50, {kind}"]["graph"] for kind in ("train", "infer")
    )
    machine, case = load("networks-cpu")["machine"], network["settings"]
    return [
        f"On an {machine['processor']}, {machine['threads']} threads, {case['dtype']}, batch {case['batch']}, and an "
        "H200, as CUDA graphs:",
        "",
        f"- {forward:.2f} and {step:.2f}: time of an ACmix-ResNet-50 beside a ResNet-50, forward and a training step",
        f"- {narrow_forward:.2f} and {narrow_step:.2f}: the same with AVX2 alone, the most that many processors have",
        f"- {whole:.2f} and {pairs:.2f}: both fused, float32 and bfloat16, our 1x1 convolutions in our kernels",
        f"- {memory:.2f}: its training memory beside a ResNet-50's",
        f"- {unfold / cpu:.0f} times as fast as unfolding, forward + backward ({layer['title']})",
        f"- {growth['exponents']['training']:.2f}: the exponent with which time grows with pixels, up to "
        f"{growth['points'][-1]['count'] / 1e6:.0f} million",
        f"- {answers:.2f} and {learns:.2f}: images a second on the H200 beside a ResNet-50, inference and training",
    ]


def load(name: str) -> dict:
    """What a benchmark left."""
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())


# Headings of docs/benchmarks.md, what makes Markdown of results, and the patterns of those results' names.
PAGE = (
    ("Layers on a CPU", table, ("layers-cpu", "layers-wide-cpu", "layers-bfloat16-cpu")),
    ("Layers on a CPU, beside their bounds", forward_bounds, ("layers-wide-cpu", "layers-bfloat16-cpu")),
    (
        "Networks on a CPU",
        table,
        ("networks-cpu", "networks-b*-cpu", "networks-autocast-cpu", "networks-fused-*cpu", "networks-avx2-*cpu"),
    ),
    ("A training step of a detector, on a CPU", detection, ("detection-cpu",)),
    ("One image in ONNX Runtime, on a CPU", runtimes, ("onnx-cpu",)),
    ("Growth with the size of maps", exponents, ("pixels-cpu",)),
    ("Networks on a GPU", on_gpu, ("resnet50-*",)),
    ("Networks on a GPU, beside HaloNet", table, ("networks-*gpu", "networks-*h200")),
    ("Layers on a GPU", table, ("layers-*gpu", "layers-*h200")),
    ("Kernels on a GPU", bounds, ("kernels-*",)),
    ("The command line", starts, ("start-cpu",)),
)


def page() -> list[str]:
    """Markdown of docs/benchmarks.md, of what was measured."""
    lines: list[str] = []
    for heading, written, patterns in PAGE:
        found = [path for pattern in patterns for path in sorted((ROOT / "benchmarks/results").glob(f"{pattern}.json"))]
        lines += ["", f"## {heading}", ""] if found else []
        for path in found:
            lines += written(load(path.stem))
    return [line for number, line in enumerate(lines) if line or lines[number - 1 : number] != [""]]


def documents() -> dict[str, list[str]]:
    """What stands between the markers of every document."""
    found = {"README.md": numbers(), "docs/benchmarks.md": page(), "docs/study.md": study_tables()}
    if (ROOT / "benchmarks/results/runtimes-cpu.json").exists():
        how = examples(ROOT / "examples/runtimes.py")
        found["docs/runtimes.md"] = [*other_runtimes(load("runtimes-cpu")), *how]
    return found


def main() -> None:
    """Fill all documents, and draw all plots."""
    draw()
    for name, lines in documents().items():
        fill(ROOT / name, lines)


if __name__ == "__main__":
    main()
