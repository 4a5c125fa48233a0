import torch
from hypothesis import given
from hypothesis import strategies as st

from acmix.data.labels import LabelSets, in_words, labels_of, relabelled, relabelled_all, taken, target_of

SETS = st.lists(st.sets(st.integers(0, 9), max_size=5), max_size=20)


@given(SETS, st.randoms())
def test_sets_come_back(sets, random):
    labels = LabelSets(sets)
    assert list(labels) == [tuple(sorted(each)) for each in sets]
    order = random.sample(range(len(sets)), len(sets) // 2)
    assert list(taken(labels, order)) == [labels[index] for index in order]
    assert list(labels[1:]) == list(labels)[1:]


@given(SETS, st.permutations(range(10)))
def test_other_classes(sets, places):
    turned = relabelled_all(LabelSets(sets), places)
    assert list(turned) == [tuple(sorted(places[label] for label in each)) for each in sets]
    assert list(turned) == [relabelled(each, places) for each in LabelSets(sets)]
    assert list(relabelled_all([3, 0], places)) == [places[3], places[0]]


def test_targets_and_words():
    assert target_of(2, 4) == 2
    assert torch.equal(target_of((0, 3), 4), torch.tensor([1.0, 0, 0, 1]))
    assert torch.equal(target_of((), 2), torch.zeros(2))
    assert (labels_of(2), labels_of((1, 2))) == ((2,), (1, 2))
    assert [in_words(label, "abc") for label in (2, (0, 1), ())] == ["c", "a, b", "no label"]
