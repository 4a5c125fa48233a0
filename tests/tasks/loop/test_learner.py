"""Updates: float16 learns every image whatever its scale, and what is not finite leaves no trace."""

import os
import signal
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision, Precision
from timm.optim.muon import _COEFFICIENTS, resolve_ns_coefficients, zeropower_via_newtonschulz
from torch import nn
from torch.amp import GradScaler

from acmix import InputError
from acmix.data.loading import Batch
from acmix.tasks.classification import task
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.networks import create_network
from acmix.tasks.classification.settings import Settings
from acmix.tasks.classification.task import Classification
from acmix.tasks.loop import session, settings, states
from acmix.tasks.loop.learner import Learner
from acmix.tasks.loop.progress import EpochSums, Reporting
from tests.runs import same

SETTINGS = Settings(
    model="test_resnet.r160_in1k",
    epochs=3,
    batch_size=8,
    accumulate=2,
    image_size=16,
    mixup=0.2,
    drop_path=0.2,
    average_decay=0.9,
    clip_norm=1.0,
)
CLASSES = 6


def half(**options):
    """Mixed precision in float16 on a CPU, which Fabric would take for bfloat16."""
    return MixedPrecision("16-mixed", "cpu", GradScaler("cpu", **options))


PRECISIONS = {"float32": Precision, "bfloat16": lambda: MixedPrecision("bf16-mixed", "cpu"), "float16": half}


def make_learner(precision, changes=None, model=None):
    fabric = Fabric(accelerator="cpu", devices=1, plugins=precision)
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten(), nn.Linear(8 * 16, 6)
    model = model or nn.Sequential(*parts)
    own = replace(SETTINGS, **changes or {})
    found = Learner(fabric, model, Classification(own, CLASSES, fabric.device), own, [16] * 4)
    found.model.train()
    return found


def learn(student, number):
    generator = torch.Generator().manual_seed(number)
    batches = [
        Batch(
            images=torch.randn(8, 3, 6, 6, generator=generator),
            labels=torch.randint(CLASSES, (8,), generator=generator),
            names=[f"{number}-{part}-{image}" for image in range(8)],
            unreadable=[],
            seconds=0.0,
        )
        for part in range(2)
    ]
    return student.learn(iter(batches), 16, number, lambda: (False, True), EpochSums().measure)


def test_muon_steps_as_in_float64_on_a_cpu():
    # timm's own is in bfloat16, and off by 2e-3.
    changes = {"optimizer": "muon", "learning_rate": 0.1, "warmup_epochs": 0, "weight_decay": 0.0}
    student = make_learner(Precision(), changes)
    names = "0.weight", "4.weight"
    before = {name: student.model.module.get_parameter(name).detach().clone() for name in names}
    assert learn(student, 0).learned
    state = student.state()["optimizer"]
    (group,) = (group for group in state["param_groups"] if "4.weight" in group["params"])
    coefficients = resolve_ns_coefficients(group["ns_coefficients"], _COEFFICIENTS)
    for name in names:
        step = (before[name] - student.model.module.get_parameter(name)).flatten(1)
        momentum = state["state"][name]["momentum_buffer"].double().flatten(1)
        expected = zeropower_via_newtonschulz(momentum, group["ns_steps"], coefficients, dtype=torch.float64)
        torch.testing.assert_close(step / step.norm(), (expected / expected.norm()).float(), atol=1e-5, rtol=0)


def flat(state, prefix=""):
    """Every number of a state by its place."""
    if not isinstance(state, dict | list | tuple):
        return {prefix: state.clone() if torch.is_tensor(state) else state}
    parts = state.items() if isinstance(state, dict) else enumerate(state)
    return {name: value for key, part in parts for name, value in flat(part, f"{prefix}/{key}").items()}


