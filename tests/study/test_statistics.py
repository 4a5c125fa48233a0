import pytest

from acmix.study.statistics import holm, interval, paired

# Student's own example, hours of sleep gained with two drugs (Biometrika 6, 1908).
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_interval():
    found = interval([1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.margin == pytest.approx(1.963243, abs=1e-6)
    with pytest.raises(ValueError, match="sample must hold at least 2 numbers, got 1"):
        interval([1])


def test_paired():
    found = paired(FIRST, SECOND)
    assert found.difference.mean == pytest.approx(-1.58)
    assert found.difference.margin == pytest.approx(0.8798858, abs=1e-6)
    assert found.t_test == pytest.approx(0.002833, abs=1e-6)
    with pytest.raises(ValueError, match="shorter"):
        paired([1, 2], [1])


def test_ranks_need_six_pairs():
    second = [0.0] * 6
    assert paired([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], second).ranks == pytest.approx(2 / 2**6)
    assert paired([0.1, 0.2, 0.3, 0.4, 0.5], second[:5]).ranks is None


def test_equal_differences_are_no_test():
    for shift in (0.0, 0.1):
        found = paired([0.9, 0.7, 0.8], [0.9 - shift, 0.7 - shift, 0.8 - shift])
        assert found.difference.mean == pytest.approx(shift)
        assert (found.t_test, found.ranks) == (None, None)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.02, 0.6, None, 0.7]) == [None, pytest.approx(0.06), 1.0, None, 1.0]
    assert holm([]) == []
