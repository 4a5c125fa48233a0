"""Networks for inference: one composed convolution path, rates and norms in the weights, ReLUs and blocks in one."""

import warnings
from collections.abc import Collection
from typing import Any, TypeVar

from torch import nn

from acmix.nn import ACmix, OperatorLayer
from acmix.plain import why_not_plain
from acmix.surgery.activations import End
from acmix.surgery.fused import FusedACmix, fold_affine
from acmix.surgery.identity import become, copy_network, has_hooks, hooks, modules_of, names_of_modules, tied
from acmix.surgery.norms import affine, kind_of_norm
from acmix.surgery.reading import Reading, UntraceableError, read_network
from acmix.surgery.report import FusedLayer, FusionReport
from acmix.surgery.residual import join_bottlenecks

_Module = TypeVar("_Module", bound=nn.Module)


def fuse(network: _Module) -> _Module:
    """A copy of a network for inference that computes the same with less.

    Every `ACmix` becomes a `FusedACmix`, and every two-dimensional batch norm behind one, or behind an `nn.Conv2d`, is
    folded into its weights, under all names that it has: equal to the network in evaluation mode within rounding. An
    `nn.ReLU` whose output a `FusedACmix` alone reads, or that stands behind one, becomes part of that, too. A residual
    bottleneck of any class, relu(1x1 convolution of operator(..) + shortcut), becomes a `FusedBottleneck`: its parts
    are named `before`, `first`, `operator`, `last`, `shortcut` and `downsample` then, and its own names (conv2, ..) are
    gone. What cannot be folded exactly stays as it is, and `fusion_report`, an attribute of the copy, says what and
    why: subclasses, modules with hooks, parametrisations or a forward of their own, all that a hook can read, tied
    weights, modules that are called more than once, whose output or weights the network reads otherwise, or whose
    scales leave the range of the dtype. Readers are found by tracing the network with torch.fx; where that is not
    possible norms and ReLUs stay, with a warning.

    Hooks stay. One that is a method of a module of the network, or a functools.partial of one, is bound to the copy's;
    any other is the same object as the network's. What a hook or a patched forward holds as a closure is the network's.

    Args:
        network: Any network, not modified.

    Returns:
        The copy, in evaluation mode, without gradients, with a `FusionReport` as its `fusion_report`.
    """
    fused = copy_network(network).eval()
    names = names_of_modules(fused)
    norms = [module for module in names if kind_of_norm(module) is not None]
    layers = [module for module in names if isinstance(module, ACmix | FusedACmix | nn.Conv2d)]
    operators = [layer for layer in layers if isinstance(layer, OperatorLayer)]
    relus = _relus(names, norms) if operators else {}
    features = _features(names)
    plain = {module for module in (*layers, *norms) if why_not_plain(module, _kind(module)) is None}
    reading, problem = Reading(), None
    if norms or operators:
        try:
            reading = read_network(fused, layers, norms, operators, relus)
        except UntraceableError as error:
            problem = f"torch.fx cannot trace it: {error}"
    if problem is not None and norms:
        warnings.warn(f"the batch norms of {type(network).__name__} stay, {problem}", stacklevel=2)
    obstacles = _obstacles(fused, names, reading)
    reports: list[FusedLayer] = []
    for operator in (operator for operator in operators if isinstance(operator, ACmix)):
        reason = why_not_plain(operator, ACmix) or obstacles.get(operator) or _compose(operator)
        obstacles |= {} if reason is None else {operator: reason}
        reports.append(FusedLayer(name=names[operator], kind="ACmix", reason=reason))
    for norm in norms:
        kind = kind_of_norm(norm) or type(norm)
        before = reading.layer_before(norm) if problem is None else f"is part of a network: {problem}"
        reason = why_not_plain(norm, kind) or obstacles.get(norm)
        if reason is None:
            reason = before if isinstance(before, str) else _fold(norm, before, obstacles)
        into = names[before] if reason is None and isinstance(before, nn.Module) else None
        reports.append(FusedLayer(name=names[norm], kind=kind.__name__, into=into, reason=reason))
    rectified: dict[nn.Module, FusedLayer] = {}
    for relu in relus:
        end = reading.end_of(relu) if problem is None else f"is part of a network: {problem}"
        if end is None:
            continue
        reason = why_not_plain(relu, nn.ReLU) or obstacles.get(relu)
        if reason is None:
            reason = end if isinstance(end, str) else _take_in(relu, end, obstacles, plain, features)
        into = names[end.operator] if reason is None and isinstance(end, End) else None
        rectified[relu] = FusedLayer(name=names[relu], kind="ReLU", into=into, reason=reason)
    for norm in norms:
        if isinstance(norm, nn.Sequential) and all(why_not_plain(part, nn.Identity) is None for part in norm):
            become(norm, nn.Identity().eval())
    blocks = join_bottlenecks(fused, names, obstacles, features)
    kept = {*fused.modules()}
    for block, found in blocks.items():
        reports.append(
            FusedLayer(name=names[block], kind="Bottleneck", reason=found if isinstance(found, str) else None)
        )
        gone = set[nn.Module]() if isinstance(found, str) else found.relus - kept
        into = {relu: FusedLayer(name=names[relu], kind="ReLU", into=names[block]) for relu in gone & rectified.keys()}
        rectified |= into
    fused.fusion_report = FusionReport((*reports, *rectified.values()))  # type: ignore[assignment]
    return fused.requires_grad_(False)


