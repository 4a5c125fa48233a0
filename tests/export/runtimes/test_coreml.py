"""CoreML: conversion anywhere, results on macOS."""

import sys

import coremltools
import pytest
import torch
from torch import nn
from torch.export import Dim

import acmix
from examples import runtimes
from tests.export.runtimes.networks import largest_difference


def test_networks(case, tmp_path):
    network, images = case
    run = runtimes.coreml(network, images, tmp_path)
    assert (tmp_path / "network.mlpackage").is_dir()
    if sys.platform == "darwin":
        largest_difference(run, network, images, torch.randn_like(images))


class Select(nn.Module):
    """Rows of x that a function of their numbers picks."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return x.index_select(0, self.function(torch.arange(x.shape[0])))


def convert_with_dynamic_rows(module):
    program = torch.export.export(module, (torch.randn(6, 3),), dynamic_shapes=({0: Dim.DYNAMIC},))
    target = coremltools.target.iOS17
    coremltools.convert(program.run_decompositions({}), minimum_deployment_target=target, skip_model_load=True)


@pytest.mark.parametrize("function", [lambda rows: rows.clamp(max=3), lambda rows: rows // 4], ids=["clamp", "divide"])
def test_integers_become_floating_point_numbers(function):
    """So indices are cast (`places`), which helps; when this fails, they need not be."""
    with pytest.raises(ValueError, match="index_select"):
        convert_with_dynamic_rows(Select(function))
    convert_with_dynamic_rows(Select(lambda rows: function(rows).int()))


def test_every_size_is_converted():
    program = acmix.export.to_program(acmix.ACmix(4, 16).eval(), input_size=(4, 12, 10), dynamic=True)
    target = coremltools.target.iOS17
    coremltools.convert(program.run_decompositions({}), minimum_deployment_target=target, skip_model_load=True)


def test_there_is_no_maximum_of_symbols():
    """So sizes are bounded as tensors (`geometry.location`)."""
    with pytest.raises(NotImplementedError, match="sym_max"):
        convert_with_dynamic_rows(AtLeastOne())


class AtLeastOne(nn.Module):
    def forward(self, x):
        return x / torch.sym_max(x.shape[0] - 1, 1)