def differing(found, expected):
    found, expected = flat(found), flat(expected)
    assert found.keys() == expected.keys()
    pairs = ((name, value, expected[name]) for name, value in found.items())
    return [
        name for name, *both in pairs if not (torch.equal(*both) if torch.is_tensor(both[0]) else both[0] == both[1])
    ]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb"])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_an_overflow_at_the_start_loses_nothing(optimizer, clip_norm):
    changes = {"optimizer": optimizer, "clip_norm": clip_norm}
    student = make_learner(half(init_scale=2.0**40), changes)
    update = learn(student, 0)
    assert (update.learned, update.fault, update.told) == (True, None, [0, 1])
    scale = student.state()["precision"]["scale"]
    assert 1 < scale < 2**40
    # As if the scale had been right from the start.
    other = make_learner(half(init_scale=scale), changes)
    assert learn(other, 0).loss == update.loss
    assert differing(student.state(), other.state()) == []


def test_the_rate_is_the_one_that_the_settings_give():
    small = create_network("acmix_resnet14_small", num_classes=CLASSES)
    plain, decayed = (make_learner(Precision(), {"layer_decay": share}, deepcopy(small)) for share in (None, 0.5))
    assert all(learn(student, 0).learned for student in (plain, decayed))
    assert decayed.learning_rate == plain.learning_rate


def test_the_scale_follows_the_gradients():
    student = make_learner(half(init_scale=2.0**14, growth_interval=1))
    scales = []
    for number in range(20):
        assert learn(student, number).learned
        scales.append(student.state()["precision"]["scale"])
    steps = [after / before for before, after in pairwise(scales)]
    # It doubles after every update, also after one that had it halved.
    assert max(steps) == 2
    assert min(steps) <= 1
    assert student.average is not None
    assert all(tensor.isfinite().all() for tensor in student.network.state_dict().values())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb", "nadamw", "lion", "adopt", "adafactor"])
def test_asking_for_the_state_changes_nothing(optimizer):
    looked_at, other = (make_learner(Precision(), {"optimizer": optimizer}) for _ in range(2))
    first = deepcopy(looked_at.state())
    assert first["optimizer"]["state"] == {}
    for number in range(2):
        learn(looked_at, number)
        learn(other, number)
        looked_at.state()
    assert differing(looked_at.state(), other.state()) == []
    # From the first state on, too.
    again = make_learner(Precision(), {"optimizer": optimizer})
    again.restore(first)
    for number in range(2):
        learn(again, number)
    assert differing(again.state(), other.state()) == []


def decay(learner, name, *, decays):
    """Move a parameter into the group that decays, or into the other one."""
    parameter = learner.model.module.get_parameter(name)
    for group in learner._optimizer.param_groups:
        rest = [each for each in group["params"] if each is not parameter]
        group["params"] = [*rest, parameter] if (group["weight_decay"] > 0) == decays else rest


@pytest.mark.parametrize("model", ["acmix_swin_nano", "acmix_pvt_tiny"])
def test_a_state_of_other_groups_of_parameters_is_refused(model):
    # A version before may have decayed positions, or held back an embedding that is a matrix.
    networks = [create_network(model, num_classes=CLASSES) for _ in range(2)]
    before, now = (make_learner(Precision(), {"average_decay": None}, network) for network in networks)
    names = [name for name, parameter in networks[0].named_parameters() if parameter.ndim > 1]
    moved = next(name for name in names if "pos" in name or "table" in name)
    held_back = any(
        group["weight_decay"] == 0 and any(each is networks[0].get_parameter(moved) for each in group["params"])
        for group in before._optimizer.param_groups
    )
    decay(before, moved, decays=held_back)
    weights = deepcopy(networks[1].state_dict())
    refusal = r"^the state is of another version .* with an optimiser of other groups of parameters \(.*\); continue"
    with pytest.raises(InputError, match=refusal):
        now.restore(before.state())
    assert same(networks[1].state_dict(), weights)


def test_a_state_of_another_network_is_refused():
    saved = make_learner(Precision()).state()
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Flatten(), nn.Linear(4 * 16, 6))
    found = make_learner(Precision(), model=other)
    with pytest.raises(InputError, match=r"a network of other tensors \(0.bias, 0.weight, 1.bias, 1.running_mean,"):
        found.restore(saved)
    del saved["optimizer"]
    with pytest.raises(KeyError):
        make_learner(Precision()).restore(saved)


