"""Put ACmix in the place of the convolutions of any network."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.lazy import LazyModuleMixin

from acmix.accounting import operator_multiply_adds
from acmix.errors import first_line
from acmix.nn import ACmix
from acmix.ops import validation
from acmix.plain import why_not_plain
from acmix.surgery.identity import exchange, tied
from acmix.surgery.report import LayerReport, Report
from acmix.surgery.selection import Named, selection
from acmix.surgery.warm_start import warm_start as fit_kernel

Select = Named | int
# More channels a head than this run on no GPU kernel.
_LARGEST_HEAD = 128
_USUAL_HEADS = 4

# Sizes of the maps that a layer read and wrote, one pair a call.
Calls = list[tuple[tuple[int, ...], tuple[int, ...]]]


def replace_convolutions(
    network: nn.Module,
    *,
    select: Select | None = None,
    heads: int | Literal["auto"] = "auto",
    warm_start: bool = False,
    example_inputs: Any = None,
    kernel_att: int = 7,
    kernel_conv: int | None = None,
    backend: str = "auto",
) -> Report:
    """Replace the k x k convolutions of a network by `ACmix`, in place.

    Kept are channels, stride, dilation, bias, device, dtype and whether weight and bias are trained. What cannot be
    replaced is left and reported with its reason: grouped, depthwise, transposed, 1 x 1, even or oblong kernels,
    padding that is not "same", channels without a suitable divisor, layers that are not built yet, subclasses, modules
    with hooks (of gradients and of the state_dict, too), parametrisations, or a forward, buffers or parts of their own,
    and weights that another module shares, which operators would untie. A convolution that the network holds in several
    places, names, lists or dictionaries, is one operator in all of them.
    Either every selected layer that can be replaced is, or, on an error, none. Make the optimiser afterwards.

    Args:
        network: Any network that contains convolutions; a convolution itself has no place to put another in.
        select: Which convolutions: None for all, a name or glob ("layer4.*"), several of them, a predicate of name and
            module, or the largest number of cells H W of the map they may read (this needs `example_inputs`).
        heads: Heads N, or "auto" for the divisor of the output channels C that is nearest to max(4, C / 128), other
            than 1 and C.
        warm_start: Start with the convolution path fitted to the old kernel and the attention path at rate 0, instead
            of at random; see `LayerReport.residual`.
        example_inputs: What the network is called with once, in evaluation mode, to see the sizes of its maps: a
            tensor, or a tuple of arguments. It builds lazy layers. Without it the report has no maps and multiply-adds.
        kernel_att: Attention window of the new layers.
        kernel_conv: Their convolution kernel; None is that of the convolution replaced.
        backend: "auto" or a name from `acmix.ops.backends()`.

    Returns:
        Every convolution and what happened to it.

    Raises:
        ValueError: If an argument breaks its rule, `select` names no convolution, the network does not accept the
            example or `warm_start` finds a kernel on the meta device; the network is then unchanged.
        TypeError: If an argument is not of the kind above.
    """
    _check(network, select, heads, warm_start, example_inputs, kernel_conv)
    # Refuses what the new layers would refuse, before anything is done.
    ACmix(1, 1, heads=1, kernel_att=kernel_att, kernel_conv=kernel_conv or 1, backend=backend, device="meta")
    names = _convolutions(network)
    named = selection(None if isinstance(select, int) else select, list(names.values()), "convolutions")
    calls = {} if example_inputs is None else _watch(network, list(names), example_inputs)

    def is_meant(module: _ConvNd, name: str, seen: Calls) -> bool:
        if isinstance(select, int):
            return bool(seen) and all(math.prod(read) <= select for read, _ in seen)
        return named(name, module)

    others = tied(network)
    operators: dict[nn.Module, ACmix] = {}
    layers: list[LayerReport] = []
    for module, name in names.items():
        seen: Calls = calls.get(module, [])
        number = _choose_heads(module) if heads == "auto" else int(heads)
        reason = _why_not(module, number) if is_meant(module, name, seen) else "not selected"
        if reason is None and module in others:
            reason = f"shares weights with {others[module]}"
        residual = None
        if reason is None and isinstance(module, nn.Conv2d) and number is not None:
            operators[module] = operator = _operator(module, number, kernel_att, kernel_conv, backend)
            if warm_start:
                residual = fit_kernel(operator, module.weight, module.bias)
        new: _ConvNd | ACmix = operators.get(module, module)
        layers.append(
            LayerReport(
                name=name,
                convolution=_in_words(module),
                reason=reason,
                heads=number if reason is None else None,
                map_size=max((read for read, _ in seen), key=math.prod, default=None),
                parameters=(_parameters(module), _parameters(new)),
                multiply_adds=(_multiply_adds(module, seen), _multiply_adds(new, seen)) if seen else None,
                residual=residual,
            )
        )
    exchange(network, operators)
    if operators and _is_built_from_yaml(network):
        warnings.warn(
            f"{type(network).__name__}: Ultralytics trains what it builds from the YAML, without these operators, "
            "unless acmix.integrations.ultralytics.register() was called",
            stacklevel=2,
        )
    return Report(tuple(layers))


def _check(
    network: nn.Module,
    select: Select | None,
    heads: int | str,
    warm_start: bool,
    example_inputs: Any,
    kernel_conv: int | None,
) -> None:
    if isinstance(network, _ConvNd):
        raise ValueError(
            f"network must contain its convolutions, got a {type(network).__name__} itself; make an acmix.ACmix"
        )
    if heads != "auto":
        validation.check_positive_integer("heads", heads)
    if isinstance(select, bool) or (isinstance(select, int) and select < 1):
        raise ValueError(f"select must be at least one cell, or names or a predicate, got {select!r}")
    if isinstance(select, int) and example_inputs is None:
        raise ValueError(f"select={select} cells needs example_inputs, to see the sizes of the maps")
    if warm_start and kernel_conv is not None:
        raise ValueError(
            f"kernel_conv must be None with warm_start=True, which fits each layer's own kernel, got {kernel_conv}"
        )


def _is_built_from_yaml(network: nn.Module) -> bool:
    """Whether it is a network of Ultralytics that the integration does not know."""
    theirs = any(base.__module__.partition(".")[0] == "ultralytics" for base in type(network).__mro__)
    return theirs and "yaml" in vars(network) and not hasattr(type(network), "yaml")


def _convolutions(network: nn.Module) -> dict[_ConvNd, str]:
    """Every convolution and its first name, without those inside of an ACmix."""
    inside = {child for module in network.modules() if isinstance(module, ACmix) for child in module.modules()}
    return {
        module: name for name, module in network.named_modules() if isinstance(module, _ConvNd) and module not in inside
    }


def _why_not(module: _ConvNd, heads: int | None) -> str | None:
    """Why a convolution cannot be replaced, or None."""
    if isinstance(module, LazyModuleMixin):
        return "not built yet: call the network once before"
    if isinstance(module, _ConvTransposeNd):
        return "transposed"
    if not isinstance(module, nn.Conv2d):
        return "not two-dimensional"
    reason = why_not_plain(module, nn.Conv2d) or _why_more(module)
    if reason is not None:
        return reason
    if module.groups == module.in_channels > 1:
        return "depthwise"
    if module.groups > 1:
        return "grouped"
    return _why_no_window(module) or _why_no_heads(module, heads)


def _why_more(module: nn.Conv2d) -> str | None:
    """What others hung on a convolution beside its forward pass and would be lost with it."""
    # Masks of gradients, optimisers that step within the backward pass.
    if any(weight._backward_hooks or weight._post_accumulate_grad_hooks for weight in module.parameters(recurse=False)):
        return "has gradient hooks on its weights"
    if any(each for name, each in vars(module).items() if "state_dict" in name):
        return "has state_dict hooks"
    others = (module._parameters | module._buffers | module._modules).keys() - {"weight", "bias"}
    return f"holds {min(others)}, which no operator has" if others else None


def _why_no_window(module: nn.Conv2d) -> str | None:
    (height, width), (stride, dilation) = module.kernel_size, (module.stride, module.dilation)
    if height == width == 1:
        return "1 x 1"
    if height != width or height % 2 == 0:
        return f"kernel {height} x {width}, not odd and square"
    if stride[0] != stride[1] or dilation[0] != dilation[1]:
        return f"stride {stride} or dilation {dilation} differs between the axes"
    if module.padding_mode != "zeros":
        return f"padding mode {module.padding_mode}"
    same = (dilation[0] * (height // 2),) * 2
    # PyTorch has "same" for stride 1 alone.
    if module.padding not in (same, "same"):
        return f"padding {module.padding}, not the {same} that keeps a map's size"
    return None


def _why_no_heads(module: nn.Conv2d, heads: int | None) -> str | None:
    if heads is None:
        return f"no number of heads divides {module.out_channels} channels"
    if module.out_channels % heads:
        return f"{heads} heads do not divide {module.out_channels} channels"
    return None


def _choose_heads(module: _ConvNd) -> int | None:
    """The divisor of C nearest to max(4, C / 128), the smaller of two as near, other than 1 and C."""
    channels = module.out_channels
    wanted = max(_USUAL_HEADS, channels / _LARGEST_HEAD)
    return min(
        (heads for heads in range(2, channels) if channels % heads == 0),
        key=lambda heads: (abs(heads - wanted), heads),
        default=None,
    )


def _operator(module: nn.Conv2d, heads: int, kernel_att: int, kernel_conv: int | None, backend: str) -> ACmix:
    operator = ACmix(
        module.in_channels,
        module.out_channels,
        heads=heads,
        kernel_att=kernel_att,
        kernel_conv=kernel_conv or module.kernel_size[0],
        stride=module.stride[0],
        dilation=module.dilation[0],
        backend=backend,
        bias=module.bias is not None,
        device=module.weight.device,
        dtype=module.weight.dtype,
    )
    # What others wrote on the convolution: Ultralytics, where a layer's input comes from.
    marks = vars(module).keys() - vars(nn.Conv2d(1, 1, 1, device="meta")).keys() - vars(operator).keys()
    vars(operator).update({name: vars(module)[name] for name in marks})
    operator.train(module.training).requires_grad_(module.weight.requires_grad)
    if operator.bias is not None and module.bias is not None:
        operator.bias.requires_grad_(module.bias.requires_grad)
    return operator


def _watch(network: nn.Module, modules: Sequence[nn.Module], example_inputs: Any) -> dict[nn.Module, Calls]:
    """Call the network once; the sizes of the maps that each module read and wrote."""
    calls: dict[nn.Module, Calls] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        (read, *_), axes = (*inputs, *named.values()), output.ndim - 2
        calls.setdefault(module, []).append((tuple(read.shape[-axes:]), tuple(output.shape[-axes:])))

    hooks = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
    training = {module for module in network.modules() if module.training}
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    try:
        with torch.no_grad():
            network.eval()(*arguments)
    # Networks have exceptions of their own.
    except Exception as error:
        reason = first_line(error)
        raise ValueError(f"example_inputs must be what {type(network).__name__} takes, got: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for module in network.modules():
            module.training = module in training
    return calls


def _multiply_adds(module: _ConvNd | ACmix, calls: Calls) -> int:
    if not isinstance(module, _ConvNd):
        return sum(sum(operator_multiply_adds(module, *read).values()) for read, _ in calls)
    transposed = isinstance(module, _ConvTransposeNd)
    return sum(math.prod(read if transposed else written) * module.weight.numel() for read, written in calls)


def _parameters(module: nn.Module) -> int:
    # A lazy layer does not know yet.
    return 0 if isinstance(module, LazyModuleMixin) else sum(parameter.numel() for parameter in module.parameters())


def _in_words(module: _ConvNd) -> str:
    sizes = f"{module.in_channels} -> {module.out_channels}, {' x '.join(map(str, module.kernel_size))}"
    steps = {"stride": module.stride, "dilation": module.dilation}
    changed = [f"{name} {value[0]}" for name, value in steps.items() if set(value) != {1}]
    groups = [f"groups {module.groups}"] if module.groups > 1 else []
    return ", ".join([f"{type(module).__name__} {sizes}", *changed, *groups])
