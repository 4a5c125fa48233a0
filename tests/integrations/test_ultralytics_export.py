"""Files that `YOLO.export` writes of networks with operators, run by Ultralytics' own back ends beside the network."""

import itertools
from pathlib import Path

import pytest
import torch

import acmix
from tests.integrations.pictures import operators, stir

pytestmark = pytest.mark.integrations
SIZE = 96
# Largest difference, as a share of the largest output.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def checkpoint(_alone, tmp_path_factory):
    """A network with operators in a block of its deepest stage and a strided convolution of its neck."""
    from ultralytics import YOLO

    from acmix.integrations import ultralytics

    ultralytics.register()
    torch.manual_seed(0)
    model = YOLO("yolo11n.yaml")
    acmix.replace_convolutions(model.model, select=["model.8.*", "model.17.*"])
    stir(model.model)
    path = tmp_path_factory.mktemp("export") / "network.pt"
    model.save(path)
    return path


def runner(kind, path):
    """What Ultralytics runs the file with; OpenVINO without the bfloat16 that it prefers."""
    from ultralytics.nn.autobackend import AutoBackend

    if kind == "openvino":
        import openvino

        (description,) = Path(path).glob("*.xml")
        compiled = openvino.Core().compile_model(description, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda images: torch.from_numpy(compiled([images.numpy()])[0])
    return AutoBackend(path, device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("kind", "dynamic"), [*itertools.product(["torchscript", "onnx", "openvino"], [False, True]), ("ncnn", False)]
)
@torch.no_grad()
def test_what_is_exported_computes_the_same(checkpoint, kind, dynamic):
    from ultralytics import YOLO

    model = YOLO(checkpoint)
    network = model.model.eval()
    run = runner(kind, model.export(format=kind, imgsz=SIZE, dynamic=dynamic, device="cpu"))
    assert {type(operator) for operator in operators(network).values()} == {acmix.ACmix}
    for batch, height, width in [(1, SIZE, SIZE)] + [(2, 64, 160), (1, 32, 32)] * dynamic:
        images = torch.rand(batch, 3, height, width)
        expected = network(images)[0]
        found = run(images)
        found = found[0] if isinstance(found, list | tuple) else found
        assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
