"""Bad arguments are refused before work starts, with the argument, the rule and the value."""

import pytest
import torch

from acmix import ACmix, ops

PROJECTIONS = torch.randn(1, 6, 3, 4, 5)
QKV = PROJECTIONS.chunk(3, 1)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"window": 4}, ValueError, "window must be odd.*got 4"),
        ({"window": 0}, ValueError, "window must be at least 1, got 0"),
        ({"window": 7.0}, TypeError, "window must be an integer, got 7.0"),
        ({"window": True}, TypeError, "window must be an integer, got True"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"dilation": -1}, ValueError, "dilation must be at least 1"),
        ({"backend": "cuda"}, ValueError, "backend must be one of auto, .*; got 'cuda'"),
    ],
)
def test_attention_options(change, error, words):
    with pytest.raises(error, match=words):
        ops.local_attention(*QKV, **change)


@pytest.mark.parametrize(
    ("index", "replacement", "error", "words"),
    [
        (0, torch.randn(2, 3, 4, 5), ValueError, r"query must have the shape \(B, N, D, H, W\)"),
        (0, torch.ones(1, 2, 3, 4, 5, dtype=torch.int64), TypeError, "query must have a floating-point dtype"),
        (1, torch.randn(1, 2, 3, 4, 6), ValueError, r"key must have query's shape .*got \(1, 2, 3, 4, 6\)"),
        (2, torch.randn(1, 2, 3, 4, 5).double(), TypeError, "value must have query's dtype"),
        (2, None, TypeError, "value must be a torch.Tensor, got NoneType"),
        (
            1,
            torch.randn(1, 2, 3, 4, 5, device="meta"),
            ValueError,
            "key must be on the device of the input, cpu; got meta",
        ),
    ],
)
def test_attention_tensors(index, replacement, error, words):
    tensors = list(QKV)
    tensors[index] = replacement
    with pytest.raises(error, match=words):
        ops.local_attention(*tensors)


def test_map_without_cells():
    empty = torch.randn(1, 2, 3, 0, 5)
    with pytest.raises(ValueError, match="needs H >= 1"):
        ops.local_attention(empty, empty, empty)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 5, 3, 4, 5), r"projections must have the shape \(B, 3 N, D, H, W\), .*got 5 maps"),
        ((1, 18, 4, 5), r"projections must have the shape \(B, 3 N, D, H, W\), got \(1, 18, 4, 5\)"),
        ((1, 0, 3, 4, 5), "needs 3 N >= 1"),
    ],
)
def test_projections(shape, words):
    with pytest.raises(ValueError, match=words):
        ops.shift_conv(torch.zeros(shape), torch.randn(9, 6), torch.randn(6, 9, 3, 3))


@pytest.mark.parametrize(
    ("fc", "dep", "words"),
    [
        ((9, 5), (6, 9, 3, 3), r"fc_weight must have the shape \(P, 3 N = 6\), got \(9, 5\)"),
        ((9, 6), (6, 8, 3, 3), r"dep_weight must have the shape \(D \* N = 6, P = 9, k, k\)"),
        ((9, 6), (6, 9, 2, 2), "square kernel of odd size"),
        ((9, 6), (6, 9, 3, 5), "square kernel of odd size"),
    ],
)
def test_convolution_weights(fc, dep, words):
    with pytest.raises(ValueError, match=words):
        ops.shift_conv(PROJECTIONS, torch.randn(fc), torch.randn(dep))


@pytest.mark.parametrize(
    ("position", "rate", "words"),
    [((3, 3), (1,), r"position_weight must have the shape \(D = 3, 2\)"), ((3, 2), (2,), "rate_attention must have")],
)
def test_mix_weights(position, rate, words):
    weights = torch.randn(9, 6), torch.randn(6, 9, 3, 3)
    with pytest.raises(ValueError, match=words):
        ops.mix(PROJECTIONS, torch.randn(position), *weights, torch.randn(rate), torch.randn(1))


