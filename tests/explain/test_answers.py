"""Every backend's answer to the same images."""

import pytest
import torch

from acmix import InputError, explain, ops
from acmix.nn import ACmix


def network(**options):
    layers = [ACmix(3, 8, heads=2, **options), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(8, 5)).eval()


def test_every_backend_answers_and_the_network_stays():
    model, images = network(backend="portable"), torch.randn(2, 3, 9, 9)
    weights = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    answers = explain.compare_backends(model, images, seconds=0.01)
    assert tuple(answer.backend for answer in answers) == ops.backends()
    with torch.no_grad():
        expected = model(images)
    for answer in answers:
        assert answer.refusal is None
        torch.testing.assert_close(answer.logits, expected)
        assert 0 < answer.error < 1e-5
        assert answer.seconds > 0
    assert model[0].backend == "portable"
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == weights
    assert model[0].qkv.weight.dtype == torch.float32


@pytest.mark.skipif("cpu" not in ops.backends(), reason="the compiled kernels are missing")
def test_a_backend_that_cannot_says_why():
    answers = explain.compare_backends(network(dilation=2), torch.randn(1, 3, 9, 9), seconds=0.01)
    by_name = {answer.backend: answer for answer in answers}
    assert "dilation" in by_name["cpu"].refusal
    assert by_name["cpu"].logits is None
    assert by_name["portable"].refusal is None


def test_networks_without_layers_are_refused():
    with pytest.raises(InputError, match="no ACmix layer"):
        explain.compare_backends(torch.nn.Conv2d(3, 3, 1), torch.randn(1, 3, 4, 4))