class Faulty(nn.Module):
    """A loss that is not a number or infinite, or gradients that are not finite, in one call."""

    def __init__(self, kind, call):
        super().__init__()
        self.kind, self.call, self.count = kind, call, 0

    def forward(self, logits, targets):
        self.count += 1
        if self.count < self.call:
            return nn.functional.cross_entropy(logits, targets)
        return {
            "loss nan": lambda: logits.sum() * torch.nan,
            "loss inf": lambda: logits.sum() + torch.inf,
            "gradients nan": lambda: (logits * 0).sum().sqrt(),
            "gradients inf": lambda: (logits.sum() * 0 + 1e-45).log() * 1e30,
            # Each is finite, their norm is not.
            "gradients huge": lambda: logits.sum() * 1e30,
        }[self.kind]()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["loss nan", "loss inf", "gradients nan", "gradients inf", "gradients huge"])
def test_what_is_not_finite_leaves_no_trace(monkeypatch, precision, kind):
    # In the second batch of the third update.
    monkeypatch.setattr(task, "training_loss", lambda _: Faulty(kind, 6))
    student = make_learner(PRECISIONS[precision]())
    for number in range(2):
        assert learn(student, number).learned
    before = flat(student.state())
    update = learn(student, 2)
    assert (update.learned, update.fault) == (False, kind.split()[0])
    assert update.names[0] == "2-0-0"
    assert len(update.names) == 16
    # The schedule alone goes on.
    assert {name.rpartition("/")[2] for name in differing(flat(student.state()), before)} == {"lr"}
    assert all(parameter.grad is None for parameter in student.model.parameters())
    # And what comes then is learned as if it had not been.
    student.task._criterion.call = 10**9
    assert learn(student, 3).learned


def test_a_scale_of_one_is_the_least(monkeypatch):
    monkeypatch.setattr(task, "training_loss", lambda _: Faulty("gradients inf", 1))
    student = make_learner(half(init_scale=8.0))
    assert not learn(student, 0).learned
    assert student.state()["precision"]["scale"] == 8
    # Once as it was, then at 4, 2 and 1.
    assert student.task._criterion.count == 4 * 2


@pytest.fixture
def float16(monkeypatch):
    """Let `fit` train in float16 here, with a scale that overflows at the start and again and again."""

    def make_fabric(*_, **__):
        return Fabric(accelerator="cpu", devices=1, plugins=half(init_scale=2.0**20, growth_interval=2))

    monkeypatch.setattr(settings, "_has_accelerator", lambda: True)
    monkeypatch.setattr(session, "make_fabric", make_fabric)


def train(data, output, **options):
    own = replace(SETTINGS, precision="float16", epochs=2, accumulate=1, batch_size=24)
    return ROOM.fit(data, own, Path(output), workers=0, check_images=False, **options)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("float16")
def test_killed_and_resumed_in_float16(data, tmp_path, start):
    told = []
    train(data, tmp_path / "whole", reporting=Reporting(on_problem=told.append))
    assert told == []
    found = states.read(states.paths(tmp_path / "whole")[-1])
    assert found["precision"]["scale"] < 2**20
    reporting = Reporting(
        save_minutes=0.0, on_update=lambda progress: kill() if (progress.epoch, progress.update) == (2, 1) else None
    )
    process = start(lambda: train(data, tmp_path / "run", reporting=reporting))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert states.updates(states.paths(tmp_path / "run")[-1]) == 2
    train(data, tmp_path / "run", resume=True)
    for name in ("best.safetensors", "last.safetensors"):
        found, expected = (safetensors.torch.load_file(tmp_path / run / name) for run in ("run", "whole"))
        assert differing(found, expected) == []
    found, expected = (states.read(states.paths(tmp_path / run)[-1]) for run in ("run", "whole"))
    assert found["precision"] == expected["precision"]
    assert differing(found["optimizer"], expected["optimizer"]) == []
