"""Where the parameters and multiply-adds of a network with ACmix go, beside the same network with convolutions.

Conventions: one multiply and one add are one multiply-add; so is a lone multiplication or addition of the position
term and of the final sum of the operator. Counted are matrix products, convolutions and attention, wherever a network
calls them; biases, normalisation, activations, pooling and the exponentials of a softmax are not, as in published
figures. It is one call with one image, the composition of the operator's kernels included. The operator is counted by
`acmix.ops.costs`, everything else by the formulas of PyTorch's `FlopCounterMode`.
"""

import copy
import functools
import importlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from acmix.errors import check_input_size
from acmix.nn import ACmix
from acmix.ops import costs
from acmix.ops.geometry import output_size
from acmix.paths import TwoPaths

Part = costs.Stage | Literal["other"]
_Module = TypeVar("_Module", bound=nn.Module)
_aten = torch.ops.aten
_ADDITIONS = (_aten.add, _aten.add_)


def _vector_flops(operand: Any, *_: Any, **__: Any) -> int:
    return 2 * prod(operand)


def _added_vector_flops(_: Any, matrix: Any, *__: Any, **___: Any) -> int:
    return 2 * prod(matrix)


def _added_batches_flops(_: Any, left: Any, right: Any, *__: Any, **___: Any) -> int:
    return 2 * prod(left) * right[-1]


