"""Updates of a task that is no classification, driven without a run folder."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision, Precision
from torch import nn
from torch.amp import GradScaler
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, MetricCollection

from acmix.data.sampling import EpochSampler
from acmix.tasks.loop.learner import Learner
from acmix.tasks.loop.settings import LoopSettings
from acmix.tasks.loop.task import Batches
from acmix.tasks.loop.updates import Updates

SETTINGS = LoopSettings(
    model="", epochs=2, batch_size=4, accumulate=2, average_decay=0.9, optimizer="sgd", momentum=0.5
)
# Three updates an epoch, the last one of four images.
COUNT = 20


@dataclass
class Points:
    """Numbers to double, by the places where they were drawn."""

    inputs: torch.Tensor
    names: list[str]
    unreadable: list[tuple[str, str]]
    seconds: float = 0.001


class Doubling:
    """Least squares; at some calls the loss is not finite, or its gradient overflows in float16 alone."""

    def __init__(self, nan=(), large=()):
        self.nan, self.large, self.calls, self.seen = nan, large, 0, []
        self.metrics: Any = MetricCollection({"val_error": MeanMetric()})

    def loss(self, network, batch):
        self.calls += 1
        self.seen.append(batch.names)
        error = (network(batch.inputs) - 2 * batch.inputs).square().mean()
        return error * (torch.nan if self.calls in self.nan else 1e6 if self.calls in self.large else 1)

    def measure(self, network, batch):
        self.metrics.update((network(batch.inputs) - 2 * batch.inputs).abs().mean())


def collate(draws, unreadable=()):
    at = torch.tensor([float(draw.index) for draw in draws])[:, None] / COUNT
    return Points(at, [str(draw.index) for draw in draws], [(str(name), f"{name} is damaged") for name in unreadable])


class Drawn(torch.utils.data.Dataset):
    def __getitem__(self, draw):
        return draw


def make(task, settings=SETTINGS, precision=Precision, unreadable=()):
    fabric = Fabric(accelerator="cpu", devices=1, plugins=precision())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    sampler = EpochSampler(COUNT, batch_size=settings.batch_size, accumulate=settings.accumulate)
    loader = DataLoader(Drawn(), batch_sampler=sampler, collate_fn=lambda draws: collate(draws, unreadable))
    batches = Batches(training=loader, sampler=sampler, validation=())
    problems = []
    learner = Learner(fabric, model, task, settings, sampler.update_sizes)
    return Updates(fabric, learner, batches, lambda *problem: problems.append(problem)), problems


def numbers(updates):
    learner = updates.learner
    return {
        f"{place} {name}": value.clone()
        for place, network in (("network", learner.model.module), ("average", learner.network))
        for name, value in network.state_dict().items()
    }


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def nothing():
    return False, False


def test_an_epoch_learns_from_every_image_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    updates, problems = make(task := Doubling())
    before = numbers(updates)
    places = [(updates.update, told) for told in updates.rest_of_epoch(lambda: (True, False))]
    assert places == [(1, [1, 0]), (2, [1, 0]), (3, [1, 0])]
    # Two batches an update, the last one of half the size.
    assert [len(names) for names in task.seen] == [4, 4, 4, 4, 2, 2]
    assert sorted(int(name) for names in task.seen for name in names) == list(range(COUNT))
    assert (updates.sums.images, updates.sums.learned, updates.count) == (COUNT, COUNT, 3)
    after = numbers(updates)
    assert not any(torch.equal(value, after[name]) for name, value in before.items() if name.endswith("weight"))
    # The average lags behind.
    assert not torch.equal(after["network 0.weight"], after["average 0.weight"])
    assert problems == []
    updates.next_epoch()
    assert (updates.epoch, updates.update, updates.sums.images) == (1, 0, 0)
    assert [*tmp_path.iterdir()] == []


def test_accumulated_batches_are_one_update():
    def after(accumulate, batch_size):
        settings = replace(SETTINGS, accumulate=accumulate, batch_size=batch_size)
        updates, _ = make(Doubling(), settings)
        # Batch statistics differ.
        updates.learner.model.module[1].eval()
        updates.learner.model.train = lambda: None
        assert [*updates.rest_of_epoch(nothing)]
        return numbers(updates)

    one, other = after(1, 8), after(2, 4)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])


def test_what_is_not_finite_is_no_update_and_is_told():
    # Both batches of the second update, one of the third.
    updates, problems = make(Doubling(nan={3, 4, 6}))
    seen = [(updates.failures, numbers(updates)) for _ in updates.rest_of_epoch(nothing)]
    assert [failures for failures, _ in seen] == [0, 1, 2]
    assert same(seen[0][1], seen[2][1])
    assert (updates.sums.images, updates.sums.learned) == (COUNT, 8)
    assert [(problem["problem"], problem["update"], len(problem["images"])) for problem, _ in problems] == [
        ("loss not finite", 2, 8),
        ("loss not finite", 3, 4),
    ]
    assert all("update skipped" in sentence for _, sentence in problems)
    updates.next_epoch()
    for _ in updates.rest_of_epoch(nothing):
        assert updates.failures == 0


def test_the_scaler_skips_a_step_and_the_update_is_learned_again():
    def half():
        return MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=2.0**16))

    # In the second update gradients overflow at this scale; when it is learned again they do not.
    updates, problems = make(task := Doubling(large={3, 4}), precision=half)
    assert len([*updates.rest_of_epoch(nothing)]) == 3
    assert updates.state()["precision"]["scale"] < 2**16
    assert task.seen[2:4] == task.seen[4:6]
    assert (updates.sums.learned, updates.failures, problems) == (COUNT, 0, [])
    assert all(value.isfinite().all() for value in numbers(updates).values())


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_state_continues_to_the_bit(stop_after):
    (whole, _), (first, _) = make(Doubling()), make(Doubling())
    # PyTorch makes an optimiser's state by a step when it is first asked for; a run asks before its first update.
    for updates in (whole, first):
        assert updates.state()["updates"] == 0
    for _ in range(2):
        assert [*whole.rest_of_epoch(nothing)]
        whole.next_epoch()
    for _ in first.rest_of_epoch(nothing) if stop_after else ():
        if first.update == stop_after:
            break
    second, _ = make(Doubling())
    second.restore(first.state())
    assert (second.epoch, second.update, second.count) == (0, stop_after, stop_after)
    for _ in range(2):
        assert len([*second.rest_of_epoch(nothing)]) in (3 - stop_after, 3)
        second.next_epoch()
    assert same(numbers(whole), numbers(second))


def test_unreadable_images_are_told_once():
    updates, problems = make(Doubling(), unreadable=(3, 5))
    assert [*updates.rest_of_epoch(nothing)]
    assert updates.unreadable == {"3": "3 is damaged", "5": "5 is damaged"}
    assert [problem["image"] for problem, _ in problems] == ["3", "5"]
    assert problems[0][1] == "3 is damaged; another image takes its place"


def test_progress_counts_what_is_left():
    updates, _ = make(Doubling())
    next(iter(updates.rest_of_epoch(nothing)))
    progress = updates.progress()
    assert (progress.epoch, progress.update, progress.updates) == (1, 1, 3)
    # Of two epochs five updates are left.
    assert progress.seconds_left == pytest.approx(5 * updates.sums.seconds)
    assert progress.loss == updates.sums.loss / 8
