"""ONNX files: standard operators, every size, exact, and nothing left behind where they are not."""

import copy
import json

import onnx
import onnxruntime
import pytest
import timm
import torch
from torch import nn

import acmix
from acmix import ACmix, InputError
from acmix.export import ExportError, stage2, to_onnx
from tests.numerics import assert_as_exact_as_eager
from tests.surgery.test_fusion import trained

SIZES = [(1, 1), (1, 9), (2, 3), (7, 7), (8, 4), (23, 12), (40, 17)]


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]


def test_operators_at_every_size(tmp_path):
    layers = trained(
        nn.Sequential(
            ACmix(3, 16),
            ACmix(16, 16, dilation=2, kernel_att=5, kernel_conv=5),
            ACmix(16, 8, stride=2, heads=2, bias=True),
            ACmix(8, 16, heads=8, stride=3, kernel_att=3),
        )
    )
    written = to_onnx(layers, tmp_path / "layers.onnx", input_size=(3, 24, 20))
    assert len(written.checks) == 3
    wide = copy.deepcopy(layers).double()
    for batch, size in enumerate(SIZES):
        images = torch.randn(batch + 1, 3, *size)
        (found,) = run(written.path, images)
        assert_as_exact_as_eager(f"output at {size}", found, layers(images).detach(), wide(images.double()).detach())


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
    assert [size.dim_param != "" for size in model.graph.input[0].type.tensor_type.shape.dim] == [
        True,
        False,
        True,
        True,
    ]


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
    monkeypatch.setattr(stage2, "_mask", lambda *_: stage2.np.zeros((1, 1), "float32"))
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
