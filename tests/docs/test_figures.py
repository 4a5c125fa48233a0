"""Every figure in a document's prose is that of a committed result, of the code, or of arithmetic done here."""

import itertools
import json
import re
import statistics
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest

from acmix.data import images, trained
from acmix.data.names import Names
from acmix.data.shards import cache
from acmix.export import checking, stage2
from acmix.ops import portable
from acmix.study.results import load_study
from acmix.study.statistics import paired
from acmix.study.summary import differences, summarise
from acmix.surgery import fused
from tests import numerics
from tests.docs.blocks import ROOT

RESULTS = ROOT / "benchmarks/results"
# What is measured or counted: a number with one of these behind it.
UNITS = (
    "%|ms|(?:micro)?seconds|s|minutes|hours|[MGT]B|[KMG]iB|bytes|times|points|images a second|instructions|operations"
)
FIGURE = re.compile(rf"(?<![\w.,-])\d[\d,.]*(?: to \d[\d,.]*)? ?(?:{UNITS})(?!\w)")
# Numbers that nobody measured: of the paper, of arithmetic, of a setting, of an example.
DEFINITIONS = (
    "+2.5 points for ResNet-26",
    "within 3 % of the paper's parameters",
    "a tensor of 49 times the map",
    "1, 2 or 4 times",
    "`waits 60%`",
    "a file of more than 4 GiB",
)
CALCULATIONS = {"docs/scale.md"}


