"""What kernels cannot avoid, counted cell by cell; the kernels timed beside it, on a GPU or in triton's interpreter."""

import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from acmix import ops
from acmix.bench import bounds
from acmix.cli import main
from acmix.ops.geometry import output_size, reflect, window_offsets

ON_GPU = torch.cuda.is_available()
REFUSED = ops.why_not("triton", torch.empty(1, 3, 1, 1, 1, device="cuda" if ON_GPU else "cpu"))


def shape_of(height, width, stride):
    sizes = {"output_height": output_size(height, stride), "output_width": output_size(width, stride)}
    return SimpleNamespace(batch=2, heads=3, size=5, height=height, width=width, window=7, stride=stride, **sizes)


def seen(query, size, radius, reflected):
    """Cells along an axis in the window of a query."""
    cells = query + window_offsets(2 * radius + 1, 1)
    return set(reflect(cells, size).tolist()) if reflected else {cell for cell in cells.tolist() if 0 <= cell < size}


@pytest.mark.parametrize(("height", "width", "stride"), [(9, 12, 1), (2, 7, 1), (9, 12, 2), (1, 4, 2)])
def test_work_is_what_a_count_of_cells_gives(height, width, stride):
    shape, element, kernel = shape_of(height, width, stride), 2, 3
    queries = list(itertools.product(range(0, height, stride), range(0, width, stride)))
    keys, taps = (
        [
            set(itertools.product(seen(y, height, radius, reflected), seen(x, width, radius, reflected)))
            for y, x in queries
        ]
        for radius, reflected in ((3, True), (1, False))
    )
    batch, heads, size = shape.batch, shape.heads, shape.size
    vector = heads * size * element
    # Bytes of channel vectors at every query, at every cell that some query sees, and of a float32 a head and query.
    at_queries, saved = batch * len(queries) * vector, batch * len(queries) * heads * 4
    at_keys, at_taps = (batch * len(set.union(*cells)) * vector for cells in (keys, taps))
    position, rate, weights = 2 * size * 4, 4, size * kernel**2 * 3 * heads * heads
    products = 2 * batch * heads * size * sum(map(len, keys))
    convolved = 2 * batch * heads * size * 3 * heads * sum(map(len, taps))
    q, k, v, output, gradient = at_queries, at_keys, at_keys, at_queries, at_queries
    expected = {
        "convolution forward": (3 * at_taps + weights * element + output, convolved),
        "attention forward": (
            q + k + v + position + rate + 2 * output + output // batch + 2 * saved,
            2 * products,
        ),
        "convolution backward, maps": (gradient + weights * element + 3 * at_taps, convolved),
        "convolution backward, weights": (3 * at_taps + gradient + weights * 4, convolved),
        "attention backward, queries": (q + k + v + gradient + 2 * (position + rate) + 3 * saved + q, 3 * products),
        "attention backward, keys": (q + k + v + gradient + position + rate + 3 * saved + k + v, 4 * products),
    }
    work = bounds.least_work(shape, kernel, element)
    assert {name: (part.bytes, part.flops) for name, part in work.items()} == expected


def test_the_speed_of_a_device_is_that_of_a_copy_and_of_a_product(monkeypatch):
    monkeypatch.setattr(bounds, "SIDE", 16)
    timed = {"copy": SimpleNamespace(fastest=2.0), "product": SimpleNamespace(fastest=4.0)}
    monkeypatch.setattr(
        bounds, "time_interleaved", lambda calls, *_, **__: [call() for call in calls.values()] and timed
    )
    rates = bounds.measure_rates(torch.device("cpu"), torch.float32, 0.0)
    assert rates == bounds.Rates(bytes=2 * 8 * 16 * 16 * 4 / 2.0, flops=2 * 16**3 / 4.0)


def test_instructions_take_the_time_to_issue_them(monkeypatch):
    compiled = pytest.importorskip("acmix.ops.triton.compiled")
    monkeypatch.setattr(compiled, "least_issued", lambda variant, batch, side: batch * side * len(variant.kernel))
    device = SimpleNamespace(major=9, minor=0, multi_processor_count=132, clock_rate=2_000_000)
    seconds = bounds.issue_seconds(shape_of(9, 9, 1), torch.bfloat16, device)
    assert list(seconds) == list(bounds.least_work(shape_of(9, 9, 1), 3, 2))
    assert seconds["attention backward, keys"] == 2 * 9 * len("key") / (4 * 132 * 2e9)


@pytest.mark.skipif(REFUSED is not None, reason=f"triton cannot run here: {REFUSED}")
def test_every_kernel_is_timed_beside_its_bounds(monkeypatch, tmp_path, capsys):
    options = {"device": "cuda", "shapes": "64x56,128x28/2", "batch-size": 64, "seconds": 1}
    if not ON_GPU:
        monkeypatch.setattr(bounds, "SIDE", 16)
        options = {"device": "cpu", "shapes": "4x4/2", "batch-size": 1, "seconds": 0.01, "dtype": "float32"}
    output = tmp_path / "kernels.json"
    arguments = [f"--{name}={value}" for name, value in {**options, "output": output}.items()]
    assert main(["bench", "kernels", *arguments]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("stride 2", "attention backward, keys", "instructions", "share"))
    kinds = ["bytes", "products", *(["instructions"] if ON_GPU else [])]
    for layer in json.loads(output.read_text())["bounds"]:
        assert len(layer["kernels"]) == 6
        for kernel in layer["kernels"].values():
            assert list(kernel["bounds"]) == kinds
            assert kernel["bounds"]["bytes"] == kernel["work"]["bytes"] / layer["rates"]["bytes"]
            assert kernel["share"] == max(kernel["bounds"].values()) / kernel["time"]["fastest"]
            # A kernel that is faster than its bound was not measured, or its work was not counted right.
            assert 0 < kernel["share"] < 1
