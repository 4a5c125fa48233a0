import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from acmix import InputError
from acmix.data import sampling
from acmix.data.sampling import EpochSampler, evaluation_batches


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(sampling, "_WINDOW", 7)


def epoch_of(sampler, epoch=0, update=0):
    sampler.start_at(epoch, update)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


SHAPES = {
    "count": st.integers(40, 200),
    "batch_size": st.integers(1, 9),
    "accumulate": st.integers(1, 3),
    "processes": st.integers(1, 5),
    "sharded": st.booleans(),
}


def samplers(count, batch_size, accumulate, processes, sharded):
    lengths = None
    if sharded:
        lengths = [11, 0, 3, 25, count - 39]
    return [
        EpochSampler(
            count,
            batch_size=batch_size,
            accumulate=accumulate,
            processes=processes,
            rank=rank,
            seed=3,
            shard_lengths=lengths,
        )
        for rank in range(processes)
    ]


@given(**SHAPES)
def test_an_epoch_draws_every_image_once(**shape):
    ranks = [epoch_of(sampler) for sampler in samplers(**shape)]
    draws = [draw for rank in ranks for batch in rank for draw in batch]
    assert sorted(draw.index for draw in draws) == list(range(shape["count"]))
    assert sorted(draw.position for draw in draws) == list(range(shape["count"]))
    # All processes take part in every update, with two images at least where a batch has two.
    assert len({len(rank) for rank in ranks}) == 1
    least = min(2, shape["batch_size"])
    sizes = [len(batch) for rank in ranks for batch in rank]
    assert least <= min(sizes) <= max(sizes) <= shape["batch_size"] + 2
    # Processes differ by one image.
    for batches in zip(*ranks, strict=True):
        assert max(map(len, batches)) - min(map(len, batches)) <= 1


@given(**SHAPES, update=st.integers(0, 3))
def test_an_epoch_continues_at_any_update(update, **shape):
    for sampler in samplers(**shape):
        first = min(update, len(sampler.update_sizes))
        assert epoch_of(sampler, 1, first) == epoch_of(sampler, 1)[first * shape["accumulate"] :]


@given(**(SHAPES | {"sharded": st.just(False)}))
def test_updates_do_not_depend_on_how_they_are_shared(**shape):
    alone = EpochSampler(
        shape["count"], batch_size=shape["batch_size"] * shape["accumulate"] * shape["processes"], seed=3
    )
    ranks = [epoch_of(sampler, 2) for sampler in samplers(**shape)]
    together = []
    for update in range(len(ranks[0]) // shape["accumulate"]):
        parts = slice(update * shape["accumulate"], (update + 1) * shape["accumulate"])
        together.append([draw for rank in ranks for batch in rank[parts] for draw in batch])
    flat = list(itertools.chain.from_iterable(together))
    assert flat == [draw for batch in epoch_of(alone, 2) for draw in batch]


def test_epochs_and_seeds_differ():
    sampler = EpochSampler(50, batch_size=10, seed=1)
    orders = [[draw.index for batch in epoch_of(sampler, epoch) for draw in batch] for epoch in (0, 1)]
    other = EpochSampler(50, batch_size=10, seed=2)
    orders.append([draw.index for batch in epoch_of(other) for draw in batch])
    assert len(set(map(tuple, orders))) == 3


def test_shards_are_read_one_after_the_other():
    lengths = [7] * 10
    sampler = EpochSampler(70, batch_size=7, seed=1, shard_lengths=lengths)
    shards = [{draw.index // 7 for draw in batch} for batch in epoch_of(sampler)]
    assert [len(found) for found in shards] == [1] * 10
    assert len(set.union(*shards)) == 10
    assert [found.pop() for found in shards] != list(range(10))


def test_repeated_images_keep_the_epoch_its_length():
    sampler = EpochSampler(50, batch_size=10, seed=1, repeats=3)
    draws = [draw for batch in epoch_of(sampler) for draw in batch]
    assert len(draws) == 50
    assert len({draw.index for draw in draws}) == 17
    # Each copy is augmented anew: by position.
    assert len({draw.position for draw in draws}) == 50


def test_too_few_images():
    with pytest.raises(InputError, match="2 processes x 3 batches needs at least 12, got 11"):
        EpochSampler(11, batch_size=8, accumulate=3, processes=2)
    with pytest.raises(InputError, match="repeats must be 1"):
        EpochSampler(10, batch_size=2, repeats=2, shard_lengths=[10])
    with pytest.raises(InputError, match="3 processes need at least as many, got 2"):
        evaluation_batches(2, batch_size=8, processes=3)


@example(count=5, batch_size=1, processes=2)
@example(count=90, batch_size=1, processes=4)
@given(count=st.integers(4, 90), batch_size=st.integers(1, 9), processes=st.integers(1, 4))
def test_evaluation_sees_every_image_once(count, batch_size, processes):
    ranks = [
        evaluation_batches(count, batch_size=batch_size, processes=processes, rank=rank) for rank in range(processes)
    ]
    assert [index for rank in ranks for batch in rank for index in batch] == list(range(count))
    assert len({len(rank) for rank in ranks}) == 1
    assert all(0 < len(batch) <= batch_size + 1 for rank in ranks for batch in rank)


@given(
    counts=st.lists(st.integers(0, 25), min_size=1, max_size=3).filter(lambda counts: sum(counts) > 7),
    batch_size=st.integers(1, 4),
    processes=st.integers(1, 2),
    seed=st.integers(0, 5),
)
def test_batches_are_of_one_group_and_an_epoch_is_whole(counts, batch_size, processes, seed):
    groups = np.repeat(np.arange(len(counts)), counts)
    drawn, mixed = [], 0
    for rank in range(processes):
        sampler = EpochSampler(
            len(groups), batch_size=batch_size, processes=processes, rank=rank, seed=seed, groups=groups
        )
        sampler.start_at(3)
        for number, batch in enumerate(sampler):
            drawn += [(draw.position, draw.index) for draw in batch]
            whole = sampler.update_sizes[number] == batch_size * processes
            places = sum(sampler.update_sizes[:number])
            # The rest of every group stands at the end.
            rest = places + sampler.update_sizes[number] > sum(count // batch_size * batch_size for count in counts)
            mixed += whole and not rest and len({int(groups[draw.index]) for draw in batch}) > 1
    assert mixed == 0
    assert sorted(index for _, index in drawn) == list(range(len(groups)))
    assert sorted(position for position, _ in drawn) == list(range(len(groups)))
