"""Stage II of ACmix as pure functions on tensors: no parameters, torch alone.

Notation: N heads of D channels, maps of H x W cells, window (k_a) and kernel (k_c) odd, s stride, e dilation; outputs
have H' = ceil(H / s) and W' = ceil(W / s) cells.

With every backend the outputs have derivatives of every order by every tensor, in reverse and forward, also under the
transforms of `torch.func`; those that no kernel has are computed in plain operations. What `torch.compile` makes has
first derivatives in reverse, and PyTorch refuses others.
"""

from torch import Tensor

from acmix.ops import dispatch, validation
from acmix.ops.composition import constant_map
from acmix.ops.contract import Convolution, Grid, Projection, Weights, features_of
from acmix.ops.dispatch import backends, check_backend, why_not
from acmix.ops.tracing import plain_shape

__all__ = ["backends", "check_backend", "local_attention", "mix", "project_and_mix", "shift_conv", "why_not"]


def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    position_weight: Tensor | None = None,
    window: int = 7,
    stride: int = 1,
    dilation: int = 1,
    backend: str = "auto",
) -> Tensor:
    """Self-attention of every cell over the window around it (ACmix, arXiv 2111.14556, eq. 4 and 12).

    out_i = sum_j softmax_j(D^-1/2 q_i . (k_j + pe_i - pe_j)) v_j, with j = reflect(i + e o), o in [-r, r]^2, r =
    window // 2, and positions pe = W_p loc, loc(y, x) = (linspace(-1, 1, W)[x], linspace(-1, 1, H)[y]). The window is
    reflected at the border without repeating the edge, so it always has window^2 cells. Defined for every H, W >= 1;
    the softmax accumulates in float32 or better.

    Args:
        query: Shape `(B, N, D, H, W)`, any floating dtype, any strides; read at the cells (s Y, s X).
        key: Like query.
        value: Like query.
        position_weight: W_p, shape `(D, 2)`; None is 0.
        window: Cells an axis of the window, odd.
        stride: Distance of the queries in cells, s.
        dilation: Distance of window cells, e.
        backend: "auto" or a name from `backends`; a backend asked for by name never falls back.

    Returns:
        Shape `(B, N, D, H', W')` in query's dtype.

    Raises:
        ValueError: If a shape, device, window, stride, dilation or backend breaks its rule.
        TypeError: If an argument is not of the kind above.
    """
    validation.check_qkv(query, key, value, position_weight)
    grid = Grid(plain_shape(query)[1], window, stride, dilation)
    validation.check_grid(grid)
    return dispatch.select(backend, features_of(query), grid).local_attention(query, key, value, position_weight, grid)


