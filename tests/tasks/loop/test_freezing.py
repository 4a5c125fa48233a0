"""Frozen parts stay as they are, whatever trains the rest."""

from dataclasses import replace
from itertools import pairwise

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from acmix import InputError
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.networks import create_network
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import freezing, states
from acmix.tasks.loop.progress import Reporting
from tests.tasks.loop.test_distribution import together

SETTINGS = Settings(
    model="test_resnet.r160_in1k",
    epochs=1,
    batch_size=16,
    image_size=32,
    freeze=2,
    average_decay=0.5,
    weight_decay=0.5,
    drop_path=0.5,
)


def network(name="test_resnet.r160_in1k"):
    return create_network(name, num_classes=6)


def frozen(model):
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "acmix_resnet14_small", "test_convnext", "test_vit"])
def test_stages_are_frozen_from_the_stem_on(name):
    kept = []
    for stages in range(5):
        model = network(name)
        freezing.freeze(model, stages, name)
        kept.append(frozen(model))
    head = set(timm.create_model(name).pretrained_cfg["classifier"].split(","))
    assert kept[0]
    assert all(before < after for before, after in pairwise(kept))
    assert not any(parameter.rpartition(".")[0] in head for parameter in kept[-1])
    with pytest.raises(InputError, match=r"^freeze must be 0 to \d, the stages of"):
        freezing.freeze(network(name), 40, name)


def test_patterns_name_parameters_and_parts():
    def names(patterns):
        model = network()
        freezing.freeze(model, patterns, "test")
        return frozen(model)

    assert names("bn1") == {"bn1.weight", "bn1.bias"}
    assert names("layer1, conv1.0.weight") == {"conv1.0.weight"} | names("layer1")
    assert names("layer1.*") == names("layer1") > names("layer1.0.bn?") > {"layer1.0.bn1.bias"}
    for wrong, rule in (
        ("layr1", "names 'layr1', which no parameter of 'test' matches; near are layer1"),
        ("layer1,9x", "names '9x', which no parameter of 'test' matches$"),
        (" , ", "must name at least one part, got ' , '"),
        ("*", "leaves nothing of 'test' to learn, got"),
    ):
        with pytest.raises(InputError, match=rule):
            names(wrong)
    with pytest.raises(InputError, match="'plain' does not tell its stages, got 1"):
        freezing.freeze(nn.Linear(2, 2), 1, "plain")


def test_what_is_frozen_is_named_by_its_largest_parts():
    model = network()
    assert freezing.described(model) is None
    freezing.freeze(model, "conv1,bn1.bias,layer1", "test")
    count = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    words = f"{count:,} of {total:,} parameters in {len(frozen(model))} tensors: conv1, bn1.bias, layer1"
    assert freezing.described(model) == words


def test_frozen_parts_are_evaluated_others_trained():
    model = network()
    freezing.freeze(model, 1, "test")
    freezing.train(model)
    assert not any(part.training for part in (*model.conv1.modules(), model.bn1, *model.layer1.modules()))
    assert all(part.training for part in (model, *model.layer2.modules(), model.fc))


def changed(run, start):
    """Tensors of a checkpoint and of the state beside it that are not as they were in the start weights."""
    state = states.read(states.paths(run)[-1])
    found = [safetensors.torch.load_file(run / "last.safetensors"), state["model"], *[state.get("average", {})]]
    return [{name for name, tensor in weights.items() if not torch.equal(tensor, start[name])} for weights in found]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "average_decay": None, "weight_decay": 0.0},
        {"layer_decay": 0.5, "recompute": True, "precision": "bfloat16"},
        {"model": "acmix_resnet14_small", "image_size": 16, "freeze": "conv1,bn1,layer1,layer3.0.bn2"},
    ],
    ids=["average", "plain", "layers", "acmix"],
)
def test_what_is_frozen_stays_to_the_bit(data, tmp_path, changes):
    settings, told = replace(SETTINGS, **changes), {}
    start = create_network(settings.model, num_classes=6)
    for buffer in start.buffers():
        buffer.add_(1)
    torch.save(start.state_dict(), tmp_path / "start.pt")
    ROOM.fit(
        data,
        settings,
        tmp_path / "run",
        weights=tmp_path / "start.pt",
        workers=0,
        reporting=Reporting(on_start=told.update),
    )
    freezing.freeze(start, settings.freeze, settings.model)
    kept = {*frozen(start), "bn1.running_mean", "layer1.0.bn1.running_var"}
    for names in changed(tmp_path / "run", start.state_dict()):
        assert not names & kept
        # Of what learns, all but what a tiny run leaves alone.
        assert not names or "fc.bias" in names
    assert "fc.bias" in changed(tmp_path / "run", start.state_dict())[1]
    assert told["frozen"] == freezing.described(start)


def test_fresh_weights_that_are_frozen_are_told(data, tmp_path):
    told = {}
    ROOM.fit(data, SETTINGS, tmp_path / "run", workers=0, reporting=Reporting(on_start=told.update))
    assert told["frozen"].endswith("layer2, with fresh weights; --weights gives others")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_keep_what_is_frozen(data, tmp_path, start, strategy):
    # Without batch norm, see test_distribution.
    settings = replace(SETTINGS, model="test_convnext.r160_in1k", batch_size=8, drop_path=0.0, freeze="stem,stages.0")
    weights = tmp_path / "start.pt"
    model = create_network(settings.model, num_classes=6)
    torch.save(model.state_dict(), weights)

    def train(output, **options):
        ROOM.fit(data, settings, output, weights=weights, workers=0, check_images=False, **options)

    assert together(start, 2, lambda: train(tmp_path / "run", strategy=strategy)) == [0, 0]
    settings = replace(settings, batch_size=16)
    train(tmp_path / "alone")
    freezing.freeze(model, settings.freeze, settings.model)
    for names in changed(tmp_path / "run", model.state_dict()):
        assert names == set(model.state_dict()) - frozen(model)
    ours, theirs = (safetensors.torch.load_file(tmp_path / run / "last.safetensors") for run in ("run", "alone"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=2e-4)
