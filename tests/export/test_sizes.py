"""Which sizes exporters are told of, and which are tried."""

import pytest
from torch import nn
from torch.export import Dim

from acmix import InputError
from acmix.export.sizes import export_with_sizes, shapes_to_try


def refuse_any_size(shapes):
    if shapes[0][2] is Dim.DYNAMIC:
        raise ValueError("cannot be solved")
    return shapes


def test_every_size_comes_first():
    shapes, step = export_with_sizes(lambda shapes: shapes, nn.Identity(), (3, 64, 96), True)
    assert step == 1
    assert shapes == ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    assert export_with_sizes(lambda shapes: shapes, nn.Identity(), (3, 64, 96), False) == (None, 1)


def test_then_multiples_of_32():
    shapes, step = export_with_sizes(refuse_any_size, nn.Identity(), (3, 64, 96), True)
    assert step == 32
    assert shapes[0][2].__name__ == "32*rows"


@pytest.mark.parametrize("size", [(3, 64, 90), (3, 33, 64)])
def test_not_of_other_images(size):
    words = "PyTorch cannot export Identity: cannot be solved; dynamic=False may do"
    with pytest.raises(InputError, match=words):
        export_with_sizes(refuse_any_size, nn.Identity(), size, True)


def test_shapes_are_multiples_and_end_with_the_size_given():
    assert [*shapes_to_try((3, 7, 9), False, 1)] == [[(1, 3, 7, 9)]] * 3
    checks = [*shapes_to_try((3, 64, 96), True, 32)]
    assert [shapes[0] for shapes in checks] == [(1, 3, 96, 96), (3, 3, 96, 128), (2, 3, 64, 96)]
    assert all(shapes[-1][1:] == (3, 64, 96) for shapes in checks)
    assert next(shapes_to_try((3, 64, 96), True, 1))[:3] == [(1, 3, 65, 96), (1, 3, 66, 96), (1, 3, 68, 96)]
