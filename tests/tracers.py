"""All that traces a network, which a module of ours must be seen through by."""

import torch
from torch import Tensor, nn


def assert_traced(network: nn.Module, x: Tensor, expected: Tensor) -> None:
    """Hold what torch.compile, torch.export, torch.fx, TorchScript and vmap make of a network against its result."""
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(network, (x,)).module()
    for other in (compiled, exported, torch.fx.symbolic_trace(network), torch.jit.trace(network, x)):
        torch.testing.assert_close(other(x), expected)
    torch.testing.assert_close(torch.func.vmap(network)(x[None])[0], expected)
