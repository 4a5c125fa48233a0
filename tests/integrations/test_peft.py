"""Adapters of PEFT on the projections of operators: trained, saved, merged, fused and exported."""

import copy
import importlib

import pytest
import timm
import torch

import acmix
from tests.examples import load_example

pytestmark = pytest.mark.integrations
IMAGES = torch.linspace(-2, 2, 2 * 3 * 64 * 64).view(2, 3, 64, 64)


@pytest.fixture(scope="module")
def peft():
    return importlib.import_module("peft")


@pytest.fixture
def network():
    made = timm.create_model("acmix_resnet14_small", num_classes=3, zero_init_last=False)
    images, _ = load_example("drawn").classified(24)
    with torch.no_grad():
        for _ in range(10):
            made(images)
    return made.eval()


def test_adapters_learn_are_saved_merged_fused_and_exported(peft, network, tmp_path):
    example = load_example("lora")
    base, model = copy.deepcopy(network), example.adapted(network)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all("conv2.qkv.lora_" in name or "fc.modules_to_save" in name for name in trained)
    first, last = (example.train(model, steps) for steps in (1, 30))
    assert last < first / 2
    expected = model(IMAGES)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(again(IMAGES), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(IMAGES).float(), expected, rtol=0.05, atol=0.05)
    merged = model.merge_and_unload().eval()
    fused = acmix.fuse(merged)
    assert not fused.fusion_report.left
    for network_of_now in (merged, fused):
        torch.testing.assert_close(network_of_now(IMAGES), expected, rtol=1e-4, atol=1e-4)
    # Checks its answers against the network's.
    acmix.export.to_onnx(merged, tmp_path / "merged.onnx", input_size=(3, 64, 64))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_fusing_before_merging_folds_nothing_away(peft, network, options):
    config = peft.LoraConfig(r=4, target_modules=["qkv"], init_lora_weights=False, **options)
    model = peft.get_peft_model(network, config).eval()
    expected = model(IMAGES)
    with pytest.warns(UserWarning, match="batch norms of PeftModel stay"):
        fused = acmix.fuse(model)
    torch.testing.assert_close(fused(IMAGES), expected)
    # The network within can be followed: norms behind operators with adapters stay, others are folded.
    inner = model.get_base_model()
    fused = acmix.fuse(inner)
    assert any("lora" in str(layer.reason) or "projection" in str(layer.reason) for layer in fused.fusion_report.left)
    torch.testing.assert_close(fused(IMAGES), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.merge_and_unload()(IMAGES), expected, rtol=1e-4, atol=1e-4)
