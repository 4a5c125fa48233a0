"""What a forward pass cannot avoid, counted pair by pair, and the share of it."""

import itertools

import pytest
import torch

from acmix import bench
from acmix.bench import processors
from acmix.bench.measure import Timing
from acmix.cli import main


def seen(query, size, radius):
    return sum(0 <= query + offset < size for offset in range(-radius, radius + 1))


@pytest.mark.parametrize(("size", "stride", "dtype"), [(9, 1, torch.float32), (8, 2, torch.bfloat16)])
def test_work_is_what_a_count_gives(size, stride, dtype):
    channels, heads, batch = 8, 4, 3
    queries = list(itertools.product(range(0, size, stride), repeat=2))
    keys, taps = (batch * sum(seen(y, size, r) * seen(x, size, r) for y, x in queries) for r in (3, 1))
    cells, outputs = batch * size**2, batch * len(queries)
    weights = 3 * channels * (channels + 1) + 2 * (channels // heads) + 9 * 3 * heads + 81 * channels + 2
    work = processors.forward_work(channels, size, stride, batch, dtype)
    projected, attended, convolved = 3 * channels**2 * cells, 2 * channels * keys, 3 * heads * channels * taps
    assert work["operator"].flops == 2 * (projected + attended + convolved)
    assert work["operator"].exponentials == heads * keys
    assert work["operator"].bytes == (channels * (cells + outputs) + weights) * dtype.itemsize
    assert work["convolution"].flops == 2 * channels**2 * taps
    assert work["convolution"].exponentials == 0
    assert work["convolution"].bytes == (channels * (cells + outputs) + 9 * channels**2) * dtype.itemsize


def test_shares_are_of_what_bounds():
    settings = {"channels": 8, "size": 9, "stride": 1, "batch": 2}
    work = processors.forward_work(8, 9, 1, 2, torch.float32)["operator"]
    forward = {"cpu": Timing(2.0, 2.0, 2.0, 2.0, 3), "convolution": Timing(1.0, 1.0, 1.0, 1.0, 3)}

    def share(*seconds):
        speeds = processors.Speeds(
            *(amount / time for amount, time in zip((work.bytes, work.flops, work.exponentials), seconds, strict=True))
        )
        bounds = processors.bound_forward(settings, forward, torch.float32, speeds)
        assert list(bounds) == list(forward)
        assert bounds["convolution"].exponentials == 0
        return bounds["cpu"].share

    assert share(0.5, 0.75, 0.75) == pytest.approx(0.75)
    assert share(1.0, 0.25, 0.25) == pytest.approx(0.5)


def test_the_command_shows_and_saves_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(processors, "_SIDE", 64)
    monkeypatch.setattr(processors, "_CONVOLVED", (8, 9))
    arguments = ["--shapes", "8x9", "--batch-size", "1", "--seconds", "0.01", "--dtype", "bfloat16", "--bounds"]
    assert main(["bench", "layer", *arguments, "--output", str(tmp_path / "bounds.json")]) == 0
    assert "exponentials" in capsys.readouterr().out
    assert '"share": 0.' in (tmp_path / "bounds.json").read_text()
    monkeypatch.setattr("acmix.cli.bench._check_device", lambda *_: "cuda:0")
    monkeypatch.setattr(bench, "machine", lambda: pytest.fail("work before the check"))
    assert main(["bench", "layer", *arguments]) == 2
    assert "--bounds are those of a processor, got --device cuda:0" in capsys.readouterr().err
    assert bench.measure_speeds(torch.float64, 0.01).flops > 0
