"""torch-pruning with the operator in its networks.

Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, arXiv 2301.12900.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.autograd import Function

from acmix.nn import ACmix, OperatorLayer
from acmix.plain import why_not_plain
from acmix.surgery.identity import copy_network, tied
from acmix.surgery.narrowing import keep_inputs, keep_outputs


class ACmixPruner(torch_pruning.BasePruningFunc):
    """What torch-pruning's dependency graph does with an `ACmix`: as many channels of every head leave its output."""

    TARGET_MODULES = ACmix

    def check(self, layer: ACmix, idxs: Sequence[int], to_output: bool) -> None:
        """Refuse channels that are not there and layers of which `arguments` knows nothing."""
        super().check(layer, idxs, to_output)
        _check(layer)

    def prune_out_channels(self, layer: ACmix, idxs: Sequence[int]) -> ACmix:
        """Leave these channels out; see `acmix.surgery.narrowing.keep_outputs`."""
        keep_outputs(layer, _others(idxs, layer.out_channels))
        return layer

    def prune_in_channels(self, layer: ACmix, idxs: Sequence[int]) -> ACmix:
        """Read these channels no more."""
        keep_inputs(layer, _others(idxs, layer.in_channels))
        return layer

    def get_out_channels(self, layer: ACmix) -> int:
        """C."""
        return layer.out_channels

    def get_in_channels(self, layer: ACmix) -> int:
        """C_in."""
        return layer.in_channels

    def get_out_channel_groups(self, layer: ACmix) -> int:
        """The heads, each of which loses the same channels."""
        return layer.heads


def arguments(network: nn.Module) -> dict[str, Any]:
    """What a pruner of torch-pruning, or its `build_dependency`, must be told of a network with our layers.

    With `root_module_types=[nn.Conv2d, nn.Linear, acmix.ACmix]` the pruner chooses channels of operators, too; without,
    only those of other layers, and operators follow. What is pruned before an operator leaves it exact; fewer outputs
    change what it computes (`acmix.surgery.narrowing.keep_outputs`), as with other attention, so that the network must
    be trained again. Fuse and export afterwards.

    Args:
        network: Not modified.

    Returns:
        `customized_pruners` and `forward_fn`.

    Raises:
        ValueError: If a layer is fused already, has a forward of its own, or weights that something else computes or
            another module shares.
    """
    sharing = tied(network)
    kinds: dict[type[nn.Module], ACmixPruner] = {}
    for name, module in network.named_modules():
        if isinstance(module, OperatorLayer):
            try:
                _check(module)
                if others := {sharing[part] for part in module.modules() if part in sharing}:
                    raise ValueError(f"it shares weights with {', '.join(sorted(others))}")
            except ValueError as error:
                raise ValueError(f"{name or 'the network'} cannot be pruned: {error}") from error
            kinds[type(module)] = ACmixPruner()
    return {"customized_pruners": kinds, "forward_fn": call}


def call(network: nn.Module, example_inputs: Any) -> Any:
    """Call a network such that each operator is one node of the graph of gradients, whatever its backend does.

    Args:
        network: Not modified.
        example_inputs: A tensor, a sequence of arguments, or a mapping of keywords.
    """
    operators = [module for module in network.modules() if isinstance(module, ACmix)]
    for operator in operators:
        operator.forward = functools.partial(_call_as_one, operator)  # type: ignore[method-assign]
    try:
        if isinstance(example_inputs, Mapping):
            return network(**example_inputs)
        return network(*([example_inputs] if isinstance(example_inputs, Tensor) else example_inputs))
    finally:
        for operator in operators:
            del operator.forward


def tell_timm(network: Any, example_inputs: Any) -> None:
    """Set what a pruned network of timm says of its channels: `feature_info`, `num_features`, `head_hidden_size`.

    Args:
        network: Made by `timm.create_model`, with `features_only` or without; its features are maps `(B, C, H, W)`.
        example_inputs: What it is called with once.
    """
    read: dict[int, Tensor] = {}
    # The call moves no statistics of the network's own.
    copied: Any = copy_network(network).eval()
    if hasattr(network.feature_info, "out_indices"):
        features = [network.feature_info.info[index] for index in network.feature_info.out_indices]
    else:
        features = network.feature_info
        for index, feature in enumerate(features):
            copied.get_submodule(feature["module"]).register_forward_hook(functools.partial(_note, read, index))
    with torch.no_grad():
        output = call(copied, example_inputs)
    if not read:
        read = dict(enumerate(output.values() if isinstance(output, Mapping) else output))
    for index, feature in enumerate(features):
        feature["num_chs"] = read[index].shape[1]
    if hasattr(network, "num_features"):
        network.num_features = network.head_hidden_size = features[-1]["num_chs"]


def _note(read: dict[int, Tensor], index: int, _: nn.Module, __: Any, output: Tensor) -> None:
    read[index] = output


class _AsOne(Function):
    """An operator as a function of its input and parameters; nothing needs its gradient."""

    @staticmethod
    def forward(*inputs: Any, **_: Any) -> Tensor:
        operator, x = inputs[1:3]
        return OperatorLayer.forward(operator, x)


def _call_as_one(operator: ACmix, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv2d takes it by
    output: Any = _AsOne.apply(operator, input, *operator.parameters())
    return output


def _others(indices: Sequence[int], count: int) -> list[int]:
    left_out = {*indices}
    return [index for index in range(count) if index not in left_out]


def _check(layer: OperatorLayer) -> None:
    if not isinstance(layer, ACmix):
        raise ValueError(f"it is a {type(layer).__name__}, whose weights are composed; prune before acmix.fuse")
    if type(layer).forward is not OperatorLayer.forward or "forward" in vars(layer):
        raise ValueError("it has a forward of its own")
    if layer._forward_pre_hooks or "parametrizations" in layer._modules:
        raise ValueError("its weights are computed before every call; make them permanent before")
    reason = why_not_plain(layer.qkv, nn.Conv2d)
    if reason is not None:
        raise ValueError(f"its projection {reason}; make its weights permanent before")
