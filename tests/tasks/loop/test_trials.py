"""What a network is asked before training, the smallest batch that will come."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from acmix import InputError
from acmix.data.sampling import EpochSampler
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import trials
from acmix.tasks.loop.trials import check_batch, check_batches, check_input_size

SETTINGS = Settings(model="test_resnet.r160_in1k", epochs=1, image_size=32)


class Counting(nn.Module):
    """Batch norm on maps of so many cells, and what it was called with."""

    def __init__(self, cells=1):
        super().__init__()
        self.norm, self.pool, self.calls = nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d((1, cells)), []

    def forward(self, images):
        self.calls.append((len(images), self.training))
        return nn.functional.dropout(self.norm(self.pool(images)), training=self.training)


def test_a_check_leaves_no_trace():
    model = Counting(cells=2)
    model.norm.running_mean.fill_(5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    check_input_size(model, "counting", (3, 8, 8))
    check_batch(model, "counting", (3, 8, 8), 1)
    assert model.calls == [(2, False), (1, True)]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert model.training
    check_batch(model.eval(), "counting", (3, 8, 8), 1)
    assert not model.training
    with pytest.raises(InputError, match=r"'counting' does not accept images of \(4, 8, 8\): .*; choose another size"):
        check_input_size(model, "counting", (4, 8, 8))


def test_batch_norm_of_one_number_is_refused():
    with pytest.raises(
        InputError, match=r"cannot learn from a batch of one image of \(3, 8, 8\): Expected more than 1 "
    ):
        check_batch(Counting(), "counting", (3, 8, 8), 1)
    check_batch(Counting(), "counting", (3, 8, 8), 2)
    check_batch(nn.LayerNorm(8), "norm", (3, 8, 8), 1)


@given(
    *(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3)),
    st.booleans(),
)
def test_the_smallest_batch_is_known(count, batch_size, accumulate, processes, synchronize):
    options = {"batch_size": min(batch_size, count), "accumulate": accumulate, "processes": processes}
    assume(count >= min(2, batch_size, count) * accumulate * processes)
    samplers = [EpochSampler(count, **options, rank=rank) for rank in range(processes)]
    steps = list(zip(*samplers, strict=True))
    asked = []
    settings = replace(SETTINGS, batch_size=batch_size, accumulate=accumulate, synchronize_norms=synchronize)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trials, "check_batch", lambda *arguments: asked.append(arguments[-1]))
        check_batches(nn.Identity(), settings, (3, 8, 8), samplers[0].update_sizes, processes)
    if not synchronize:
        assert asked == [min(len(batch) for step in steps for batch in step)]
    else:
        assert asked[0] <= min(sum(map(len, step)) for step in steps)
        assert (asked[0] == 1) == (processes == 1 and min(len(batch) for batch in samplers[0]) == 1)
