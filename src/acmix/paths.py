"""What every network of the family shares: two paths on the same projections, their rates, the convolution path."""

from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from acmix import ops
from acmix.ops import validation
from acmix.plain import why_not_plain

Route = Literal["attention", "convolution"]
_NO_SCRIPT = "torch.jit.script does not take an ACmix; torch.jit.trace does, and its program is right for every size"


def _convolve(
    projections: Tensor, fc: Tensor, bias: Tensor | None, dep: Tensor, rate: Tensor | None, backend: str
) -> Tensor:
    return ops.shift_conv(projections, fc, dep, fc_bias=bias, rate_convolution=rate, backend=backend)


# A node of its own where torch.fx traces: what it does depends on the input.
fx.wrap("_convolve")


class TwoPaths(nn.Module):
    """Attention and convolution of the same projections, added with two learned rates (arXiv 2111.14556, eq. 14).

    Attributes:
        rate_attention: alpha, one element.
        rate_convolution: beta, one element.
        backend: "auto" or a name from `acmix.ops.backends()`.
        stride: Cells of the input a query, along either axis.
        channel_axis: Of its maps, 1, 3, or 2 of cells in one row.
        shown: What `attention_of` shows, in words for whoever looks at it.
    """

    channel_axis = 1
    shown = "Reflected window cells are added to the cells they mirror, so that each map sums to 1"
    rate_attention: nn.Parameter
    rate_convolution: nn.Parameter
    backend: str
    stride: tuple[int, int]

    @property
    def kernels(self) -> Tensor:
        """Of the convolution path, `(C, P, k, k)`."""
        raise NotImplementedError

    @property
    def shift_size(self) -> float:
        """What a kernel holds at its own position at the start."""
        return 1.0

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Its parameters by stage: projection, attention, convolution."""
        raise NotImplementedError

    def why_not(self, backend: str, *inputs: Any) -> str | None:
        """Why a backend cannot compute its inputs, or None; see `acmix.ops.why_not`."""
        raise NotImplementedError

    def attention_of(self, cell: tuple[int, int], *inputs: Any) -> Tensor:
        """What the query of a cell attends to: weights on the cells of the map, `(B, N, H, W)`, summing to 1 each."""
        raise NotImplementedError

    def map_size(self, *inputs: Any) -> tuple[int, int]:
        """Height and width of the map that it reads."""
        x, first = inputs[0], self.channel_axis % 3 + 1
        return x.shape[first], x.shape[first + 1]

    def paths(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Both paths of its inputs, each times its rate, maps of one shape."""
        raise NotImplementedError

    def alone(self, path: Route, *inputs: Any) -> Tensor:
        """One path of its inputs, without its rate; nothing of the other one is computed."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse torch.jit.script, which asks this of every module."""
        refuse_script()


def operators_of(network: nn.Module) -> dict[str, TwoPaths]:
    """Operators that have both paths, by name, in the order of the network."""
    named = ((name, module) for name, module in network.named_modules() if isinstance(module, TwoPaths))
    return {name: module for name, module in named if module.rate_attention is not None}


class ConvolutionPath(nn.Module):
    r"""The convolution path as a layer, `acmix.ops.shift_conv`; it starts as shifts, which no network's loop wipes.

    Args:
        heads: N; there are 3 N maps.
        head_size: D.
        kernel: k, odd.
        times: Outputs a map, M = times N of them a group.
        bias: Whether fc has one.
        backend: "auto" or a name from `acmix.ops.backends()`.
        device: Where the parameters are made.
        dtype: Floating dtype of the parameters.

    Shape:
        `(B, 3 N, D, H, W)` to `(B, D M, H, W)`, channel d M + m.

    Raises:
        ValueError: If an argument breaks its rule.
        TypeError: If a number is no integer.
    """

    def __init__(
        self,
        heads: int,
        head_size: int,
        *,
        kernel: int = 3,
        times: int = 1,
        bias: bool = True,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("heads", heads), ("head_size", head_size), ("times", times)):
            validation.check_positive_integer(name, number)
        validation.check_odd("kernel", kernel)
        ops.check_backend(backend)
        self.backend, self.heads, self.times = backend, heads, times
        positions = kernel**2
        self.fc_weight = nn.Parameter(torch.empty(positions, 3 * heads, device=device, dtype=dtype))
        self.fc_bias = nn.Parameter(torch.empty(positions, device=device, dtype=dtype)) if bias else None
        shape = (times * heads * head_size, positions, kernel, kernel)
        self.dep_weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise anew: fc as `nn.Conv2d`, kernels as shifts."""
        nn.init.kaiming_uniform_(self.fc_weight, a=5**0.5)
        if self.fc_bias is not None:
            bound = self.fc_weight.shape[1] ** -0.5
            nn.init.uniform_(self.fc_bias, -bound, bound)
        shift_kernels_(self.dep_weight)

    def forward(self, projections: Tensor, rate: Tensor | None = None) -> Tensor:
        """The path times the rate: `(B, 3 N, D, H, W)` to `(B, D M, H, W)`."""
        weights = self.fc_weight, self.fc_bias
        if self.times == 1:
            return _convolve(projections, *weights, self.dep_weight, rate, self.backend)
        # N outputs of every group at a time.
        kernels = self.dep_weight.unflatten(0, (-1, self.times, self.heads))
        each = (kernels[:, time].flatten(0, 1) for time in range(self.times))
        parts = [_convolve(projections, *weights, kernel, rate, self.backend) for kernel in each]
        return torch.cat([part.unflatten(1, (-1, self.heads)) for part in parts], 2).flatten(1, 2)


class PathsApart(TwoPaths):
    """Two paths of which the convolution path is a `ConvolutionPath`, and attention PyTorch's.

    Attributes:
        convolution: The convolution path.
    """

    convolution: ConvolutionPath

    @property
    def backend(self) -> str:  # type: ignore[bad-override]
        """Of the convolution path."""
        return self.convolution.backend

    @backend.setter
    def backend(self, name: str) -> None:
        self.convolution.backend = name

    @property
    def kernels(self) -> Tensor:
        """Of the convolution path, `(C, k^2, k, k)`."""
        return self.convolution.dep_weight


def scaled_linear(x: Tensor, linear: nn.Module, rate: Tensor | None) -> Tensor:
    """A linear map, times a rate on its weights: no map has to be multiplied, or kept for the rate's gradient.

    One that is more than an `nn.Linear` (hooks, parametrisations, adapters) is called as a module.
    """
    if rate is None:
        return linear(x)
    if isinstance(linear, nn.Linear) and why_not_plain(linear, nn.Linear) is None:
        bias = None if linear.bias is None else linear.bias * rate
        return functional.linear(x, linear.weight * rate, bias)
    output = linear(x)
    return output * rate.to(output.dtype)


def shift_kernels_(kernels: Tensor, size: float = 1.0) -> None:
    """Make kernels `(C, k^2, k, k)` shifts, in place: kernel p is `size` at position p and 0 elsewhere."""
    with torch.no_grad():
        kernels.zero_()
        for position in range(kernels.shape[1]):
            row, column = divmod(position, kernels.shape[-1])
            kernels[:, position, row, column] = size


def refuse_script() -> NoReturn:
    """What `torch.jit.script` is told."""
    raise RuntimeError(_NO_SCRIPT)
