"""Ultralytics: ACmix in its YAML files, and networks that keep it through training, saving, fusing and export.

`register()` is the one call. It puts functions of ours around those of Ultralytics that lose or refuse an operator: the
parser of YAML files, the YAML that a network says it is described by, pickling, fusing, `YOLO.train`, export to ncnn.
"""

import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any

from torch import Tensor, nn
from ultralytics import nn as networks
from ultralytics.engine import trainer
from ultralytics.engine.exporter import Exporter
from ultralytics.engine.model import Model
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv, Conv2, RepConv
from ultralytics.utils import LOGGER

from acmix.nn import ACmix, OperatorLayer
from acmix.ops.tracing import without_gathers
from acmix.surgery import FusedACmix, fuse, replace_convolutions
from acmix.surgery.identity import exchange

_LAYER = "ACmix"
_IN_A_BLOCK = f"_{_LAYER}"
# Where the YAML of a network holds the operators that its rows do not tell.
_KEY = "acmix"
# Of an operator that only its own code can make.
_TYPE = "type"
# What Ultralytics' parser writes on every layer, and reads of it.
_MARKS = ("i", "f", "type", "np")

_Row = list[Any]


def register() -> None:
    """Make ACmix known to Ultralytics in this process; calling it again does nothing.

    From then on

    - YAML files may have rows named `ACmix`, the layer, and `X_ACmix`, the block X (Conv, C2f, C3, C3k2, ...) with
      ACmix in the place of its convolutions. Channels are those of any block: the input's from the row that it reads,
      the output's scaled by the width. Options stand in a mapping at the end of the arguments, for a block those of
      `acmix.replace_convolutions`, for the layer also stride, dilation and bias:
      `[-1, 1, ACmix, [256, {stride: 2, heads: 8}]]`.
    - The `yaml` of a network tells which of its layers are operators, under the key "acmix", however they came there
      (`acmix.replace_convolutions(yolo.model)`); what is built from it, as `YOLO.train` does, has them again.
    - `fuse()` folds the norms behind operators into them.
    - Checkpoints of such networks call this function when they are loaded.
    """
    if isinstance(vars(tasks.BaseModel).get("yaml"), property):
        return
    tasks.parse_model = networks.parse_model = _parsing(tasks.parse_model)
    tasks.BaseModel.yaml = property(_described, _describe)
    tasks.BaseModel.__getstate__ = _state
    tasks.BaseModel.fuse = _fusing(tasks.BaseModel.fuse)
    Model.train = _training(Model.train)
    Exporter.export_ncnn = without_gathers()(Exporter.export_ncnn)
    if not hasattr(trainer, "MultiTrainer"):
        # Older than 8.4.160 or so: processes of their own read a network from the file that it came from.
        Model.tune = _from_a_file(Model.tune, lambda model: (model.model, model.overrides["model"]))
        trainer.generate_ddp_command = _from_a_file(
            trainer.generate_ddp_command, lambda training: (training.model, training.args.model)
        )


def _parsing(theirs: Callable[..., tuple[nn.Sequential, list[int]]]) -> Callable[..., tuple[nn.Sequential, list[int]]]:
    """Their parser, for rows of ours too: those are read as the blocks of theirs that they stand for."""

    @functools.wraps(theirs)
    def parse_model(d: dict[str, Any], ch: int, verbose: bool = True) -> tuple[nn.Sequential, list[int]]:
        ours = {index: row for index, row in enumerate([*d["backbone"], *d["head"]]) if _is_ours(row[2])}
        parts = {
            part: [_as_theirs(row) if _is_ours(row[2]) else row for row in d[part]] for part in ("backbone", "head")
        }
        layers, save = theirs({**d, **parts}, ch, verbose)
        for index, row in ours.items():
            layer, layers[index] = layers[index], _operated(layers[index], row)
            _mark(layers[index], {**vars(layer), "type": row[2]})
        _put(layers, d.get(_KEY, {}))
        for index, layer in enumerate(layers):
            count, parameters = len([*_operators(layer)]), sum(parameter.numel() for parameter in layer.parameters())
            _mark(layer, {"np": parameters})
            if verbose and count:
                LOGGER.info(f"layer {index}, {layer.type}: {count} x ACmix, {parameters} parameters")
        return layers, save

    return parse_model


