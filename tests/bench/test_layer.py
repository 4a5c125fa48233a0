"""The benchmark measures what it says, and only what is right."""

import json

import pytest
import torch

from acmix import bench, ops
from acmix.bench import layer, unfold
from acmix.bench.measure import peak_memory, time_interleaved


@pytest.mark.parametrize(("stride", "size"), [(1, (9, 12)), (2, (9, 12)), (2, (8, 11))])
def test_unfold_formulation_is_the_definition(stride, size):
    query, key, value = torch.randn(3, 2, 2, 3, *size, dtype=torch.float64)
    weights = [torch.randn(shape, dtype=torch.float64) for shape in ((3, 2), (9, 6), (6, 9, 3, 3), (1,), (1,))]
    expected = ops.mix(query, key, value, *weights, stride=stride, backend="reference")
    torch.testing.assert_close(unfold.mix(query, key, value, *weights, stride=stride), expected)


def test_comparison_names_every_candidate_and_becomes_json(tmp_path):
    comparison = bench.compare_layer(8, 9, batch=2, seconds=0.0)
    assert list(comparison.candidates) == [*(n for n in ops.backends() if n != "reference"), "unfold", "convolution"]
    for measured in comparison.candidates.values():
        assert 0 < measured.forward.lower <= measured.forward.median <= measured.forward.upper
        assert measured.forward.runs >= 7
        assert 0 < measured.forward_memory <= measured.training_memory
    assert comparison.candidates["unfold"].forward_memory > comparison.candidates["portable"].forward_memory
    bench.save([comparison], tmp_path / "results.json")
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["machine"]["threads"] == torch.get_num_threads()
    assert saved["layers"][0]["candidates"]["portable"]["forward"]["runs"] >= 7


def test_a_wrong_candidate_is_not_measured(monkeypatch):
    monkeypatch.setattr(layer.unfold, "mix", lambda *arguments, **_: ops.mix(*arguments) * 1.001)
    with pytest.raises(RuntimeError, match=r"unfold is wrong on \(2, 8, 9, 9\): relative error"):
        bench.compare_layer(8, 9, batch=2, seconds=0.0)


def test_calls_take_turns():
    order = []
    timings = time_interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0, rounds=3)
    assert order == ["a", "b"] * 4
    assert timings["a"].runs == 3


def test_peak_memory_counts_what_is_held_at_once():
    size = 1 << 20

    def call():
        first = torch.empty(size, dtype=torch.uint8)
        second = torch.empty(size, dtype=torch.uint8)
        del first, second
        return torch.empty(size, dtype=torch.uint8)

    assert 2 * size <= peak_memory(call) < 2.1 * size
