"""The layer: parameters and initialisation; `acmix.ops` computes."""

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from acmix import ops
from acmix.ops import validation

_LARGEST_WINDOW = 31
_NO_TORCHSCRIPT = (
    "TorchScript is not offered: a trace would be right for one size alone, without a word; "
    "use acmix.export.to_onnx, acmix.export.to_program or torch.compile"
)


def refuse_torchscript() -> None:
    """Raise RuntimeError while TorchScript traces."""
    if torch.jit.is_tracing():
        raise RuntimeError(_NO_TORCHSCRIPT)


def project_and_mix(
    x: Tensor, projection: nn.Module, parameters: tuple[Any, ...], *, heads: int, **keywords: Any
) -> Tensor:
    """`acmix.ops.project_and_mix`; the projection is called as a module where it is more than a convolution."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if type(projection) is nn.Conv2d and not any(getattr(projection, name) for name in hooks):
        return ops.project_and_mix(x, projection.weight, projection.bias, *parameters, heads=heads, **keywords)
    return ops.mix(projection(x).unflatten(1, (3 * heads, -1)), *parameters, **keywords)


class ACmix(nn.Module):
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
        stride: Stride of the output, s.
        dilation: Distance between window cells and between kernel cells, e.
        backend: "auto" or a name from `acmix.ops.backends()`; a name never falls back.
        quiet_shifts: Start the shifts with the norm of random kernels, sqrt(2 / C) in place of 1 (see `shift_size`). No
            published network does; in the study (docs/study.md) it learned faster.
        bias: Add a learned bias to the output, one number a channel, as `nn.Conv2d` does; the projections have theirs
            in any case.
        device: Where the parameters are made.
        dtype: Floating dtype of the parameters.

    Shape:
        `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`; the memory format of the input is kept.

    Raises:
        ValueError: If an argument breaks its rule.
        TypeError: If a size is not an integer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        heads: int = 4,
        kernel_att: int = 7,
        kernel_conv: int = 3,
        stride: int = 1,
        dilation: int = 1,
        backend: str = "auto",
        quiet_shifts: bool = False,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "heads": heads}
        for name, size in {**sizes, "stride": stride, "dilation": dilation}.items():
            validation.check_positive_integer(name, size)
        validation.check_odd("kernel_att", kernel_att)
        validation.check_odd("kernel_conv", kernel_conv)
        if kernel_att > _LARGEST_WINDOW:
            raise ValueError(
                f"kernel_att must be at most {_LARGEST_WINDOW}, got {kernel_att}; is it a number of channels?"
            )
        if out_channels % heads:
            raise ValueError(
                f"out_channels must be divisible by heads, got out_channels={out_channels} and heads={heads}"
            )
        ops.check_backend(backend)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.kernel_att = kernel_att
        self.kernel_conv = kernel_conv
        self.stride = stride
        self.dilation = dilation
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
    def shift_size(self) -> float:
        """What a kernel holds at its own position at the start: 1, or sqrt(2 / C), the norm of arXiv 1502.01852."""
        return (2 / self.out_channels) ** 0.5 if self.quiet_shifts else 1.0

    def reset_parameters(self) -> None:
        """Initialise anew: projections as `nn.Conv2d`, convolution kernels as shifts, both rates 0.5, bias 0."""
        self.qkv.reset_parameters()
        for weight in (self.position_weight, self.fc_weight):
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        with torch.no_grad():
            self.dep_weight.zero_()
            for position in range(self.kernel_conv**2):
                row, column = divmod(position, self.kernel_conv)
                self.dep_weight[:, position, row, column] = self.shift_size
            self.rate_attention.fill_(0.5)
            self.rate_convolution.fill_(0.5)
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator: `(B, C_in, H, W)` to `(B, C, ceil(H / s), ceil(W / s))`.

        Raises:
            ValueError: If x does not have four axes and C_in channels.
            RuntimeError: If TorchScript traces it.
        """
        refuse_torchscript()
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must have the shape (B, C_in = {self.in_channels}, H, W), got {tuple(x.shape)}")
        output = project_and_mix(
            x,
            self.qkv,
            (self.position_weight, self.fc_weight, self.dep_weight, self.rate_attention, self.rate_convolution),
            heads=self.heads,
            window=self.kernel_att,
            stride=self.stride,
            dilation=self.dilation,
            backend=self.backend,
        )
        # Nothing else holds the sum yet, so that the bias costs no map.
        return output if self.bias is None else output.add_(self.bias.to(output.dtype)[:, None, None])

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse torch.jit.script, which asks this of every module."""
        raise RuntimeError(_NO_TORCHSCRIPT)

    def extra_repr(self) -> str:
        """Show the configuration in the repr."""
        return (
            f"{self.in_channels}, {self.out_channels}, heads={self.heads}, kernel_att={self.kernel_att}, "
            f"kernel_conv={self.kernel_conv}, stride={self.stride}, dilation={self.dilation}, backend={self.backend!r}"
            f"{', quiet_shifts=True' if self.quiet_shifts else ''}{', bias=True' if self.bias is not None else ''}"
        )