def _is_ours(name: str) -> bool:
    """Whether a row is ours to read.

    Raises:
        ValueError: If it sounds like it and is not.
    """
    block = name.removesuffix(_IN_A_BLOCK)
    if name == _LAYER or (name.endswith(_IN_A_BLOCK) and _is_block(block)):
        return True
    if _LAYER.lower() in name.lower() and name not in vars(tasks):
        known = [_LAYER, *(f"{block}{_IN_A_BLOCK}" for block in vars(tasks) if _is_block(block))]
        lower = {one.lower(): one for one in known}
        near = difflib.get_close_matches(name.lower(), lower, n=3)
        raise ValueError(
            f"a row of the YAML must be named ACmix, the layer, or X_ACmix, a block X of Ultralytics with ACmix in its "
            f"convolutions, got {name!r}; near are {', '.join(lower[one] for one in near) or 'none'}"
        )
    return False


def _is_block(name: str) -> bool:
    block = vars(tasks).get(name)
    return isinstance(block, type) and issubclass(block, nn.Module)


def _split(row: _Row) -> tuple[_Row, dict[str, Any]]:
    """The arguments of a row, without and with names."""
    arguments = row[3]
    named = bool(arguments) and isinstance(arguments[-1], dict)
    return (arguments[:-1], arguments[-1]) if named else (arguments, {})


def _as_theirs(row: _Row) -> _Row:
    """The row of theirs that has the channels of one of ours."""
    source, repeats, name, _ = row
    arguments, _ = _split(row)
    if name != _LAYER:
        return [source, repeats, name.removesuffix(_IN_A_BLOCK), arguments]
    if len(arguments) == 1:
        return [source, repeats, "Conv", arguments]
    if arguments or source != -1:
        raise ValueError(
            f"{row} must have the output's channels as its only argument without a name, [256] or [256, {{stride: 2, "
            "heads: 8}], or none where it reads the row before and keeps its channels; see acmix.ACmix for names"
        )
    # A local variable of the parser: the channels of the row before.
    return [source, repeats, "nn.Conv2d", ["c2", "c2", 1]]


