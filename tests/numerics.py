"""The one tolerance policy.

A result is right if its error against float64 is at most `FACTOR` times the error that plain eager PyTorch makes with
the definition in the same dtype, or `FACTOR` roundings of the result where eager is lucky. Errors are Frobenius norms.
In float64 what is called exact is eager itself, which rounds as well: there both may be `FACTOR` roundings off.
"""

import torch
from torch import Tensor

FACTOR = 6
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def assert_as_exact_as_eager(name: str, actual: Tensor, eager: Tensor, exact: Tensor, scale: float = 0.0) -> None:
    """Hold `actual` against `exact` (float64) as the module says.

    `scale` is the norm of what was summed, for results that cancel (the gradient of a rate).
    """
    assert actual.shape == exact.shape, f"{name}: shape {tuple(actual.shape)}, must be {tuple(exact.shape)}"
    assert actual.dtype == eager.dtype, f"{name}: dtype {actual.dtype}, must be {eager.dtype}"
    assert torch.isfinite(actual).all(), f"{name}: not finite"
    rounding = torch.finfo(actual.dtype).eps * max(exact.norm().item(), scale)
    eager_error = (eager.double() - exact).norm().item()
    error = (actual.double() - exact).norm().item()
    bound = FACTOR * max(rounding * (2 if actual.dtype == torch.float64 else 1), eager_error)
    assert error <= bound, f"{name}: error {error:.3e} above {bound:.3e} (eager {eager_error:.3e}, eps {rounding:.3e})"