def test_sparse_tensors_are_refused():
    with pytest.raises(TypeError, match=r"^query must be dense \(torch.strided\), got torch.sparse_coo$"):
        ops.local_attention(*(tensor.to_sparse() for tensor in QKV))
    with pytest.raises(TypeError, match=r"^projections must be dense \(torch.strided\), got torch.sparse_coo$"):
        ops.shift_conv(PROJECTIONS.to_sparse(), torch.randn(9, 6), torch.randn(6, 9, 3, 3))
    layer, x = ACmix(4, 4), torch.randn(1, 4, 5, 5)
    for other, layout in ((x.to_sparse(), "torch.sparse_coo"), (x.to_mkldnn(), "torch._mkldnn")):
        with pytest.raises(TypeError, match=rf"^x must be dense \(torch.strided\), got {layout}$"):
            layer(other)


def test_why_not_answers_for_every_backend():
    assert set(ops.backends()) >= {"reference", "portable"}
    for name in ops.backends():
        assert ops.why_not(name) is None
    with pytest.raises(ValueError, match="backend must be one of"):
        ops.why_not("unknown")


def test_an_explicit_backend_never_falls_back(monkeypatch):
    monkeypatch.setattr(ops.dispatch.Portable, "why_not", lambda *_: "it rests today")
    assert "portable" not in ops.backends()
    with pytest.raises(ValueError, match="backend 'portable' cannot run this: it rests today"):
        ops.local_attention(*QKV, backend="portable")


def test_bias_and_rate_of_the_convolution_path_are_checked():
    weights = PROJECTIONS, torch.randn(9, 6), torch.randn(6, 9, 3, 3)
    with pytest.raises(ValueError, match=r"fc_bias must have the shape \(P = 9,\), got \(6,\)"):
        ops.shift_conv(*weights, fc_bias=torch.randn(6))
    with pytest.raises(ValueError, match=r"rate_convolution must have one element, shape \(1,\) or \(\), got \(2,\)"):
        ops.shift_conv(*weights, rate_convolution=torch.randn(2))


STAGES = {
    "x": torch.randn(2, 5, 4, 3),
    "weight": torch.randn(12, 5, 1, 1),
    "bias": torch.randn(12),
    "position_weight": torch.randn(2, 2),
    "rate_attention": torch.randn(1),
    "fc_weight": torch.randn(9, 6),
    "dep_weight": torch.randn(4, 9, 3, 3),
    "rate_convolution": torch.randn(1),
}


def others_of(tensor):
    """What somebody may give in a tensor's place."""
    yield from (tensor[None], tensor[0], tensor[:0], tensor[:-1], tensor.new_zeros(2), tensor.new_zeros(()))
    yield from (tensor.narrow(axis, 0, size - 1) for axis, size in enumerate(tensor.shape))
    yield from (tensor.repeat_interleave(2, axis) for axis in range(tensor.ndim))
    yield from (tensor.int(), tensor.double(), tensor.half(), tensor.bfloat16(), tensor > 0, tensor.to(torch.complex64))
    yield from (tensor.to("meta"), tensor.to_sparse(), None, 1.0, tensor.tolist(), "auto")


def outcome(changed, backend):
    """The output, or what is said instead."""
    given = {**STAGES, "heads": 2, "window": 3, **changed}
    try:
        return ops.project_and_mix(**given, backend=backend)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("name", STAGES)
def test_kernels_that_check_for_themselves_refuse_in_the_words_of_all(name):
    for other in others_of(STAGES[name]):
        expected, *found = (outcome({name: other}, backend) for backend in ("reference", "auto", "portable"))
        for each in found:
            if isinstance(expected, str):
                assert each == expected
                assert expected.startswith(("TypeError: ", "ValueError: ")), expected
            else:
                torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("change", [{"heads": 5}, {"heads": True}, {"window": 4}, {"window": 3.0}, {"stride": 0}])
def test_kernels_that_check_for_themselves_refuse_numbers_in_the_words_of_all(change):
    expected = outcome(change, "reference")
    assert expected.startswith(("TypeError: ", "ValueError: "))
    assert outcome(change, "auto") == expected


def test_what_fails_for_another_reason_is_raised_as_it_is():
    def fail(_):
        raise RuntimeError("no room for what is saved")

    x = STAGES["x"].clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(fail, fail), pytest.raises(RuntimeError, match="^no room for what"):
        ops.project_and_mix(**{**STAGES, "x": x}, heads=2, window=3)