def _bilinear_flops(left: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * prod(left[:-1]) * prod(weight)


def _recurrent_flops(sequence: Any, of_inputs: Any, of_hidden: Any, *_: Any, **__: Any) -> int:
    return 2 * prod(sequence[:2]) * (prod(of_inputs) + prod(of_hidden))


# What PyTorch's counter leaves out, by the shapes of the arguments.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **dict.fromkeys((_aten.dot, _aten.vdot, _aten.mv), _vector_flops),
    _aten.addmv: _added_vector_flops,
    _aten.addbmm: _added_batches_flops,
    _aten._trilinear: _bilinear_flops,
    _aten.mkldnn_rnn_layer: _recurrent_flops,
}


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
        other: Every other parameter and multiply-add.
        uncounted: Parameters that neither multiply in what is counted nor are added as biases are, by the type of their
            modules: those of norms, of what the call did not reach, of operations that have no formula.
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
        ValueError: If `input_size` is not three positive sizes (an InputError) or the network cannot take it.
    """
    cost = network_cost(network, input_size)
    operators = {name: module for name, module in network.named_modules() if isinstance(module, ACmix)}
    # A network without them is its own twin; counting takes a while.
    twin = _cost(network, input_size, operators) if operators else cost
    return Account(tuple(input_size), cost, twin)


def network_cost(network: nn.Module, input_size: tuple[int, int, int]) -> NetworkCost:
    """Count parameters and multiply-adds of a network alone; arguments and errors are those of `account`."""
    check_input_size(input_size)
    return _cost(network, input_size, {})


def convolution_twin(network: _Module) -> nn.Module:
    """The network with every ACmix replaced by a new convolution of its shape; the rest is copied.

    Args:
        network: An `ACmix` or a network; not modified.

    Returns:
        A network of its own: `kernel_conv` x `kernel_conv` convolutions of the same channels, stride and
        dilation, with a bias where the operator has one.
    """
    memo: dict[int, Any] = {
        id(module): _twin(module, module.dep_weight.device) for module in network.modules() if isinstance(module, ACmix)
    }
    return copy.deepcopy(network, memo)


def _twin(operator: ACmix, device: torch.device | str) -> nn.Conv2d:
    convolution = nn.Conv2d(
        operator.in_channels,
        operator.out_channels,
        operator.kernel_size,
        stride=operator.stride,
        padding=operator.padding,
        dilation=operator.dilation,
        bias=operator.bias is not None,
        device=device,
        dtype=operator.dep_weight.dtype,
    )
    return convolution.train(operator.training)


def _without_numbers(network: nn.Module, fake: FakeTensorMode, replaced: Mapping[str, ACmix]) -> nn.Module:
    """A copy on tensors without data, with convolutions in the place of some operators."""

    def shape(tensor: Tensor) -> Tensor:
        # An operation called in the mode takes ten times as long.
        return FakeTensor(fake, torch.empty_like(tensor, device="meta"), torch.device("cpu"))

    # deepcopy takes what the memo holds in place of a copy.
    memo: dict[int, Any] = {id(buffer): shape(buffer) for buffer in network.buffers()}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(shape(parameter), parameter.requires_grad)
    with fake:
        memo |= {id(operator): _twin(operator, "cpu") for operator in replaced.values()}
    # Outside of the mode, in which a tensor that is no parameter cannot be copied.
    return copy.deepcopy(network, memo).eval()


def _cost(original: nn.Module, input_size: tuple[int, int, int], replaced: Mapping[str, ACmix]) -> NetworkCost:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    network = _without_numbers(original, fake, replaced)
    parts = _parts(network, replaced.keys())
    with fake:
        tally = _call(network, input_size, parts)
    parameters: Counter[Part] = Counter()
    uncounted: Counter[str] = Counter()
    seen: set[nn.Parameter] = set()
    for module in network.modules():
        own = set(module.parameters(recurse=False)) - seen
        seen |= own
        for parameter in own:
            parameters[parts.get(parameter, "other")] += parameter.numel()
            if parameter not in tally.counted:
                uncounted[type(module).__name__] += parameter.numel()

    def cost(part: Part) -> Cost:
        return Cost(parameters[part], tally.multiply_adds[part])

    return NetworkCost(cost("projection"), cost("attention"), cost("convolution"), cost("other"), dict(uncounted))


def _parts(network: nn.Module, replaced: Collection[str]) -> dict[nn.Parameter, Part]:
    """The part of every parameter that is not "other"."""
    parts: dict[nn.Parameter, Part] = {}

    def assign(part: Part, parameters: Iterable[nn.Parameter]) -> None:
        parts.update((parameter, part) for parameter in parameters)

    for name, module in network.named_modules():
        if isinstance(module, TwoPaths):
            for part, parameters in module.parts().items():
                assign(cast(Part, part), parameters)
        elif name in replaced:
            assign("convolution", module.parameters())
    return parts


class _Tally(TorchDispatchMode):
    """Multiply-adds of what is called under it, by the part of their parameters; which those are, biases as well.

    A tensor that is computed of parameters alone, a normalised or a transposed weight say, stands for those.

    Args:
        formulas: FLOPs of operations, as PyTorch's counter has them.
        parts: Of parameters; what has none of these is "other".
        image: What every other tensor that is not of parameters alone is computed of.
    """

    supports_higher_order_operators = True

    def __init__(
        self, formulas: Mapping[Any, Callable[..., int]], parts: Mapping[nn.Parameter, Part], image: Tensor
    ) -> None:
        super().__init__()
        self.multiply_adds: Counter[Part] = Counter()
        self.counted: set[nn.Parameter] = set()
        self._formulas, self._parts = formulas, parts
        # Of every tensor the parameters that it is computed of; None where the image is among what it is computed of.
        self._origins: Any = WeakTensorKeyDictionary({image: None})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operation and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        origins = [self._origin(leaf) for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        parameters = frozenset[nn.Parameter]().union(*(origin for origin in origins if origin is not None))
        packet = getattr(func, "_overloadpacket", func)
        formula = self._formulas.get(packet)
        if formula is not None or packet in _ADDITIONS:
            self.counted |= parameters
        if formula is not None:
            part: Part = next((self._parts[known] for known in parameters if known in self._parts), "other")
            self.multiply_adds[part] += formula(*args, **kwargs, out_val=result) // 2
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._origins[leaf] = None if None in origins else parameters
        return result

    def _origin(self, tensor: Tensor) -> frozenset[nn.Parameter] | None:
        if isinstance(tensor, nn.Parameter):
            return frozenset((tensor,))
        return self._origins.get(tensor, frozenset())


def _call(network: nn.Module, input_size: tuple[int, int, int], parts: Mapping[nn.Parameter, Part]) -> _Tally:
    """Count one forward pass."""
    # It imports triton, which takes a second.
    from torch.utils.flop_counter import FlopCounterMode

    # The compiled kernels, which a fused operator or a function calls.
    importlib.import_module("acmix.ops.flops")
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    image = torch.empty(1, *input_size, dtype=dtype)
    tally = _Tally(counter.flop_registry, parts, image)
    for module in network.modules():
        if isinstance(module, ACmix):
            vars(module)["forward"] = functools.partial(_count_operator, tally, module)
    try:
        # PyTorch's counter takes apart what is composed of other operations.
        with torch.no_grad(), _unfused_transformers(), tally, counter:
            network(image)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"input_size must suit {type(network).__name__}, got {input_size}: {error}") from error
    return tally


@contextmanager
def _unfused_transformers() -> Iterator[None]:
    """Without PyTorch's one operation for a whole layer of a transformer."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _count_operator(tally: _Tally, operator: ACmix, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv2d takes it by
    """What the operator returns, without data; only its first stage is called, as backends cut the others apart."""
    operator.qkv(input)
    *images, _, height, width = input.shape
    multiply_adds = operator_multiply_adds(operator, height, width)
    for stage in ("attention", "convolution"):
        tally.multiply_adds[stage] += prod(images) * multiply_adds[stage]
    tally.counted.update(operator.parameters())
    sizes = (output_size(size, operator.stride[0]) for size in (height, width))
    return input.new_empty(*images, operator.out_channels, *sizes)


def operator_multiply_adds(operator: ACmix, height: int, width: int) -> dict[costs.Stage, int]:
    """Multiply-adds of one operator on one map of height x width cells, by stage."""
    return costs.stages(
        height,
        width,
        inputs=operator.in_channels,
        channels=operator.out_channels,
        heads=operator.heads,
        window=operator.kernel_att,
        kernel=operator.kernel_conv,
        stride=operator.stride[0],
    )