def _kind(layer: nn.Module) -> type[nn.Module]:
    """The layer or norm that a module is, or derives from."""
    kinds = (ACmix, FusedACmix, nn.Conv2d)
    return kind_of_norm(layer) or next((kind for kind in kinds if isinstance(layer, kind)), type(layer))


def _relus(names: Collection[nn.Module], norms: Collection[nn.Module]) -> dict[nn.Module, nn.Module]:
    """Every ReLU, and the norm whose last part it is, or itself."""
    acts = {
        norm.act: norm
        for norm in norms
        if isinstance(getattr(norm, "act", None), nn.ReLU)
        and why_not_plain(getattr(norm, "drop", None) or nn.Identity(), nn.Identity) is None
    }
    return {module: acts.get(module, module) for module in names if isinstance(module, nn.ReLU)}


def _features(names: Collection[nn.Module]) -> set[nn.Module]:
    """The modules whose outputs networks of timm give as features, by methods of their own that are not traced."""
    named = ((module, entry) for module in names for entry in _listed(getattr(module, "feature_info", None)))
    parts = ((dict(module.named_modules()), entry.get("module")) for module, entry in named)
    return {known[name] for known, name in parts if name in known}


def _listed(info: Any) -> list[dict[str, Any]]:
    return [entry for entry in info if isinstance(entry, dict)] if isinstance(info, list) else []


def _obstacles(network: nn.Module, names: dict[nn.Module, str], reading: Reading) -> dict[nn.Module, str]:
    """The modules whose weights others depend on, and the reason, which follows their name in a sentence."""
    obstacles = {module: f"shares weights with {other}" for module, other in tied(network).items()}
    obstacles |= {module: f"is read by the network: {attribute}" for module, attribute in reading.read.items()}
    for module in filter(has_hooks, names):
        for seen in (module, *(bound for hook in hooks(module) for bound in modules_of(hook))):
            others = set(seen.modules()) - {module}
            obstacles |= dict.fromkeys(others, f"can be read by a hook of {names[module] or 'the network'}")
    return obstacles


def _compose(operator: ACmix) -> str | None:
    """Make an operator a fused one, or say why not."""
    try:
        fused = FusedACmix(operator)
    except ValueError as error:
        return f"cannot be composed: {error}"
    fused.qkv = operator.qkv
    become(operator, fused.eval())
    return None


def _fold(norm: nn.Module, layer: nn.Module, obstacles: dict[nn.Module, str]) -> str | None:
    """Fold a norm into the layer before it, or say why not."""
    kind = FusedACmix if isinstance(layer, FusedACmix) else nn.Conv2d
    reason = obstacles.get(layer) or why_not_plain(layer, kind)
    if reason is None and isinstance(layer, FusedACmix):
        reason = obstacles.get(layer.qkv)
    if reason is not None:
        return f"follows a layer that {reason}"
    try:
        fold_affine(layer, *affine(norm, layer))
    except ValueError as error:
        return f"cannot be folded: {error}"
    # timm's batch norms with an activation leave that behind.
    after = [norm.get_submodule(name) for name in ("drop", "act") if hasattr(norm, name)]
    become(norm, nn.Sequential(*after).eval() if after else nn.Identity().eval())
    return None


def _take_in(
    relu: nn.Module,
    end: End,
    obstacles: dict[nn.Module, str],
    plain: Collection[nn.Module],
    features: Collection[nn.Module],
) -> str | None:
    """Make a ReLU part of the operator beside it, or say why not."""
    operator: Any = end.operator
    neighbour, inplace = end.neighbour, getattr(relu, "inplace", False)
    reason = obstacles.get(operator) or why_not_plain(operator, FusedACmix)
    if reason is not None:
        return f"stands beside an operator that {reason}"
    changed = {relu} if end.side == "before" else {operator, neighbour} - {relu}
    if not changed.isdisjoint(features):
        return "stands beside a feature of the network"
    if end.side == "before":
        # A plain layer has made what the ReLU reads, for it alone: nobody else holds a view of it, or of who called us.
        if inplace and neighbour not in plain:
            return "changes in place what others may read"
        if not end.next and neighbour not in plain:
            return "reads what others may change"
        operator.rectified_input = True
    elif isinstance(neighbour, nn.Identity | nn.Sequential) or neighbour is relu:
        operator.rectified = True
    else:
        return "follows a norm that stays"
    become(relu, nn.Identity().eval())
    return None
