from hypothesis import given
from hypothesis import strategies as st

from acmix.data.splitting import held_out


@given(st.lists(st.sets(st.integers(0, 4)), min_size=2, max_size=40), st.floats(0.01, 0.99), st.randoms())
def test_neither_side_is_empty_and_rare_classes_are_on_both(shown, fraction, random):
    order = list(range(len(shown)))
    random.shuffle(order)
    chosen = held_out(order, [sorted(labels) for labels in shown], fraction)
    assert 0 < chosen.sum() < len(shown)
    counts = {label: sum(label in labels for labels in shown) for label in range(5)}
    rarest = [label for label, count in counts.items() if count > 1 and count == min(c for c in counts.values() if c)]
    if len(rarest) == 1:
        sides = {bool(chosen[index]) for index, labels in enumerate(shown) if rarest[0] in labels}
        assert sides == {True, False}


def test_images_of_one_class_are_split_by_their_share():
    chosen = held_out(range(100), [[0]] * 100, 0.2)
    assert chosen.tolist() == [True] * 20 + [False] * 80
