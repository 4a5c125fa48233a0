"""Start the networks of a study from one that was trained with 3x3 convolutions."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrize

from acmix.errors import InputError
from acmix.paths import operators_of
from acmix.study.networks import resnet_operators
from acmix.surgery.warm_start import warm_start


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How the network with 3x3 convolutions is trained that all others of a seed start from.

    Attributes:
        epochs: Of that training.
        learning_rate: Its own; the settings of the study are those of what follows.
    """

    epochs: int
    learning_rate: float


def start_from(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network the weights of one with 3x3 convolutions; operators start warm, attention at rate 0.

    Args:
        network: Of an ACmix-ResNet, the operator in some of its bottlenecks or all, changed in place.
        weights: Of `acmix.study.networks.convolution` of the same shape.

    Raises:
        InputError: If the network differs from that one in more than the operator.
    """
    operators = resnet_operators(network)
    own = network.state_dict()
    shared = {name for name in own if not any(name.startswith(f"{operator}.") for operator in operators)}
    kernels = {name: weights.get(f"{name}.weight") for name in operators}
    others = {name: tensor for name, tensor in weights.items() if name.removesuffix(".weight") not in operators}
    alike = others.keys() == shared and all(own[name].shape == tensor.shape for name, tensor in others.items())
    plain = not any(parametrize.is_parametrized(operator) for operator in operators.values())
    if not (alike and plain) or len(operators) < len(operators_of(network)):
        raise InputError("it differs from the trained network in more than the operator, and cannot start from it")
    network.load_state_dict(others, strict=False)
    for name, operator in operators.items():
        kernel = kernels[name]
        if kernel is None or kernel.shape[:2] != (operator.out_channels, operator.in_channels):
            raise InputError(f"the trained network has no convolution {name} of its channels")
        warm_start(operator, kernel, None)
