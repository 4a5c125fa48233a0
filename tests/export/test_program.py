"""PyTorch's exported programs and packages."""

import os
import shutil

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from acmix import ACmix, InputError
from acmix.export import ExportError, to_package, to_program
from tests.surgery.test_fusion import trained


def test_program_of_one_size_round_trips(tmp_path):
    first = nn.Conv2d(3, 3, 1), nn.ReLU()
    network = trained(nn.Sequential(*first, ACmix(3, 8, stride=2), nn.BatchNorm2d(8), nn.ReLU()))
    program = to_program(network, input_size=(3, 17, 20), dynamic=False)
    assert not any("acmix" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    images = torch.randn(1, 3, 17, 20)
    torch.testing.assert_close(loaded(images), network(images))


class Fickle(nn.Conv2d):
    """Computes otherwise where it is exported."""

    def forward(self, x):
        return super().forward(x) * (2 if torch.compiler.is_exporting() else 1)


def test_a_program_that_computes_something_else_is_an_error():
    with pytest.raises(ExportError, match=r"for images \(1, 3, 9, 8\) the program differs from PyTorch by up to"):
        to_program(Fickle(3, 8, 3), input_size=(3, 9, 8), dynamic=False)


class Uneven(nn.Module):
    """Outputs of very different sizes, the small one other where it is exported."""

    def __init__(self):
        super().__init__()
        self.large, self.small = nn.Conv2d(3, 8, 3), Fickle(3, 8, 3)

    def forward(self, x):
        return {"large": 1e6 * self.large(x), "small": 1e-3 * self.small(x)}


def test_a_small_output_that_is_something_else_is_an_error_beside_a_large_one():
    with pytest.raises(ExportError, match=r"relative error 1\.0e\+00 against float64"):
        to_program(Uneven(), input_size=(3, 9, 8), dynamic=False)


class NotFinite(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) / (0 if torch.compiler.is_exporting() else 1)


def test_one_output_that_is_not_finite_is_an_error():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), NotFinite(3, 8, 3)

        def forward(self, x):
            return self.first(x), self.second(x)

    with pytest.raises(ExportError, match="relative error inf against float64"):
        to_program(Both(), input_size=(3, 9, 8), dynamic=False)


class InFloat32(nn.Conv2d):
    """Makes numbers of its own in one dtype."""

    def forward(self, x):
        return super().forward(x) @ torch.ones(6, 6)


class Counting(nn.Conv2d):
    def forward(self, x):
        super().forward(x)
        return 8


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (InFloat32(3, 8, 3), "network must compute in float64, too, against which the program is held, got: expected"),
        (Counting(3, 8, 3), "network must return tensors, Counting returns none"),
    ],
)
def test_a_network_that_cannot_be_checked_is_refused(network, told):
    with pytest.raises(InputError, match=told):
        to_program(network, input_size=(3, 9, 8), dynamic=False)


def test_a_network_with_hooks_and_parametrisations_is_exported():
    network = trained(nn.Sequential(ACmix(3, 8), nn.BatchNorm2d(8)))
    parametrizations.weight_norm(network[0].qkv)
    network[1].register_forward_hook(lambda *all_of_it: 2 * all_of_it[-1])
    images = torch.randn(1, 3, 9, 8)
    program = to_program(network, input_size=(3, 9, 8), dynamic=False)
    torch.testing.assert_close(program.module()(images), network(images))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="AOTInductor needs a C++ compiler")
def test_package(tmp_path):
    layer = trained(ACmix(2, 4, heads=2, kernel_att=3))
    path = to_package(layer, tmp_path / "layer.pt2", input_size=(2, 5, 6), dynamic=False)
    images = torch.randn(1, 2, 5, 6)
    torch.testing.assert_close(torch._inductor.aoti_load_package(str(path))(images), layer(images))


def test_sizes_of_which_a_map_is_one_cell_are_a_case_of_their_own():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 8, 8, padding=4), ACmix(4, 4, heads=2, kernel_att=3, stride=2)).eval()
    with pytest.raises(
        InputError, match=r"input_size \(2, 12, 12\) leaves Sequential maps of a single row .* up to 15 alone"
    ):
        to_program(network, input_size=(2, 12, 12))
    # Two thirds of these would be.
    module = to_program(network, input_size=(2, 18, 17)).module()
    for size in ((16, 16), (40, 17)):
        images = torch.randn(3, 2, *size)
        torch.testing.assert_close(module(images), network(images))


def test_bad_arguments(tmp_path, monkeypatch):
    layer = ACmix(3, 8)
    with pytest.raises(InputError, match="input_size must be three positive sizes"):
        to_program(layer, input_size=(3, 8))
    with pytest.raises(InputError, match=r"path must end in \.pt2"):
        to_package(layer, tmp_path / "layer.so", input_size=(3, 8, 8))
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(InputError, match="path must be a file, got the folder"):
        to_package(layer, tmp_path / "folder.pt2", input_size=(3, 8, 8))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="AOTInductor needs a C\\+\\+ compiler, no-such-compiler is not there"):
        to_package(layer, tmp_path / "layer.pt2", input_size=(3, 8, 8))
