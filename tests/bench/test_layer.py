"""The benchmark measures what it says, and only what is right."""

import json

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from acmix import bench, ops
from acmix.bench import flex, layer, measure, unfold
from acmix.bench.measure import peak_memory


@pytest.mark.parametrize(("stride", "size"), [(1, (9, 12)), (2, (9, 12)), (2, (8, 11))])
def test_unfold_formulation_is_the_definition(stride, size):
    projections = torch.randn(2, 6, 3, *size, dtype=torch.float64)
    weights = [torch.randn(shape, dtype=torch.float64) for shape in ((3, 2), (9, 6), (6, 9, 3, 3), (1,), (1,))]
    expected = ops.mix(projections, *weights, stride=stride, backend="reference")
    torch.testing.assert_close(unfold.mix(projections, *weights, stride=stride), expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("stride", "size"), [(1, (9, 12)), (2, (8, 11))])
def test_flex_attention_is_the_definition(stride, size):
    projections = torch.randn(2, 6, 16, *size)
    position, fc, rates = torch.randn(16, 2), torch.zeros(9, 6), torch.ones(2)
    expected = ops.mix(projections, position, fc, torch.zeros(32, 9, 3, 3), *rates, stride=stride, backend="reference")
    module = flex.WindowAttention(*size, 7, stride)
    module.attend = flex_attention
    with torch.no_grad():
        torch.testing.assert_close(module(projections, position).flatten(1, 2), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_comparison_names_every_candidate_and_becomes_json(tmp_path, stride):
    heard = []
    comparison = bench.compare_layer(8, 9, stride, batch=2, seconds=0.01, tell=heard.append)
    assert sum(heard) == pytest.approx(0.02)
    assert list(comparison.candidates) == [*(n for n in ops.backends() if n != "reference"), "unfold", "convolution"]
    assert comparison.baseline == "convolution"
    for name, measured in comparison.candidates.items():
        assert 0 < measured.forward.fastest <= measured.forward.lower <= measured.forward.median
        assert measured.forward.median <= measured.forward.upper
        assert measured.forward.runs >= 3
        assert 0 < measured.forward_memory <= measured.training_memory
        assert 0 < measured.error < 1e-6, name
    assert comparison.candidates["unfold"].forward_memory > comparison.candidates["portable"].forward_memory
    bench.save({"threads": 2}, tmp_path / "results.json", comparisons=[comparison])
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["machine"] == {"threads": 2}
    assert saved["comparisons"][0]["candidates"]["portable"]["forward"]["runs"] >= 3


def test_machine_is_on_record():
    machine = bench.machine()
    assert machine["threads"] == torch.get_num_threads()
    assert 0 <= machine["withheld_share"] < 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_wrong_candidate_is_not_measured(monkeypatch, dtype):
    monkeypatch.setattr(layer.unfold, "mix", lambda *arguments, **_: ops.mix(*arguments) * 1.2)
    with pytest.raises(RuntimeError, match=r"unfold is wrong on 8 channels, 9 x 9, stride 1, batch 2: relative error"):
        bench.compare_layer(8, 9, batch=2, dtype=dtype, channels_last=True, seconds=0.0)


def test_calls_take_turns_with_equal_shares_of_time(monkeypatch):
    order = []
    monkeypatch.setattr(measure, "_seconds", lambda call: call())
    costs = {"quick": 1.0, "as quick": 1.0, "slow": 10.0}
    calls = {name: lambda name=name: order.append(name) or costs[name] for name in costs}
    timings = measure.time_interleaved(calls, 0.0, runs=2)
    warm_up = list(costs)
    assert order == [*warm_up, "quick", "as quick", "slow", *["quick", "as quick"] * 9, "quick", "as quick", "slow"]
    assert [timing.runs for timing in timings.values()] == [11, 11, 2]


def test_whoever_listens_hears_of_all_seconds():
    heard = []
    measure.time_interleaved({"": lambda: None}, 0.05, tell=heard.append)
    assert len(heard) > 2
    assert sum(heard) == pytest.approx(0.05)
    assert min(heard) >= 0
    heard.clear()
    bench.scale("images", channels=4, largest=2, seconds=0.01, tell=heard.append)
    assert sum(heard) == pytest.approx(2 * 0.01 * len(bench.sizes_of("images", 2)))


def test_peak_memory_counts_what_is_held_at_once():
    size = 1 << 20

    def call():
        first = torch.empty(size, dtype=torch.uint8)
        second = torch.empty(size, dtype=torch.uint8)
        del first, second
        return torch.empty(size, dtype=torch.uint8)

    assert 2 * size <= peak_memory(call) < 2.1 * size
