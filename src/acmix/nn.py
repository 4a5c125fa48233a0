"""The layer: parameters and initialisation; `acmix.ops` computes."""

from collections.abc import Callable
from typing import Any, Never, NoReturn, get_args

import torch
from torch import Tensor, fx, nn

from acmix import conv2d, ops
from acmix.ops import dispatch, validation
from acmix.ops.contract import Convolution, Ends, Grid, Projection, Tail, Weights, begin, finish
from acmix.ops.geometry import position_map, reflect, window_offsets
from acmix.paths import Route, TwoPaths, refuse_script, shift_kernels_
from acmix.plain import why_not_plain

_LARGEST_WINDOW = 31
_NO_KERNEL = (
    "the weight of an ACmix tells its dtype and device alone, it {}: no kernel (C, C_in, k, k) computes the operator; "
    "see its named_parameters(), and acmix.fuse to fold a batch norm into them"
)
# What may be done with a tensor in Python's own words; the same with a number before it, and numpy's question.
_OPERATORS = (
    "abs invert neg pos add and floordiv lshift matmul mod mul or pow rshift sub truediv xor radd rand rfloordiv "
    "rlshift rmatmul rmod rmul ror rpow rrshift rsub rtruediv rxor eq ne lt le gt ge bool len iter reversed contains "
    "getitem setitem delitem float int index complex array"
)


def _no_kernel(name: object) -> AttributeError:
    return AttributeError(_NO_KERNEL.format(f"has no '{name}'"))


def _not_set() -> AttributeError:
    return AttributeError(_NO_KERNEL.format("is not set"))


def _from_input(x: Tensor, projection: Projection, weights: Weights, ends: Ends, grid: Grid, backend: str) -> Tensor:
    # What is no tensor is refused where all else of x is.
    if isinstance(x, Tensor) and x.ndim == 3:
        return _from_input(x[None], projection, weights, _of_one(ends), grid, backend)[0]
    return dispatch.project_and_mix(x, projection, weights, grid, backend, ends)


def _from_projections(projections: Tensor, weights: Weights, ends: Ends, grid: Grid, backend: str) -> Tensor:
    if projections.ndim == 3:
        return _from_projections(projections[None], weights, _of_one(ends), grid, backend)[0]
    maps = projections.unflatten(1, (3 * grid.heads, -1))
    validation.check_projections(maps)
    return finish(dispatch.mix(maps, weights, grid, backend), ends, grid)


def _of_one(ends: Ends) -> Ends:
    """With a shortcut that is a batch, as its image is then."""
    if ends.tail is None or ends.tail.shortcut is None:
        return ends
    return ends._replace(tail=ends.tail._replace(shortcut=ends.tail.shortcut[None]))


# Nodes of their own where torch.fx traces: what they do depends on the input.
fx.wrap("_from_input")
fx.wrap("_from_projections")


