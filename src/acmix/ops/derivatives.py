"""Derivatives of every order of operators that PyTorch cannot see into.

A kernel has a backward pass: one derivative, in reverse. All others are those of its definition in plain PyTorch
operations: reverse over reverse; forward, which is the derivative of reverse by the gradient that it is linear in; and
what is built of both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import Function, forward_ad
from torch.utils import _pytree as pytree

from acmix.ops.precision import widen, without_autocast
from acmix.ops.tracing import is_transformed

_BackwardPass = Callable[[Sequence[bool], Tensor, Sequence[Tensor], Sequence[Any]], Sequence[Tensor | None]]


def pull_back(function: Callable[..., Any], values: Sequence[Any], gradient: Any) -> tuple[Any, ...]:
    """The gradient of every value, through a function of them and from the gradient of its result."""
    pull: Callable[[Any], tuple[Any, ...]] = torch.func.vjp(function, *values)[1]
    return pull(gradient)


class Operator:
    """An operator of PyTorch's library with all its derivatives; it is called with the operator's arguments in order.

    Args:
        name: "namespace::name". The operator takes tensors or None, and then numbers; it returns its output, or a tuple
            of that and of what its backward pass takes besides.
        backward: Takes which arguments want a gradient, the output's gradient, what the operator returned besides, and
            its arguments; returns a gradient for each argument, None or anything where none is wanted.
        definition: The output in differentiable operations, of the same arguments with tensors of 32 bits or more.
        maps: So many of the first arguments are maps `(B, ...)` of images that do not see each other.
    """

    def __init__(self, name: str, backward: _BackwardPass, definition: Callable[..., Tensor], *, maps: int = 1) -> None:
        namespace, _, short = name.partition("::")
        self.compute = getattr(getattr(torch.ops, namespace), short).default
        self.backward = backward
        self.maps = maps
        # So many of its arguments are tensors, the first ones.
        self.tensors = sum("Tensor" in str(argument.type) for argument in self.compute._schema.arguments)
        self._definition = definition

        def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            _save(ctx, self, inputs, output)

        # For torch.compile, which takes no function that has a forward derivative of its own.
        torch.library.register_autograd(name, _differentiate, setup_context=save)

    def __call__(self, *arguments: Any) -> Tensor:
        """The output."""
        if not torch.compiler.is_dynamo_compiling():
            output = _apply(_Forward, self, *arguments)
        elif torch._C._are_functorch_transforms_active():
            output = self.define(*arguments)
        else:
            output = self.compute(*arguments)
        return output[0] if isinstance(output, tuple) else output

    def define(self, *arguments: Any) -> Tensor:
        """The output by the definition, in the dtype of the first argument."""
        with without_autocast(arguments[0].device):
            wide = (widen(argument)[0] if isinstance(argument, Tensor) else argument for argument in arguments)
            return self._definition(*wide).to(arguments[0].dtype)


@dataclass(eq=False)
class _Pass:
    """A backward pass: of which operator, what it returned besides its output, and which arguments want a gradient."""

    operator: Operator
    beside: int
    wanted: tuple[bool, ...]

    @property
    def tensors(self) -> int:
        """So many of what it takes are tensors: the gradient of the output, and those of the operator's arguments."""
        return 1 + self.operator.tensors

    @property
    def positions(self) -> list[int]:
        """Of the arguments that want a gradient."""
        return [position for position, want in enumerate(self.wanted) if want]

    def pull(self, gradient: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        """The gradients that are wanted, by the definition."""
        function, values = _of_some(self.operator.define, self.positions, arguments)
        return pull_back(function, values, gradient)


class _Forward(Function):
    """Of an operator and its arguments: what it returns."""

    @staticmethod
    def forward(*inputs: Any, **_: Any) -> Any:
        operator, *arguments = inputs
        # Past the gradient that it has for torch.compile.
        with torch._C._AutoDispatchBelowAutograd():
            return operator.compute(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save(ctx, inputs[0], inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        return None, *_differentiate(ctx, *gradients)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        arguments, beside = _saved(ctx)
        tangent = _push(ctx.owner.define, arguments, tangents[1:])
        return (tangent, *(None for _ in beside)) if beside else tangent

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        maps = inputs[0].maps
        together = all(dim is None for dim in in_dims[1 + maps :])
        return _batch(_Forward, info.batch_size, in_dims, inputs, maps if together else 0)


class _Backward(Function):
    """Of a backward pass, the output's gradient, what the operator returned besides, and its arguments: gradients."""

    @staticmethod
    def forward(*inputs: Any, **_: Any) -> tuple[Tensor | None, ...]:
        backward_pass, gradient, *rest = inputs
        beside, arguments = rest[: backward_pass.beside], rest[backward_pass.beside :]
        gradients = backward_pass.operator.backward(backward_pass.wanted, gradient, beside, arguments)
        return tuple(gradients[position] for position in backward_pass.positions)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        backward_pass, gradient, *rest = inputs
        _save(ctx, backward_pass, (gradient, *rest[backward_pass.beside :]), None)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        arguments, _ = _saved(ctx)
        needed = _without_beside(ctx, ctx.needs_input_grad)
        positions = [position for position, need in enumerate(needed) if need]
        function, values = _of_some(ctx.owner.pull, positions, arguments)
        found = dict(zip(positions, pull_back(function, values, gradients), strict=True))
        gradient, *of_arguments = (found.get(position) for position in range(len(arguments)))
        return None, gradient, *(None for _ in range(ctx.owner.beside)), *of_arguments

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        arguments, _ = _saved(ctx)
        return _push(ctx.owner.pull, arguments, _without_beside(ctx, tangents))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        backward_pass, maps = inputs[0], inputs[0].operator.maps
        together = not any(backward_pass.wanted[maps:])
        maps += 1 + backward_pass.beside
        together = together and all(dim is None for dim in in_dims[1 + maps :])
        return _batch(_Backward, info.batch_size, in_dims, inputs, maps if together else 0)


def _light(function: type[Function]) -> type[Function]:
    """The same without `setup_context`, which torch.func alone needs: PyTorch takes a third of a small call for it."""

    class Light(Function):
        @staticmethod
        def forward(*inputs: Any, **_: Any) -> Any:
            output = function.forward(*inputs[1:])
            function.setup_context(inputs[0], inputs[1:], output)
            return output

        backward = staticmethod(function.backward)
        jvp = staticmethod(function.jvp)

    return Light


_LIGHT: dict[type[Function], type[Function]] = {function: _light(function) for function in (_Forward, _Backward)}


def _apply(function: type[Function], *inputs: Any) -> Any:
    """`function.apply`, at the least cost."""
    if torch._C._are_functorch_transforms_active():
        return function.apply(*inputs)
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return _LIGHT[function].apply(*inputs)
    return function.forward(*inputs)


def _without_beside(ctx: Any, values: Sequence[Any]) -> tuple[Any, ...]:
    """Of values for every input of `_Backward` those for the gradient and the operator's arguments."""
    return values[1], *values[2 + ctx.owner.beside :]


def _save(ctx: Any, owner: Any, arguments: Sequence[Any], output: Any) -> None:
    """Keep what both derivatives need: `arguments`, and what an operator returned besides its output."""
    beside = output[1:] if isinstance(output, tuple) else ()
    ctx.owner = owner
    ctx.numbers = arguments[owner.tensors :]
    tensors = (*arguments[: owner.tensors], *beside)
    ctx.save_for_backward(*tensors)
    if is_transformed():
        ctx.save_for_forward(*tensors)
    if beside:
        ctx.mark_non_differentiable(*beside)


def _saved(ctx: Any) -> tuple[tuple[Any, ...], tuple[Tensor, ...]]:
    """The arguments, and what was returned besides the output."""
    # Read once: activation checkpointing hands saved tensors out a single time.
    # After a transform of torch.func has ended its tensors are wrappers that only PyTorch's own operations see through.
    tensors, count = unwrap_dead_wrappers(ctx.saved_tensors), ctx.owner.tensors
    return (*tensors[:count], *ctx.numbers), tensors[count:]


def _differentiate(ctx: Any, gradient: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    """The gradient of every argument of an operator, itself differentiable where PyTorch asks for that."""
    arguments, beside = _saved(ctx)
    wanted = ctx.needs_input_grad[-len(arguments) :]
    if not (torch.is_grad_enabled() or is_transformed()):
        gradients = ctx.owner.backward(wanted, gradient, beside, arguments)
        return tuple(each if want else None for each, want in zip(gradients, wanted, strict=True))
    backward_pass = _Pass(ctx.owner, len(beside), wanted)
    gradients = iter(_apply(_Backward, backward_pass, gradient, *beside, *arguments))
    return tuple(next(gradients) if want else None for want in wanted)


def _of_some(
    function: Callable[..., Any], positions: Sequence[int], arguments: Sequence[Any]
) -> tuple[Callable[..., Any], list[Tensor]]:
    """The function of the arguments at some positions, the others fixed, and these arguments."""

    def of_some(*values: Tensor) -> Any:
        given = list(arguments)
        for position, value in zip(positions, values, strict=True):
            given[position] = value
        return function(*given)

    return of_some, [arguments[position] for position in positions]


def _push(function: Callable[..., Any], arguments: Sequence[Any], tangents: Sequence[Tensor | None]) -> Any:
    """The forward derivative along the tangents: reverse is linear in the gradient, and its transpose goes forward."""
    positions = [position for position, tangent in enumerate(tangents) if tangent is not None]
    of_some, values = _of_some(function, positions, arguments)

    def reverse(gradient: Any) -> tuple[Tensor, ...]:
        return pull_back(of_some, values, gradient)

    # Jacobians of Jacobians: PyTorch stops outer forward derivatives, too, while it asks for this one.
    with forward_ad._set_fwd_grad_enabled(True):
        values = [forward_ad.unpack_dual(value).primal for value in values]
        zeros = pytree.tree_map(torch.zeros_like, of_some(*values))
        return pull_back(reverse, (zeros,), tuple(tangents[position] for position in positions))[0]


def _batch(
    function: type[Function], size: int, dims: Sequence[int | None], inputs: Sequence[Any], maps: int
) -> tuple[Any, int]:
    """`function` with batches along `dims`: of `maps` behind the first input, as one longer batch; else one by one."""
    if not maps:
        each = [
            _apply(
                function,
                *(given if dim is None else given.select(dim, index) for given, dim in zip(inputs, dims, strict=True)),
            )
            for index in range(size)
        ]
        return pytree.tree_map(_stack, *each), 0
    joined = (
        (given.expand(size, *given.shape) if dim is None else given.movedim(dim, 0)).flatten(0, 1)
        for given, dim in zip(inputs[1 : 1 + maps], dims[1 : 1 + maps], strict=True)
    )
    output = _apply(function, inputs[0], *joined, *inputs[1 + maps :])
    return pytree.tree_map(partial(_divide, size), output), 0


def _stack(*outputs: Tensor) -> Tensor:
    return torch.stack(outputs)


def _divide(size: int, output: Tensor) -> Tensor:
    return output.unflatten(0, (size, output.shape[0] // size))
