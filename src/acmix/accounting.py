"""Where the parameters and multiply-adds of a network with ACmix go, beside the same network with convolutions.

Conventions: one multiply and one add are one multiply-add; so is a lone multiplication or addition of the position
term and of the final sum. Biases, normalisation, activations, pooling and the exponentials of the softmax are not
counted, as in published figures. Counted is one call with one image, the composition of its kernels included.
"""

import copy
import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from acmix.nn import ACmix
from acmix.ops.geometry import composes_kernels, output_size

Part = Literal["projection", "attention", "convolution", "other"]
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-adds of one image.

    Attributes:
        parameters: Number of parameters, shared ones once.
        multiply_adds: Number of multiply-adds.
    """

    parameters: int = 0
    multiply_adds: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Add both numbers."""
        return Cost(self.parameters + other.parameters, self.multiply_adds + other.multiply_adds)


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network by part.

    Attributes:
        projection: Stage I of the operators, at their full input resolution.
        attention: Their attention path with its position term and the final sum.
        convolution: Their convolution path; in the convolutional twin the convolutions in their place.
        other: Every other parameter, and every other `nn.Conv2d` and `nn.Linear`.
        uncounted: Parameters by type of the modules that have some but whose multiply-adds are not counted.
    """

    projection: Cost
    attention: Cost
    convolution: Cost
    other: Cost
    uncounted: dict[str, int]

    @property
    def total(self) -> Cost:
        """The sum of the parts."""
        return self.projection + self.attention + self.convolution + self.other


@dataclass(frozen=True)
class Account:
    """The costs of a network and of its convolutional twin.

    Attributes:
        input_size: `(C_in, H, W)` of the image.
        network: Cost of the network.
        twin: Cost of `convolution_twin` of the network.
    """

    input_size: tuple[int, int, int]
    network: NetworkCost
    twin: NetworkCost


def account(network: nn.Module, input_size: tuple[int, int, int]) -> Account:
    """Count parameters and multiply-adds of a network and its convolutional twin; shapes alone, nothing is computed.

    Args:
        network: Takes one tensor `(B, C_in, H, W)`; not modified.
        input_size: `(C_in, H, W)` of the image.

    Raises:
        ValueError: If `input_size` is not three positive sizes or the network cannot take it.
    """
    if len(input_size) != 3 or min(input_size) < 1:
        raise ValueError(f"input_size must be three positive sizes (C_in, H, W), got {input_size}")
    shapes = _on_meta(network).eval()
    replaced = {name for name, module in shapes.named_modules() if isinstance(module, ACmix)}
    twin = convolution_twin(shapes)
    return Account(tuple(input_size), _cost(shapes, input_size, replaced), _cost(twin, input_size, replaced))


def convolution_twin(network: _Module) -> nn.Module:
    """The network with every ACmix replaced by a new convolution of its shape; the rest is copied.

    Args:
        network: An `ACmix` or a network; not modified.

    Returns:
        A network of its own: `kernel_conv` x `kernel_conv` convolutions of the same channels, stride and
        dilation, with a bias where the operator has one.
    """
    # deepcopy takes what the memo holds in place of a copy.
    memo: dict[int, Any] = {id(module): _twin(module) for module in network.modules() if isinstance(module, ACmix)}
    return copy.deepcopy(network, memo)


def _twin(operator: ACmix) -> nn.Conv2d:
    convolution = nn.Conv2d(
        operator.in_channels,
        operator.out_channels,
        operator.kernel_size,
        stride=operator.stride,
        padding=operator.padding,
        dilation=operator.dilation,
        bias=operator.bias is not None,
        device=operator.dep_weight.device,
        dtype=operator.dep_weight.dtype,
    )
    return convolution.train(operator.training)


def _on_meta(network: _Module) -> _Module:
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.to("meta"), parameter.requires_grad) for parameter in network.parameters()
    }
    shapes = copy.deepcopy(network, memo).to("meta")
    for module in shapes.modules():
        if isinstance(module, ACmix):
            # Backends may refuse a tensor without data.
            vars(module)["forward"] = functools.partial(_empty_output, module)
    return shapes


def _empty_output(operator: ACmix, image: Tensor) -> Tensor:
    height, width = (output_size(size, operator.stride[0]) for size in image.shape[-2:])
    return image.new_empty(image.shape[0], operator.out_channels, height, width)


def _cost(network: nn.Module, input_size: tuple[int, int, int], replaced: set[str]) -> NetworkCost:
    multiply_adds, counted = _count_multiply_adds(network, input_size, replaced)
    parameters: Counter[Part] = Counter()
    uncounted: Counter[str] = Counter()
    parts = _parts(network, replaced)
    seen: set[nn.Parameter] = set()
    for module in network.modules():
        own = set(module.parameters(recurse=False)) - seen
        seen |= own
        for parameter in own:
            parameters[parts.get(parameter, "other")] += parameter.numel()
        if own and module not in counted:
            uncounted[type(module).__name__] += sum(parameter.numel() for parameter in own)

    def cost(part: Part) -> Cost:
        return Cost(parameters[part], multiply_adds[part])

    return NetworkCost(cost("projection"), cost("attention"), cost("convolution"), cost("other"), dict(uncounted))


def _parts(network: nn.Module, replaced: set[str]) -> dict[nn.Parameter, Part]:
    """The part of every parameter that is not "other"."""
    parts: dict[nn.Parameter, Part] = {}

    def assign(part: Part, parameters: Iterable[nn.Parameter]) -> None:
        parts.update((parameter, part) for parameter in parameters)

    for name, module in network.named_modules():
        if isinstance(module, ACmix):
            assign("projection", module.qkv.parameters())
            assign("attention", (module.position_weight, module.rate_attention))
            assign("convolution", (module.fc_weight, module.dep_weight, module.rate_convolution))
            assign("convolution", () if module.bias is None else (module.bias,))
        elif name in replaced:
            assign("convolution", module.parameters())
    return parts


def _count_multiply_adds(
    network: nn.Module, input_size: tuple[int, int, int], replaced: set[str]
) -> tuple[Counter[Part], set[nn.Module]]:
    """Multiply-adds by part of one forward pass, and the modules that they cover."""
    multiply_adds: Counter[Part] = Counter()
    counted: set[nn.Module] = set()

    def count_operator(operator: ACmix, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        multiply_adds.update(operator_multiply_adds(operator, *inputs[0].shape[-2:]))
        counted.update(operator.modules())

    def count_weights(part: Part, layer: nn.Conv2d | nn.Linear, _: tuple[Tensor, ...], output: Tensor) -> None:
        multiply_adds[part] += output.numel() * layer.weight[0].numel()
        counted.add(layer)

    inside = {operator.qkv for operator in network.modules() if isinstance(operator, ACmix)}
    for name, module in network.named_modules():
        if isinstance(module, ACmix):
            module.register_forward_hook(count_operator)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module not in inside:
            part: Part = "convolution" if name in replaced else "other"
            module.register_forward_hook(functools.partial(count_weights, part))
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    image = torch.empty(1, *input_size, device="meta", dtype=dtype)
    try:
        with torch.no_grad():
            network(image)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"input_size must suit {type(network).__name__}, got {input_size}: {error}") from error
    return multiply_adds, counted


def operator_multiply_adds(operator: ACmix, height: int, width: int) -> dict[Part, int]:
    """Multiply-adds of one operator on one map of height x width cells, by part."""
    channels, heads, kernel = operator.out_channels, operator.heads, operator.kernel_conv
    head_size, positions = channels // heads, kernel**2
    cells, outputs = height * width, output_size(height, operator.stride[0]) * output_size(width, operator.stride[0])
    window = 2 * operator.kernel_att**2 * channels * outputs  # q . k and weights . v
    position = 2 * head_size * cells + channels * cells  # W_p loc, taken off every key
    composed = 3 * heads * positions * channels
    if composes_kernels(heads, positions, kernel):
        convolution = composed * positions + composed * outputs
    else:
        convolution = 3 * channels * positions * cells + positions**2 * channels * outputs
    return {
        "projection": 3 * channels * operator.in_channels * cells,
        "attention": window + position + channels * outputs,
        "convolution": convolution,
    }
