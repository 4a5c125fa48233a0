"""ONNX files: standard operators, every size, exact, and nothing left behind where they are not."""

import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn
from torch.nn.utils import parametrizations, prune

import acmix
from acmix import ACmix, InputError
from acmix.export import ExportError, stage2, to_onnx, windows
from tests.numerics import assert_as_exact_as_eager
from tests.surgery.test_fusion import trained

SIZES = [(1, 1), (1, 9), (2, 3), (7, 7), (8, 4), (23, 12), (40, 17)]


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]


class Operators(nn.Module):
    """One of every kind: short and long rows of a head, strides, dilations, the input or projections taken."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            (
                ACmix(3, 16),
                ACmix(16, 16, dilation=2, kernel_att=5, kernel_conv=5),
                ACmix(16, 72, stride=2, heads=2, bias=True),
                ACmix(72, 32, heads=8, kernel_att=3),
                ACmix(72, 36, stride=3, kernel_conv=5),
            )
        )

    def forward(self, x):
        return tuple(layer(x.repeat(1, 24, 1, 1)[:, : layer.in_channels]) for layer in self.layers)


@pytest.fixture(scope="module")
def operators():
    made = Operators()
    assert [stage2.ExportedACmix(layer).qkv is None for layer in made.layers] == [True, True, True, False, False]
    return trained(made)


def hold(network, path, images):
    exact = copy.deepcopy(network).double()(images.double())
    for number, outputs in enumerate(zip(run(path, images), network(images), exact, strict=True)):
        assert_as_exact_as_eager(f"output {number} at {tuple(images.shape)}", *(output.detach() for output in outputs))


def test_operators_at_every_size(operators, tmp_path):
    written = to_onnx(operators, tmp_path / "layers.onnx", input_size=(3, 24, 20))
    assert len(written.checks) == 3
    for batch, size in enumerate(SIZES):
        hold(operators, written.path, torch.randn(batch + 1, 3, *size))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 8), (13, 12), (20, 33)], ids=str)
def test_operators_at_one_size(size, operators, tmp_path):
    written = to_onnx(operators, tmp_path / "layers.onnx", input_size=(3, *size), dynamic=False)
    hold(operators, written.path, torch.randn(1, 3, *size))


def test_keys_outside_of_a_window_do_not_count_however_large(tmp_path):
    layer = trained(ACmix(3, 16, kernel_att=3))
    with torch.no_grad():
        layer.qkv.weight *= 4
    written = to_onnx(layer, tmp_path / "layer.onnx", input_size=(3, 12, 12))
    images = torch.randn(1, 3, 12, 12)
    images[..., 5, 6] *= 30
    (found,) = run(written.path, images)
    torch.testing.assert_close(found, layer(images), rtol=1e-3, atol=1e-2)


def test_float16(tmp_path):
    layer = trained(ACmix(3, 16)).half()
    written = to_onnx(layer, tmp_path / "layer.onnx", input_size=(3, 24, 20))
    (found,) = run(written.path, torch.randn(1, 3, 9, 11).half())
    assert found.dtype == torch.float16


@pytest.fixture(scope="module")
def network():
    return trained(acmix.create_model("acmix_resnet14_small", num_classes=3, channels=(8, 8, 16, 16), stem_width=8))


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    return to_onnx(network, path, input_size=(3, 32, 32), metadata={"classes": ["größer", "b", "c"]})


def test_network_at_every_size(network, written):
    for batch, size in enumerate(SIZES):
        images = torch.randn(batch + 1, 3, *size)
        with torch.inference_mode():
            expected = network(images)
        torch.testing.assert_close(run(written.path, images)[0], expected, rtol=1e-4, atol=1e-4)


def test_the_file_holds_standard_operators_alone(written):
    model = onnx.load(written.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", stage2.OPSET)]
    assert list(model.functions) == []
    assert {node.domain for node in model.graph.node} == {""}
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Col2Im", "Loop", "If", "Scan"}
    assert written.operators == len(model.graph.node)
    assert json.loads(model.metadata_props[0].value) == {"classes": ["größer", "b", "c"]}
    taken, given = (
        [size.dim_param or size.dim_value for size in ends[0].type.tensor_type.shape.dim]
        for ends in (model.graph.input, model.graph.output)
    )
    assert taken == ["batch", 3, "height", "width"]
    assert given == ["batch", 3]


def test_relus_that_a_fuse_takes_in(tmp_path):
    # The first operator is given its input, the second projections.
    first = nn.Conv2d(3, 16, 1), nn.ReLU(), ACmix(16, 16), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
    network = trained(nn.Sequential(*first, nn.Conv2d(16, 72, 1), nn.ReLU(), ACmix(72, 32, heads=8), nn.ReLU()))
    fused = acmix.fuse(network)
    assert not any(isinstance(module, nn.ReLU) for module in fused.modules())
    assert [stage2.ExportedACmix(fused[place]).qkv is None for place in (2, 7)] == [True, False]
    to_onnx(network, tmp_path / "network.onnx", input_size=(3, 9, 8))
    nodes = onnx.load(tmp_path / "network.onnx").graph.node
    assert sum(node.op_type == "Relu" for node in nodes) == 4
    images = torch.randn(2, 3, 11, 7)
    (found,), expected = run(tmp_path / "network.onnx", images), network(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.min() == 0


def test_fixed_size_and_several_outputs(tmp_path):
    network = timm.create_model(
        "acmix_resnet14_small", features_only=True, out_indices=(1, 2), channels=(8, 8, 16, 16), stem_width=8
    )
    written = to_onnx(network.eval(), tmp_path / "fixed.onnx", input_size=(3, 33, 20), dynamic=False)
    assert [output.shape for output in run(written.path, torch.zeros(1, 3, 33, 20))] == [
        output.shape for output in network(torch.zeros(1, 3, 33, 20))
    ]
    # Indices are constants then.
    assert not {"Range", "Mod", "Shape"} & {node.op_type for node in onnx.load(written.path).graph.node}


def test_a_mismatch_is_an_error_and_leaves_what_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "_tile_mask", lambda grid, columns: np.zeros((16, grid.keys * columns), "float32"))
    path = tmp_path / "layer.onnx"
    path.write_text("earlier")
    with pytest.raises(ExportError, match=r"for images .* differs from PyTorch by up to .*; no file was kept"):
        to_onnx(trained(ACmix(3, 16)), path, input_size=(3, 24, 20))
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


class NeedsData(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


@pytest.mark.filterwarnings("ignore:the batch norms of NeedsData stay")
def test_bad_arguments(tmp_path):
    layer = ACmix(3, 16)
    for arguments, words in (
        ({"path": tmp_path / "a.onnx", "input_size": (3, 8)}, "input_size must be three positive sizes"),
        ({"path": tmp_path / "a.onnx", "input_size": 24}, "input_size must be three positive sizes"),
        ({"path": tmp_path / "none" / "a.onnx", "input_size": (3, 8, 8)}, "none is not a folder; make it first"),
        ({"path": tmp_path, "input_size": (3, 8, 8)}, "path must be a file, got the folder"),
    ):
        with pytest.raises(InputError, match=words):
            to_onnx(layer, **arguments)
    with pytest.raises(InputError, match="network must be float32 or float16 for ONNX, got torch.bfloat16"):
        to_onnx(layer.bfloat16(), tmp_path / "a.onnx", input_size=(3, 8, 8))
    with pytest.raises(InputError, match="PyTorch cannot export NeedsData: "):
        to_onnx(NeedsData(), tmp_path / "a.onnx", input_size=(3, 8, 8))
    assert list(tmp_path.iterdir()) == []


class Adapter(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.low, self.high = base, nn.Conv2d(3, 2, 1), nn.Conv2d(2, base.out_channels, 1)

    def forward(self, x):
        return self.base(x) + self.high(self.low(x))


def adapt(layer):
    layer.qkv = Adapter(layer.qkv)


@pytest.mark.filterwarnings("ignore:The tensor attribute self.0.qkv.weight was assigned during export")
@pytest.mark.parametrize(
    "change",
    [
        adapt,
        lambda layer: parametrizations.weight_norm(layer.qkv),
        lambda layer: prune.l1_unstructured(layer.qkv, "weight", 0.5),
        lambda layer: layer.register_forward_hook(lambda *all_of_it: 2 * all_of_it[-1]),
        lambda layer: layer.qkv.register_forward_hook(lambda *all_of_it: 2 * all_of_it[-1]),
        lambda layer: setattr(layer.qkv, "bias", None),
    ],
)
def test_what_a_fuse_leaves_is_exported_as_it_is(change, tmp_path):
    network = trained(nn.Sequential(ACmix(3, 8), nn.BatchNorm2d(8)))
    change(network[0])
    written = to_onnx(network, tmp_path / "network.onnx", input_size=(3, 12, 10))
    images = torch.randn(2, 3, 9, 5)
    torch.testing.assert_close(run(written.path, images)[0], network(images), rtol=1e-4, atol=1e-4)


class Alias(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = ACmix(3, 8)
        self.block = nn.Sequential(self.first, nn.ReLU())

    def forward(self, x):
        return self.first(x) - self.block(x)


def test_an_operator_under_two_names(tmp_path):
    network = trained(Alias())
    written = to_onnx(network, tmp_path / "network.onnx", input_size=(3, 12, 10))
    images = torch.randn(1, 3, 7, 9)
    torch.testing.assert_close(run(written.path, images)[0], network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dynamic", [True, False])
def test_onnx_runtime_prepares_the_file_for_quantisation(written, dynamic, network, tmp_path):
    path = written.path
    if not dynamic:
        path = to_onnx(network, tmp_path / "fixed.onnx", input_size=(3, 32, 32), dynamic=False).path
    quant_pre_process(str(path), str(tmp_path / "prepared.onnx"))
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(run(tmp_path / "prepared.onnx", images)[0], run(path, images)[0], rtol=1e-4, atol=1e-4)


class Halving(nn.Module):
    """As networks that join maps of several scales: sizes must be multiples of 2 steps."""

    def __init__(self, steps):
        super().__init__()
        self.layer, self.steps = ACmix(3, 8), steps

    def forward(self, x):
        small = nn.functional.max_pool2d(x, self.steps)
        return self.layer(x) + self.layer(nn.functional.interpolate(small, scale_factor=self.steps))


@pytest.mark.parametrize(
    ("steps", "shapes"),
    [(4, [(1, 3, 36, 32), (3, 3, 40, 48), (2, 3, 24, 24)]), (16, [(1, 3, 48, 32), (3, 3, 48, 48), (2, 3, 32, 32)])],
)
def test_sizes_that_the_network_refuses_are_not_tried(steps, shapes, tmp_path):
    written = to_onnx(trained(Halving(steps)), tmp_path / "network.onnx", input_size=(3, 32, 32))
    assert [check.shape for check in written.checks] == shapes


def test_a_network_that_takes_no_such_image(tmp_path):
    with pytest.raises(InputError, match=r"PyTorch cannot export Halving: "):
        to_onnx(Halving(4), tmp_path / "network.onnx", input_size=(3, 31, 32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_multiples_of_32_where_the_exporter_proves_no_more(tmp_path):
    network = timm.create_model("dla34", num_classes=2).eval()
    written = to_onnx(network, tmp_path / "network.onnx", input_size=(3, 64, 64))
    assert written.step == 32
    assert [check.shape[2:] for check in written.checks] == [(96, 64), (96, 96), (64, 64)]


def test_outputs_that_are_not_finite_are_named(tmp_path):
    network = trained(nn.Sequential(ACmix(3, 8), nn.BatchNorm2d(8), nn.ReLU()))
    network[1].running_var[2] = torch.nan
    words = (
        r"network must have finite outputs, .* first in 1 \(BatchNorm2d\), whose weights or statistics are not finite"
    )
    with pytest.raises(InputError, match=words):
        to_onnx(network, tmp_path / "network.onnx", input_size=(3, 12, 10))
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_zero_are_exact(tmp_path):
    network = nn.Sequential(ACmix(3, 8), nn.BatchNorm2d(8)).eval()
    nn.init.zeros_(network[1].weight)
    assert to_onnx(network, tmp_path / "network.onnx", input_size=(3, 12, 10)).largest_difference == 0
