"""One question, one answer: is this module exactly what its type says?"""

import functools

import pytest
import torch
from torch import nn
from torch.nn.modules import module as every
from torch.nn.utils import parametrizations, prune, weight_norm

from acmix import ACmix
from acmix.plain import why_not_plain


class Derived(nn.Conv2d):
    pass


def spread(_, x, *__):
    return 2 * x[:, :1].expand(-1, 24, -1, -1)


def patched(module, name="forward"):
    setattr(module, name, functools.partial(spread, module))


def untouched(_):
    pass


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (untouched, None),
        (lambda module: module.eval().requires_grad_(False).double(), None),
        (lambda module: module.register_forward_hook(print), "has forward hooks"),
        (lambda module: module.register_forward_hook(print, always_call=True), "has forward hooks"),
        (lambda module: module.register_forward_pre_hook(print, with_kwargs=True), "has forward hooks"),
        (lambda module: module.register_full_backward_hook(print), "has backward hooks"),
        (lambda module: module.register_full_backward_pre_hook(print), "has backward hooks"),
        (weight_norm, "has forward hooks"),
        (lambda module: prune.random_unstructured(module, "bias", 0.5), "has forward hooks"),
        (parametrizations.weight_norm, "has a parametrization"),
        (patched, "has a forward of its own"),
        (lambda module: patched(module, "_conv_forward"), "has a forward of its own"),
        (lambda module: patched(module, "_call_impl"), "has a forward of its own"),
    ],
)
def test_reasons(change, reason):
    module = nn.Conv2d(8, 24, 1)
    change(module)
    assert why_not_plain(module, nn.Conv2d) == reason


def test_a_hook_that_is_gone_is_none():
    module = nn.Conv2d(4, 4, 1)
    module.register_forward_hook(print).remove()
    assert why_not_plain(module, nn.Conv2d) is None


def test_subclasses_are_no_convolutions():
    assert why_not_plain(Derived(4, 4, 1), nn.Conv2d) == "is a Derived, not Conv2d itself"
    assert why_not_plain(Derived(4, 4, 1), Derived) is None


REGISTER = {
    "forward": every.register_module_forward_hook,
    "forward pre": every.register_module_forward_pre_hook,
    "backward": every.register_module_full_backward_hook,
    "backward pre": every.register_module_full_backward_pre_hook,
}


@pytest.mark.parametrize("kind", REGISTER)
def test_hooks_of_all_modules_count(kind):
    handle = REGISTER[kind](lambda *_: None)
    try:
        assert why_not_plain(nn.Conv2d(4, 4, 1), nn.Conv2d) == f"is seen by {kind.split()[0]} hooks of all modules"
    finally:
        handle.remove()


def test_the_layer_calls_a_projection_that_is_more():
    layer, x = ACmix(4, 8), torch.randn(1, 4, 5, 5)
    plain = layer(x)
    handle = every.register_module_forward_hook(
        lambda module, _, output: 2 * output if module is layer.qkv else None, always_call=True
    )
    try:
        seen = layer(x)
    finally:
        handle.remove()
    assert not torch.allclose(plain, seen)
    patched(layer.qkv)
    assert not torch.allclose(plain, layer(x))


@pytest.mark.parametrize("change", [untouched, patched, parametrizations.weight_norm])
def test_compiles_to_one_graph(change):
    layer, x = ACmix(4, 8), torch.randn(1, 4, 5, 5)
    change(layer.qkv)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))