class NoKernel:
    """What `ACmix.weight` is: it tells the dtype and device of a convolution's weight, and there is no more of it.

    Attributes:
        dtype: Of the layer's parameters.
        device: Where they lie.
    """

    dtype: torch.dtype
    device: torch.device

    def __init__(self, parameter: Tensor) -> None:
        vars(self).update(dtype=parameter.dtype, device=parameter.device)

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse every other attribute."""
        raise _no_kernel(name)

    def __setattr__(self, name: str, _: object) -> NoReturn:
        """Refuse to hold anything, `data` or `requires_grad`: nothing would come of it."""
        raise _no_kernel(name)

    @classmethod
    def __torch_function__(cls, function: Any, *_: object) -> NoReturn:
        """Refuse every function of PyTorch; a TypeError in that of `*` would lose its words."""
        raise _no_kernel(getattr(function, "__name__", function))


def _refused(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise _no_kernel(name)

    return refuse


# Python looks these up on the class, past `__getattr__`.
for _operator in _OPERATORS.split():
    setattr(NoKernel, f"__{_operator}__", _refused(f"__{_operator}__"))


class OperatorLayer(nn.Module):
    """What `ACmix` and its fused sibling share: the operator, on weights that each names its own way.

    To others they look like the `nn.Conv2d` that they stand in for.

    Attributes:
        stride: `(s, s)`; as `dilation`, `kernel_size`, `padding`, `groups` and `padding_mode` that of the convolution.
        dilation: `(e, e)`.
        groups: 1.
        padding_mode: "zeros", that of the convolution path; the attention window is reflected.
        rectified_input: Whether the input passes a ReLU first, as it may once `fuse` has taken one in.
        rectified: Whether the output passes a ReLU at last.
    """

    groups = 1
    padding_mode = "zeros"
    rectified_input = False
    rectified = False
    in_channels: int
    out_channels: int
    heads: int
    kernel_att: int
    kernel_conv: int
    stride: tuple[int, int]
    dilation: tuple[int, int]
    backend: str
    qkv: nn.Conv2d
    position_weight: nn.Parameter
    bias: nn.Parameter | None

    @property
    def kernel_size(self) -> tuple[int, int]:
        """k_c twice, as `nn.Conv2d` has it; the attention window is `kernel_att`."""
        return self.kernel_conv, self.kernel_conv

    @property
    def padding(self) -> tuple[int, int]:
        """Of the convolution it stands in for: e (k_c // 2) twice."""
        padding = self.dilation[0] * (self.kernel_conv // 2)
        return padding, padding

    @property
    def weight(self) -> NoKernel:
        """Tells dtype and device, which code reads of a convolution's weight, and refuses all else."""
        return NoKernel(self.position_weight)

    @weight.setter
    def weight(self, _: object) -> NoReturn:
        raise _not_set()

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter, which a weight cannot be."""
        if name == "weight":
            raise _not_set()
        super().register_parameter(name, param)

    def mixing_weights(self) -> Weights:
        """Of both paths."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv2d takes it by
        """Apply the operator: `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`, or both without B.

        Raises:
            ValueError: If the input has another shape.
        """
        return self.forward_between(None, None, input)

    def forward_between(self, head: Projection | None, tail: Tail | None, x: Tensor) -> Tensor:
        """Apply the operator and what stands on both sides of it in a residual block, at once where a backend can."""
        weights, projection = self.mixing_weights(), self.qkv
        ends = Ends(self.rectified_input, self.bias, self.rectified, head, tail)
        grid = Grid(self.heads, self.kernel_att, self.stride[0], self.dilation[0])
        # A projection that is more than a convolution is called as a module.
        if isinstance(projection, nn.Conv2d) and why_not_plain(projection, nn.Conv2d) is None:
            plain = Projection(projection.weight, projection.bias)
            return _from_input(x, plain, weights, ends, grid, self.backend)
        return _from_projections(projection(begin(x, ends)), weights, ends, grid, self.backend)

    def extra_repr(self) -> str:
        """Show the configuration in the repr."""
        said = {
            "quiet_shifts": getattr(self, "quiet_shifts", False),
            "bias": self.bias is not None,
            "rectified_input": self.rectified_input,
            "rectified": self.rectified,
        }
        return (
            f"{self.in_channels}, {self.out_channels}, heads={self.heads}, kernel_att={self.kernel_att}, "
            f"kernel_conv={self.kernel_conv}, stride={self.stride[0]}, dilation={self.dilation[0]}, "
            f"backend={self.backend!r}{''.join(f', {name}=True' for name, holds in said.items() if holds)}"
        )

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse torch.jit.script, which asks this of every module."""
        refuse_script()


class ACmix(OperatorLayer, TwoPaths):
    r"""Convolution and self-attention on the same projections, mixed with two learned rates.

    Takes the place of a `k x k` convolution with padding `dilation * (k // 2)`:

    .. math:: out = \alpha \, att(q, k, v) + \beta \, conv(q, k, v), \quad q, k, v = W_{qkv} x + b_{qkv}

    where att is multi-head attention over a reflected `kernel_att x kernel_att` window with linear position terms and
    conv is a linear map of the 3 `heads` projections followed by a grouped convolution that starts as shifts (Pan et
    al., On the Integration of Self-Attention and Convolution, CVPR 2022, arXiv 2111.14556, eq. 6 to 14).

    It differs from the published code where that fails: every H, W >= 1, stride and dilation is defined, half
    precision and channels_last work, and the shift initialisation survives a network's own loop over its convolutions.
    The kernels of the convolution path, the position and the rates are therefore plain parameters.

    Args:
        in_channels: Channels of the input, C_in.
        out_channels: Channels of the output, C; divisible by `heads`.
        heads: Attention heads N.
        kernel_att: Attention window k_a, odd.
        kernel_conv: Convolution kernel k_c, odd.
        stride: Stride of the output, s; one number, or the same for both axes.
        dilation: Distance between window cells and between kernel cells, e; as stride.
        backend: "auto" or a name from `acmix.ops.backends()`; a name never falls back.
        quiet_shifts: Start the shifts with the norm of random kernels, sqrt(2 / C) in place of 1 (see `shift_size`). No
            published network does; in the study (docs/study.md) it learned faster.
        bias: Add a learned bias to the output, one number a channel, as `nn.Conv2d` does; the projections have theirs
            in any case.
        kernel_size: nn.Conv2d's name of kernel_conv, in whose place it may be given.
        padding: Accepted where it is that of the convolution whose place the layer takes, or "same".
        groups: 1, as `nn.Conv2d` has it by default.
        padding_mode: "zeros", as `nn.Conv2d` has it by default.
        device: Where the parameters are made.
        dtype: Floating dtype of the parameters.

    Shape:
        `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`, or both without B; the input's memory format is kept.

    Raises:
        ValueError: If an argument breaks its rule.
        TypeError: If a size is not an integer, or given by place.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *by_place: Never,
        heads: int = 4,
        kernel_att: int = 7,
        kernel_conv: conv2d.Size = 3,
        stride: conv2d.Size = 1,
        dilation: conv2d.Size = 1,
        backend: str = "auto",
        quiet_shifts: bool = False,
        bias: bool = False,
        kernel_size: conv2d.Size | None = None,
        padding: conv2d.Size | str | None = None,
        groups: int = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if by_place:
            conv2d.refuse_places(by_place)
        kernel_conv = conv2d.choose_kernel(kernel_conv, kernel_size, default=3)
        stride, dilation = conv2d.single("stride", stride), conv2d.single("dilation", dilation)
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "heads": heads}
        for name, size in {**sizes, "stride": stride, "dilation": dilation}.items():
            validation.check_positive_integer(name, size)
        validation.check_odd("kernel_att", kernel_att)
        validation.check_odd("kernel_conv", kernel_conv)
        conv2d.check_padding(padding, kernel_conv, dilation)
        conv2d.check_unmixed(groups, padding_mode)
        if kernel_att > _LARGEST_WINDOW:
            raise ValueError(
                f"kernel_att must be at most {_LARGEST_WINDOW}, got {kernel_att}; is it a number of channels?"
            )
        if out_channels % heads:
            raise ValueError(
                f"out_channels must be divisible by heads, got out_channels={out_channels} and heads={heads}"
            )
        ops.check_backend(backend)
        # NumPy's integers would not be written as JSON.
        in_channels, out_channels, heads, kernel_att, kernel_conv, stride, dilation = map(
            int, (in_channels, out_channels, heads, kernel_att, kernel_conv, stride, dilation)
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.kernel_att = kernel_att
        self.kernel_conv = kernel_conv
        self.stride = (stride, stride)
        self.dilation = (dilation, dilation)
        self.backend = backend
        self.quiet_shifts = quiet_shifts
        head_size, positions = out_channels // heads, kernel_conv**2

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.qkv = nn.Conv2d(in_channels, 3 * out_channels, 1, device=device, dtype=dtype)
        self.position_weight = empty(head_size, 2)
        self.fc_weight = empty(positions, 3 * heads)
        self.dep_weight = empty(out_channels, positions, kernel_conv, kernel_conv)
        self.rate_attention = empty(1)
        self.rate_convolution = empty(1)
        self.bias = empty(out_channels) if bias else None
        self.reset_parameters()

    @property
    def kernels(self) -> Tensor:
        """Of the convolution path, `(C, k^2, k, k)`."""
        return self.dep_weight

    @property
    def shift_size(self) -> float:
        """What a kernel holds at its own position at the start: 1, or sqrt(2 / C), the norm of arXiv 1502.01852."""
        return (2 / self.out_channels) ** 0.5 if self.quiet_shifts else 1.0

    def reset_parameters(self) -> None:
        """Initialise anew: projections as `nn.Conv2d`, convolution kernels as shifts, both rates 0.5, bias 0."""
        self.qkv.reset_parameters()
        for weight in (self.position_weight, self.fc_weight):
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        shift_kernels_(self.dep_weight, self.shift_size)
        with torch.no_grad():
            self.rate_attention.fill_(0.5)
            self.rate_convolution.fill_(0.5)
            if self.bias is not None:
                self.bias.zero_()

    def mixing_weights(self) -> Weights:
        """Of both paths."""
        convolution = Convolution(self.dep_weight, self.fc_weight, self.rate_convolution)
        return Weights(self.position_weight, self.rate_attention, convolution)

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[bad-override]
        """alpha att and beta conv, `(B, C, H', W')` each; their sum is the output less its bias."""
        projections = self.qkv(x).unflatten(1, (3 * self.heads, -1))
        attention, convolution = (self._path(path, projections) for path in get_args(Route))
        return self.rate_attention * attention, self.rate_convolution * convolution

    def alone(self, path: Route, x: Tensor) -> Tensor:  # type: ignore[bad-override]
        """One path without its rate, `(B, C, H', W')`; nothing of the other one is computed."""
        return self._path(path, self.qkv(x).unflatten(1, (3 * self.heads, -1)))

    def _path(self, path: Route, projections: Tensor) -> Tensor:
        steps: dict[str, Any] = {"stride": self.stride[0], "dilation": self.dilation[0], "backend": self.backend}
        if path == "convolution":
            return ops.shift_conv(projections, self.fc_weight, self.dep_weight, **steps)
        position, window = self.position_weight, self.kernel_att
        attended = ops.local_attention(*projections.chunk(3, 1), position_weight=position, window=window, **steps)
        return attended.flatten(1, 2)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Its parameters by stage: projection, attention, convolution."""
        convolution = [self.fc_weight, self.dep_weight, self.rate_convolution]
        return {
            "projection": [*self.qkv.parameters()],
            "attention": [self.position_weight, self.rate_attention],
            "convolution": convolution if self.bias is None else [*convolution, self.bias],
        }

    def why_not(self, backend: str, x: Tensor) -> str | None:  # type: ignore[bad-override]
        """Why a backend cannot compute its input, or None."""
        projections = self.qkv(x).unflatten(1, (3 * self.heads, -1))
        return ops.why_not(
            backend, projections, window=self.kernel_att, stride=self.stride[0], dilation=self.dilation[0]
        )

    def attention_of(self, cell: tuple[int, int], x: Tensor) -> Tensor:  # type: ignore[bad-override]
        """What the query of a cell attends to, `(B, N, H, W)`; reflected cells are added to those they mirror."""
        height, width = x.shape[-2:]
        query, key, _ = self.qkv(x).unflatten(1, (3 * self.heads, -1)).chunk(3, 1)
        key = key - position_map(self.position_weight, height, width).to(key.dtype)
        offsets = window_offsets(self.kernel_att, self.dilation[0], x.device)
        rows, columns = reflect(cell[0] + offsets, height), reflect(cell[1] + offsets, width)
        window = key[..., rows[:, None], columns]
        logits = torch.einsum("bnd,bnduv->bnuv", query[..., cell[0], cell[1]], window) * query.shape[2] ** -0.5
        weights = logits.flatten(-2).softmax(-1)
        target = (rows[:, None] * width + columns).flatten().expand_as(weights)
        flat = weights.new_zeros(*weights.shape[:2], height * width)
        return flat.scatter_add(-1, target, weights).unflatten(-1, (height, width))