DOCUMENTS = sorted(
    {"README.md", "DESIGN.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))} - CALCULATIONS
)


def prose(document):
    """A document without code, tables and what is generated, its lines joined."""
    text = (ROOT / document).read_text()
    for pattern in (r"^```.*?^```", r"<!-- measured.*?<!-- end of measured -->", r"^ *\|.*?$"):
        text = re.sub(pattern, "", text, flags=re.MULTILINE | re.DOTALL if "```" in pattern or "!" in pattern else re.M)
    return " ".join(text.split())


def result(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def from_to(values):
    return f"{min(values):,.0f} to {max(values):,.0f}"


def composed_kernels():
    layers = [layer for title, layer in result("candidates-h200")["layers"].items() if title.endswith("1, batch 128")]
    dense = [layer["conv"] for layer in layers]
    ours = [layer["convolution forward"] for layer in layers]
    libraries = [min(value for name, value in layer.items() if name.startswith("group")) for layer in layers]
    backward = [layer["dgrad"] + layer["wgrad"] for layer in layers]
    grouped = [layer["convolution backward, maps"] + layer["convolution backward, weights"] for layer in layers]
    return (
        f"cuDNN's dense convolution takes {from_to(dense)} microseconds on an H200 (bfloat16, 128 images, layers of "
        f"ResNet-50) where our grouped convolution of the projections takes {from_to(ours)} and cuDNN's "
        f"{from_to(libraries)}; backward it is {from_to(backward)} beside {from_to(grouped)}."
    )


def added_bias():
    layer = result("candidates-h200")["layers"]["64 channels, 56 x 56, stride 1, batch 128"]
    return f"in a pass of its own ({layer['qkv']:.0f} beside {layer['qkv_linear']:.0f} at 64 channels)"


def on_a_gpu():
    networks = result("resnet50-h200")["networks"]
    ours = {kind: networks[f"acmix_resnet50, {kind}"] for kind in ("train", "infer")}
    base = {kind: networks[f"resnet50, {kind}"] for kind in ("train", "infer")}
    share = {(kind, how): ours[kind][how] / base[kind][how] for kind in ours for how in ("graph", "eager")}
    memory = ours["train"]["peak_gib"] / base["train"]["peak_gib"]
    return (
        f"ACmix-ResNet-50 trains at {share['train', 'graph']:.2f} of ResNet-50's images a second and infers at "
        f"{share['infer', 'graph']:.2f}, with {memory:.2f} of its memory; called without graphs it is bound by the "
        f"host, {share['train', 'eager']:.2f} and {share['infer', 'eager']:.2f}:"
    )


def shares_of_bounds():
    shares = [
        100 * kernel["share"]
        for layer in result("kernels-h200")["bounds"]
        for name, kernel in layer["kernels"].items()
        if name.startswith("attention")
    ]
    return f"Attention's kernels reach {from_to(shares)} % of their bounds"


def warm_start_shares():
    """Of the convolutions, of both starts when they begin, and of both after four epochs."""
    runs = result("warm-start")["runs"]
    starts = [
        100 * statistics.fmean(run[start][epoch] for run in runs) for epoch in (0, 4) for start in ("warm", "random")
    ]
    return [f"{share:.1f} %" for share in (100 * statistics.fmean(run["convolutions"] for run in runs), *starts)]


def warm_starts():
    convolutions, swapped, random, tuned, learned = warm_start_shares()
    return (
        f"{convolutions} of the convolutions become {swapped} after the swap and {tuned} after four epochs of "
        f"fine-tuning; a random start gives {random} and {learned}."
    )


def remembered_images():
    imagenet, base64, most = 1_281_167, 4 / 3, {3_000_000: "three million"}[trained._MOST_IMAGES]
    return (
        f"{trained._SAMPLE} bytes an image in the checkpoint's metadata; "
        f"{imagenet * trained._SAMPLE * base64 / 1e6:.0f} MB for ImageNet, nothing beyond {most} images"
    )


def unfolded():
    layer = result("layers-cpu")["comparisons"][0]["candidates"]
    return f"{layer['unfold']['training']['fastest'] / layer['cpu']['training']['fastest']:.0f} times faster on a CPU"


def named(study):
    return {item.name: item for item in summarise(load_study(RESULTS / f"study-{study}.json"))}


def gains(before, after):
    found, reference = named(after), named(before)
    return {
        name: 100 * (item.scores["accuracy"].mean - reference[name].scores["accuracy"].mean)
        for name, item in found.items()
        if name in reference
    }


def cost_in_studies():
    studies = [named(path.stem.removeprefix("study-")) for path in RESULTS.glob("study-*.json")]
    ratios = [
        study["acmix"].cost.training.fastest / study["convolution"].cost.training.fastest
        for study in studies
        if "convolution" in study
    ]
    return f"costs {min(ratios):.1f} to {max(ratios):.1f} times the time of a training step"


def cost_of_placements():
    times = {name: item.cost.training.fastest for name, item in named("fashion-places").items()}
    last, two, first, every = (
        f"{times[name] / times['convolution']:.2f}"
        for name in ("last-stage", "last-two-stages", "first-two-stages", "acmix")
    )
    return (
        f"A training step takes {last} times as long as that of the convolutions with the operator in the last stage, "
        f"{two} times in the last two, {first} times in the first two, {every} times everywhere."
    )


def tried_on_unseen_pictures():
    runs = result("unseen-fashion")["runs"]
    none, last, every = (
        "{:.1f} and {:.1f} %".format(*(100 * run["top1"] for run in runs if run["acmix_stages"] == stages))
        for stages in ("0", "4", "none")
    )
    losses = [run["train_loss"] for run in runs]
    return (
        f"Convolutions (`--acmix-stages 0`) reach {none}, the last stage (`--acmix-stages 4`) {last}, "
        f"all stages {every}; training losses are {min(losses):.3f} to {max(losses):.3f}."
    )


def gained_by_rates():
    gained = [*gains("digits", "digits-rate").values(), *gains("mnist5k", "mnist5k-rate").values()]
    return f"trained at both rates is {min(gained):.1f} to {max(gained):.1f} points higher than at 0.001"


def gained_by_epochs():
    gained = gains("mnist5k", "mnist5k-long")
    return f"{gained['convolution']:.1f} points more for the convolutions, {gained['acmix']:.1f} for ACmix"


def size_of_the_cache():
    with mock.patch.dict("os.environ", ACMIX_CACHE_SIZE=""):
        return f"`ACMIX_CACHE_SIZE` ({cache.cache_size() / 1e9:.0f}GB)"


def swin_beside_timms():
    found = result("swin-cpu")
    (comparison,), machine = found["comparisons"], found["machine"]
    settings, candidates = comparison["settings"], comparison["candidates"]
    ours, theirs = candidates["acmix_swin_tiny, channels_last"], candidates[comparison["baseline"]]
    forward, step = (ours[kind]["fastest"] / theirs[kind]["fastest"] for kind in ("forward", "training"))
    return (
        f"({machine['processor']}, {machine['threads']} threads, {settings['dtype']}, batch {settings['batch']}) "
        f"ACmix-Swin-T takes {forward:.2f} times as long as timm's Swin-T forward, and {step:.2f} times in a training "
        "step"
    )


def slowest_runtimes():
    shares = [
        row["times"]["acmix_resnet50"]["fastest"] / row["times"]["resnet50"]["fastest"]
        for row in result("runtimes-cpu")["rows"]
        if row.get("times")
    ]
    return f"{min(shares):.1f} to {max(shares):.1f} times a ResNet-50's time"


def constants_of_headers():
    return f"{images._LONGEST_SIDE:,} pixels a side, or {images._MOST_ELONGATED} : 1"


def training_of_a_segmenter():
    return f"The first took {result('segmentation-small')['rows'][0]['seconds'] / 60:.0f} minutes"


FACTS = [
    ("DESIGN.md", composed_kernels),
    ("DESIGN.md", added_bias),
    ("DESIGN.md", on_a_gpu),
    ("DESIGN.md", shares_of_bounds),
    ("DESIGN.md", warm_starts),
    ("DESIGN.md", remembered_images),
    ("DESIGN.md", constants_of_headers),
    ("DESIGN.md", lambda: f"where logits may exceed {2 / portable._LARGEST_LOGIT:,.0f}"),
    ("DESIGN.md", lambda: f"differ {fused._LARGEST_RATIO:,.0f} times in scale"),
    ("DESIGN.md", lambda: f"multiplies at most {stage2._DIRECT} times as much"),
    ("DESIGN.md", lambda: f"at most {checking._FACTOR} times PyTorch's"),
    ("DESIGN.md", lambda: f"at most {numerics.FACTOR} times that of eager PyTorch"),
    ("docs/backends.md", lambda: f"at most {numerics.FACTOR} times that of eager PyTorch"),
    ("docs/runtimes.md", lambda: f"at most {checking._FACTOR} times PyTorch's"),
    ("docs/segmentation.md", training_of_a_segmenter),
    ("docs/study.md", cost_in_studies),
    ("docs/study.md", cost_of_placements),
    ("docs/study.md", tried_on_unseen_pictures),
    ("docs/study.md", gained_by_rates),
    ("docs/study.md", gained_by_epochs),
    ("docs/differences.md", unfolded),
    ("docs/clusters.md", size_of_the_cache),
    ("docs/families.md", swin_beside_timms),
    ("docs/why.md", slowest_runtimes),
]


@pytest.mark.parametrize(("document", "fact"), FACTS, ids=lambda value: getattr(value, "__name__", value))
def test_figures_are_those_of_results_and_code(document, fact):
    assert fact() in prose(document)


def allocated(make):
    tracemalloc.start()
    made = make()
    found = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert made
    return found


def test_paths_take_several_times_as_much_as_names():
    names = [f"n{index % 1000:08d}/n{index % 1000:08d}_{index}.JPEG" for index in range(10_000)]
    assert allocated(lambda: [Path(name) for name in names]) > 3 * allocated(lambda: Names(names))


@pytest.fixture(scope="module")
def findings():
    """What the studies found, as their page writes it."""
    numbers = set()
    for path in sorted(RESULTS.glob("study-*.json")):
        study = load_study(path)
        summaries = summarise(study)
        for item in summaries:
            numbers |= {f"{100 * score.mean:.1f}" for score in item.scores.values()}
            numbers |= {f"{item.train_loss:.{digits}f}" for digits in (1, 2, 3)}
        tested, pairs = differences(study), itertools.product(study.scores, itertools.permutations(summaries, 2))
        compared = [
            paired(study.found(score, one.name), study.found(score, other.name)) for score, (one, other) in pairs
        ]
        compared += [item.found for item in tested]
        for found in (item.difference for item in compared):
            sign, margin = f"{100 * found.mean:+.2f}", 100 * found.margin
            numbers |= {f"{sign} ± {margin:.2f}", f"{sign[1:]} ± {margin:.2f}", f"{sign[1:-1]} ± {margin:.1f}"}
        numbers |= {f"{item.t_test:.3f}" for item in [*compared, *tested] if item.t_test is not None}
    return numbers


def test_the_studies_found_what_their_page_says(findings):
    text = prose("docs/study.md").replace(tried_on_unseen_pictures(), "")
    said = re.findall(r"[+-]?\d+\.\d+ ± \d+\.\d+|(?<=p )0\.\d{3}|(?<=\()0\.\d{3}(?=\))|\d\d\.\d(?= %)", text)
    assert len(said) > 30
    assert [number for number in said if number not in findings] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_figure_comes_from_nowhere(document):
    text = prose(document)
    for definition in DEFINITIONS:
        text = text.replace(definition, "")
    for _, fact in [item for item in FACTS if item[0] == document]:
        text = text.replace(fact(), "")
    if document == "docs/study.md":
        text = re.sub(r"[+-]?\d+\.\d+ ± \d+\.\d+ points|\d\d\.\d( to \d\d\.\d)? %", "", text)
    assert FIGURE.findall(text) == []


@pytest.mark.parametrize("document", ["docs/warm-start.md", "docs/zh/warm-start.md"])
def test_the_table_of_warm_starts(document):
    convolutions, swapped, random, tuned, learned = warm_start_shares()
    text = (ROOT / document).read_text()
    assert all(f"| {row} |" in text for row in (f"{swapped} | {tuned}", f"{random} | {learned}", f"{convolutions} |"))


def test_the_table_of_detectors():
    found = result("detection-small")
    rows = re.findall(
        r"^\| .* \| (.*) % \| (.*) % \| (.*) % \| (\d+) \|", (ROOT / "docs/detection.md").read_text(), re.M
    )
    assert rows == [
        (*(f"{100 * row[name]:.1f}" for name in ("map", "map_50", "map_75")), str(row["epochs"]))
        for row in found["rows"]
    ]
    assert f"| {statistics.median(found['seconds_an_epoch'][1:]):.1f} s |" in (ROOT / "docs/detection.md").read_text()


def test_the_table_of_segmenters():
    text, rows = (ROOT / "docs/segmentation.md").read_text(), result("segmentation-small")["rows"]
    assert re.findall(r"^\| (\d) \| (\d) \| (\d+) \| (.*) % \| (.*) % \| (\d+) \|$", text, re.M) == [
        (
            *(str(row[name]) for name in ("drawn", "seed", "turn")),
            f"{100 * row['mean_iou']:.1f}",
            ", ".join(f"{100 * each['iou']:.1f}" for each in row["classes"]),
            str(row["epochs"]),
        )
        for row in rows
    ]