def _operated(layer: nn.Module, row: _Row) -> nn.Module:
    """What a row of ours describes, from what theirs made."""
    _, options = _split(row)
    try:
        return _layer(layer, **options) if row[2] == _LAYER else _block(layer, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{row} in the YAML: {error}") from error


def _layer(layer: nn.Module, stride: int = 1, dilation: int = 1, bias: bool = False, **options: Any) -> nn.Module:
    """As many operators as there are blocks of theirs, one after the other."""
    shapes = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
    written = shapes[0].out_channels
    chain = nn.Sequential()
    for read in [shapes[0].in_channels] + [written] * (len(shapes) - 1):
        chain.append(nn.Conv2d(read, written, 3, stride, dilation, dilation, bias=bias))
    _block(chain, **options)
    return chain if len(chain) > 1 else chain[0]


def _block(layer: nn.Module, **options: Any) -> nn.Module:
    report = replace_convolutions(layer, **options)
    if not report.replaced:
        reasons = "; ".join(f"{left.name} ({left.convolution}) is {left.reason}" for left in report.layers)
        raise ValueError(f"it has no convolution that ACmix can replace: {reasons or 'none at all'}")
    return layer


def _put(layers: nn.Sequential, records: dict[str, dict[str, Any]]) -> None:
    """Put operators where the records say that they are.

    Raises:
        ValueError: If there is no place for one.
    """
    modules = dict(layers.named_modules())
    for name, arguments in records.items():
        if _TYPE in arguments:
            raise ValueError(f"model.{name} is a {arguments[_TYPE]}, which a YAML cannot describe: only ACmix itself")
        old = modules.get(name)
        if not isinstance(old, ACmix | nn.Conv2d):
            found = "nothing" if old is None else f"a {type(old).__name__}"
            raise ValueError(
                f"the YAML says that model.{name} is an ACmix, but a network built from its rows has {found} there, no "
                "convolution; write the layer into a row"
            )
        if isinstance(old, nn.Conv2d) or _record(old) != arguments:
            new = ACmix(old.in_channels, old.out_channels, **arguments)
            _mark(new, vars(old))
            exchange(layers, {old: new})


def _mark(layer: nn.Module, marks: Mapping[str, Any]) -> None:
    vars(layer).update({name: marks[name] for name in _MARKS if name in marks})


def _record(operator: OperatorLayer) -> dict[str, Any]:
    """The arguments of an operator, without channels: those may be other ones in a network for other classes."""
    if type(operator) not in (ACmix, FusedACmix):
        return {_TYPE: type(operator).__name__}
    return {
        "heads": operator.heads,
        "kernel_att": operator.kernel_att,
        "kernel_conv": operator.kernel_conv,
        "stride": operator.stride[0],
        "dilation": operator.dilation[0],
        "backend": operator.backend,
        "quiet_shifts": isinstance(operator, ACmix) and operator.quiet_shifts,
        "bias": operator.bias is not None,
    }


def _operators(network: nn.Module) -> Iterator[tuple[str, OperatorLayer]]:
    yield from ((name, module) for name, module in network.named_modules() if isinstance(module, OperatorLayer))


def _described(network: Any) -> Any:
    """The YAML of a network, with its operators as they are now."""
    try:
        description = vars(network)["yaml"]
    except KeyError:
        raise AttributeError("yaml") from None
    layers = network._modules.get("model")
    found = {} if layers is None else dict(_operators(layers))
    # Those that are fused are for inference, and what they were before was noted.
    if layers is not None and not any(isinstance(operator, FusedACmix) for operator in found.values()):
        description.pop(_KEY, None)
        if found:
            description[_KEY] = {name: _record(operator) for name, operator in found.items()}
    return description


def _describe(network: Any, description: Any) -> None:
    vars(network)["yaml"] = description


class _Registration:
    """Pickled, it is a call of `register`."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return register, ()


def _state(network: Any) -> dict[str, Any]:
    """What is pickled of a network: one with operators teaches the process that loads it what they are."""
    described = getattr(network, "yaml", None) or {}
    return {**vars(network), **({"_acmix": _Registration()} if _KEY in described else {})}


def _fusing(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def fuse_network(network: Any, /, *arguments: Any, **options: Any) -> Any:
        getattr(network, "yaml", None)
        for module in [*network.modules()]:
            if isinstance(module, RepConv) and hasattr(module, "conv1"):
                _fuse_branches(module)
            elif isinstance(module, Conv) and hasattr(module, "bn") and isinstance(module.conv, OperatorLayer):
                _fuse_norm(module)
        return theirs(network, *arguments, **options)

    return fuse_network


def _fuse_norm(block: Any) -> None:
    """Fold the norm of a block of theirs into the operator before it; where that cannot be, it follows."""
    before = _Sum([block.conv, block.cv2]) if isinstance(block, Conv2) else block.conv
    fused = fuse(nn.Sequential(before, block.bn))
    block.conv = fused[0] if isinstance(fused[1], nn.Identity) else fused
    del block.bn
    # Not of the block: that of a Conv2 would call the norm in version 8.3.
    block.forward = MethodType(Conv.forward_fuse, block)


def _fuse_branches(block: Any) -> None:
    """Keep the branches of a block that theirs would make one convolution, if there is an operator among them."""
    if next(_operators(block), None) is not None:
        block.conv = _Sum(branch for branch in (block.conv1, block.conv2, block.bn) if branch is not None)
        del block.conv1, block.conv2, block.bn


class _Sum(nn.ModuleList):
    """The sum of modules that read the same map."""

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (module(x) for module in self)
        return sum(others, first)


def _training(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def train(model: Any, /, *arguments: Any, **options: Any) -> Any:
        # Without a checkpoint it may read the YAML's file again.
        if not model.ckpt and isinstance(model.model, nn.Module) and next(_operators(model.model), None):
            model.ckpt = {"model": model.model}
        return theirs(model, *arguments, **options)

    return train


def _from_a_file(theirs: Callable[..., Any], source: Callable[[Any], tuple[Any, str]]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def hand_over(owner: Any, /, *arguments: Any, **options: Any) -> Any:
        network, file = source(owner)
        if isinstance(network, nn.Module):
            _check_file(network, file)
        return theirs(owner, *arguments, **options)

    return hand_over


def _check_file(network: nn.Module, file: str) -> None:
    """Refuse a file that holds a network without the operators of this one."""
    ours = {name for name, _ in _operators(network)}
    if ours and str(file).endswith(".pt"):
        checkpoint, _ = tasks.torch_safe_load(file)
        ours ^= {name for name, _ in _operators(checkpoint.get("ema") or checkpoint["model"])}
    if ours:
        raise ValueError(
            f"this version of Ultralytics reads the network from {file} in processes of their own, and its operators "
            'are not there: model.save("network.pt"), and then the same with YOLO("network.pt")'
        )
