"""Networks are asked before training; start weights of any trainer."""

import argparse
from dataclasses import replace

import pytest
import torch
from timm.utils import CheckpointSaver, ModelEmaV3

from acmix import InputError
from acmix.cli import main
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.networks import create_network, load_start_weights
from acmix.tasks.classification.settings import Settings

NAME = "acmix_resnet14_small"
SETTINGS = Settings(model="test_resnet.r160_in1k", epochs=1, image_size=32)


def test_a_run_is_refused_before_it_begins(data, tmp_path):
    for changes in ({"batch_size": 1}, {"batch_size": 1, "accumulate": 3}):
        with pytest.raises(InputError, match="cannot learn from a batch of one image"):
            ROOM.fit(data, replace(SETTINGS, **changes), tmp_path / "run", workers=0, check_images=False)
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_is_refused_before_it_begins(capsys):
    arguments = ["bench", "model", "--batch-size", "1", "--input-size", "32", "--models", "resnet18"]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("acmix bench model: error: model 'resnet18' cannot learn from a batch of one image")
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def with_other_weights(name=NAME, num_classes=4):
    network = create_network(name, num_classes=num_classes)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1)
    return network


def equal(one, other):
    return [name for name, tensor in one.state_dict().items() if torch.equal(tensor, other.state_dict()[name])]


def saved_by_timm(folder, network, *, average=None, wrap=lambda network: network):
    arguments = argparse.Namespace(model="resnet", lr=0.1, input_size=(3, 32, 32), amp=True, opt_betas=None)
    optimizer = torch.optim.AdamW(network.parameters())
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    saver = CheckpointSaver(
        wrap(network),
        optimizer,
        args=arguments,
        model_ema=average,
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
        unwrap_fn=lambda model: model,
    )
    saver.save_checkpoint(epoch=3, metric=71.5)
    return folder / "last.pth.tar"


@pytest.mark.parametrize("wrap", [lambda network: network, torch.nn.DataParallel, torch.compile])
def test_checkpoints_of_timm(tmp_path, wrap):
    network = with_other_weights()
    path = saved_by_timm(tmp_path, network, wrap=wrap)
    started = create_network(NAME, num_classes=4)
    said = load_start_weights(started, path)
    assert equal(started, network) == list(network.state_dict())
    count = len(network.state_dict())
    assert said == f"weights {path}, state_dict: {count} of {count} tensors loaded"


def test_the_average_of_timm_is_taken(tmp_path):
    network = with_other_weights()
    average = ModelEmaV3(network)
    path = saved_by_timm(tmp_path, network, average=average)
    started = create_network(NAME, num_classes=4)
    assert f"weights {path}, state_dict_ema (not state_dict): " in load_start_weights(started, path)
    assert equal(started, average.module) == list(started.state_dict())
    assert equal(started, network) != list(started.state_dict())


def test_networks_of_two_heads(tmp_path):
    name = "deit_tiny_distilled_patch16_224"
    network = with_other_weights(name)
    torch.save({"model": network.state_dict()}, tmp_path / "weights.pth")
    started = create_network(name, num_classes=7)
    said = load_start_weights(started, tmp_path / "weights.pth")
    heads = ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]
    assert said.endswith(f"left as they were: {', '.join(heads)}")
    assert equal(started, network) == [name for name in started.state_dict() if name not in heads]
    same = create_network(name, num_classes=4)
    load_start_weights(same, tmp_path / "weights.pth")
    assert equal(same, network) == list(network.state_dict())


def test_networks_without_a_head_of_their_own(tmp_path):
    network = with_other_weights(num_classes=0)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    started = create_network(NAME, num_classes=4)
    assert load_start_weights(started, tmp_path / "weights.pth").endswith("left as they were: fc.weight, fc.bias")
    torch.save(started.state_dict(), tmp_path / "weights.pth")
    assert load_start_weights(network, tmp_path / "weights.pth").endswith("not used: fc.weight, fc.bias")


def test_another_shape_that_is_no_head_is_refused(tmp_path):
    network = with_other_weights()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    started = create_network(NAME, num_classes=7, in_chans=1)
    before = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    with pytest.raises(InputError, match=r"do not fit the model: .*wrong shape: conv1.*must be \(\d+, 1, 3, 3\), got"):
        load_start_weights(started, tmp_path / "weights.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in started.state_dict().items())


@pytest.mark.parametrize("classifier", [None, "", (), "absent"])
def test_networks_that_name_no_head(tmp_path, classifier):
    network = with_other_weights()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    started = create_network(NAME, num_classes=4)
    started.pretrained_cfg = {"classifier": classifier}
    load_start_weights(started, tmp_path / "weights.pth")
    assert equal(started, network) == list(network.state_dict())


def test_nothing_is_dropped_where_nothing_is_to_be():
    def dropped(**options):
        network = create_network("swin_tiny_patch4_window7_224", num_classes=2, **options)
        return max(getattr(module, "drop_prob", None) or 0 for module in network.modules())

    assert dropped() == dropped(drop_path_rate=None) > 0
    assert dropped(drop_path_rate=0.0) == 0
    # A network without such branches drops none.
    with pytest.raises(InputError, match="model 'vgg11' takes no drop_path; leave it out"):
        create_network("vgg11", num_classes=2, drop_path_rate=0.1)
    create_network("vgg11", num_classes=2, drop_path_rate=0.0)
