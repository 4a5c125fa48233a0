"""Draw cost.svg, the chart of README.md: what ACmix costs beside the convolution whose place it takes.

Run: python docs/pictures/cost.py
"""

import json
from pathlib import Path

from acmix import records
from acmix.bench import Comparison
from acmix.pages import plots

PICTURE = Path(__file__).with_suffix(".svg")
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
OURS, UNFOLD = "ACmix, this library", "ACmix by unfolding"
# Of every machine: networks, layers, and the backend that "auto" takes there.
MEASURED = (("networks-cpu", "layers-cpu", "cpu"), ("networks-graphs-h200", "layers-graphs-h200", "triton"))
AXIS = "time as a multiple of that of ResNet-50, or of a 3 x 3 convolution;\nlayers as channels x height x width"


def comparisons(name: str) -> tuple[dict, list[Comparison]]:
    """The machine and the cases of a result."""
    content = json.loads((RESULTS / f"{name}.json").read_text())
    return content["machine"], records.read(list[Comparison], content["comparisons"])


def group(networks: str, layers: str, backend: str) -> plots.Group:
    """A machine's rows: the network, then every layer."""
    machine, (network,) = comparisons(networks)
    _, cases = comparisons(layers)
    # One heading speaks for all of its rows.
    ((batch, dtype, graphs),) = {
        tuple(each.settings[name] for name in ("batch", "dtype", "graphs")) for each in (network, *cases)
    }
    where = machine.get("gpu") or f"{machine['processor']}, {machine['threads']} threads"
    _, height, width = network.settings["input_size"]
    ours = plots.ratio("acmix_resnet50, channels_last", network)
    rows = [plots.Row(f"ACmix-ResNet-50, {height} x {width}", {OURS: ours})]
    for layer in cases:
        channels, size, stride = (layer.settings[name] for name in ("channels", "size", "stride"))
        title = f"{channels} x {size} x {size}" + (f", stride {stride}" if stride > 1 else "")
        rows.append(plots.Row(title, {OURS: plots.ratio(backend, layer), UNFOLD: plots.ratio("unfold", layer)}))
    return plots.Group(f"{where}, {dtype}, batch {batch}" + ", CUDA graphs" * graphs, rows)


def draw() -> bytes:
    """The chart as SVG."""
    groups = [group(*names) for names in MEASURED]
    sentences = [
        "{}: ACmix-ResNet-50 takes {:.2f} of the time of ResNet-50 forward, {:.2f} forward + backward.".format(
            each.heading, *each.rows[0].times[OURS]
        )
        for each in groups
    ]
    return plots.written(plots.ratios(groups, AXIS), "svg", " ".join(sentences))


if __name__ == "__main__":
    PICTURE.write_bytes(draw())