def shift_conv(
    projections: Tensor,
    fc_weight: Tensor | None,
    dep_weight: Tensor,
    *,
    fc_bias: Tensor | None = None,
    rate_convolution: Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
    backend: str = "auto",
) -> Tensor:
    """The convolution path: a linear map of the 3 N projections, then a grouped convolution (arXiv 2111.14556, eq. 8).

    f[b, d, p] = sum_c fc_weight[p, c] z[b, c, d] + fc_bias[p] with z the 3 N projected maps; then D groups of P -> N
    channels, zero padding e (k // 2) of f, times the rate. With P = k^2 and kernel p equal to 1 at position p and 0
    elsewhere it shifts and sums. Both steps run as one composed convolution where that is cheaper (3 N k^2 <= P (3 +
    k^2)). In 16 bits the Triton kernels make NaN of the neighbour, too, of a channel that holds an infinite number or
    NaN.

    Args:
        projections: q, k and v, shape `(B, 3 N, D, H, W)`: N queries, N keys, N values.
        fc_weight: Shape `(P, 3 N)`; None is the identity, P = 3 N: dep_weight is composed already.
        dep_weight: Shape `(D * N, P, k, k)`, k odd; output channel d * N + m.
        fc_bias: Shape `(P,)`; None is 0.
        rate_convolution: beta, one element; None is 1.
        stride: Stride s.
        dilation: Distance of kernel cells, e.
        backend: "auto" or a name from `backends`; a backend asked for by name never falls back.

    Returns:
        Shape `(B, D * N, H', W')`, channel d * N + m, in the dtype of the projections.

    Raises:
        ValueError: If a shape, device, stride, dilation or backend breaks its rule.
        TypeError: If an argument is not of the kind above.
    """
    validation.check_projections(projections)
    convolution = Convolution(dep_weight, fc_weight, rate_convolution)
    shape = plain_shape(projections)
    validation.check_convolution(projections, shape, convolution, fc_bias)
    grid = Grid(shape[1] // 3, plain_shape(dep_weight)[-1], stride, dilation)
    validation.check_grid(grid)
    output = dispatch.select(backend, features_of(projections), grid).shift_conv(projections, convolution, grid)
    return output if fc_bias is None else output + constant_map(projections, fc_bias, convolution, grid)


def mix(
    projections: Tensor,
    position_weight: Tensor,
    fc_weight: Tensor | None,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor | None,
    *,
    window: int = 7,
    stride: int = 1,
    dilation: int = 1,
    backend: str = "auto",
) -> Tensor:
    """Stages II and III: rate_attention * attention + rate_convolution * convolution (arXiv 2111.14556, eq. 14).

    The attention path is `local_attention`, channel n * D + d; the convolution path is `shift_conv`, channel d * N + m.

    Numbers may be of any size. On a CPU output and gradients are finite where the definition's are in the same dtype,
    up to a small factor below its largest number, attention exceeds no value, and an infinite number or a NaN stays
    with the cells that see it. "triton", and "portable" on GPUs and in compiled graphs, spread it over tiles of
    queries, and first derivatives of the latter are off by 6e-8 for each unit of a logit.

    Args:
        projections: q, k and v, shape `(B, 3 N, D, H, W)`: N queries, N keys, N values.
        position_weight: W_p, shape `(D, 2)`.
        fc_weight: Shape `(P, 3 N)`; None is the identity, P = 3 N: dep_weight is composed already.
        dep_weight: Shape `(D * N, P, k, k)`, k odd.
        rate_attention: alpha, one element.
        rate_convolution: beta, one element; None where dep_weight holds it already.
        window: Cells an axis of the attention window, odd.
        stride: Stride s of both paths.
        dilation: Dilation e of both paths.
        backend: "auto" or a name from `backends`; a backend asked for by name never falls back.

    Returns:
        Shape `(B, N * D, H', W')` in the dtype of the projections.

    Raises:
        ValueError: If a shape, device, window, stride, dilation or backend breaks its rule.
        TypeError: If an argument is not of the kind above.
    """
    validation.check_projections(projections)
    weights = Weights(position_weight, rate_attention, Convolution(dep_weight, fc_weight, rate_convolution))
    grid = Grid(plain_shape(projections)[1] // 3, window, stride, dilation)
    return dispatch.mix(projections, weights, grid, backend)


def project_and_mix(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    position_weight: Tensor,
    fc_weight: Tensor | None,
    dep_weight: Tensor,
    rate_attention: Tensor,
    rate_convolution: Tensor | None,
    *,
    heads: int,
    window: int = 7,
    stride: int = 1,
    dilation: int = 1,
    backend: str = "auto",
) -> Tensor:
    """All three stages (arXiv 2111.14556, eq. 6 to 14): a 1x1 convolution to q, k and v, then `mix`.

    The compiled kernels compute the projections where they are used, in the backward pass again, and keep none: less
    memory, and no maps of 3 C channels to write and read. On processors with AMX what float32 projections make of an
    infinite number is NaN, where it may be infinite elsewhere. The Triton kernels keep the projections, for attention;
    the convolution path is one dense convolution of x there.

    Args:
        x: Shape `(B, C_in, H, W)`, any floating dtype, any strides.
        weight: Shape `(3 N D, C_in, 1, 1)`: N heads of queries, N of keys, N of values.
        bias: Shape `(3 N D,)`, or None.
        position_weight: See `mix`, as all that follow.
        fc_weight: Shape `(P, 3 N)` or None.
        dep_weight: Shape `(D * N, P, k, k)`.
        rate_attention: alpha.
        rate_convolution: beta or None.
        heads: N.
        window: Cells an axis of the attention window, odd.
        stride: Stride s of both paths.
        dilation: Dilation e of both paths.
        backend: "auto" or a name from `backends`; a backend asked for by name never falls back.

    Returns:
        Shape `(B, N * D, H', W')` in the dtype of x.

    Raises:
        ValueError: If a shape, device, window, stride, dilation or backend breaks its rule.
        TypeError: If an argument is not of the kind above.
    """
    weights = Weights(position_weight, rate_attention, Convolution(dep_weight, fc_weight, rate_convolution))
    grid = Grid(heads, window, stride, dilation)
    return dispatch.project_and_mix(x, Projection(weight, bias), weights, grid, backend)
