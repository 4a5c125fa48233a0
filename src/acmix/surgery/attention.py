"""Put a convolution path beside the attention of timm's Swin transformers."""

from typing import Any

from timm.models import swin_transformer as timm_swin
from torch import nn

from acmix import ops
from acmix.models.swin import WindowACmix, mix_paths
from acmix.ops import validation
from acmix.plain import why_not_plain
from acmix.surgery.identity import exchange
from acmix.surgery.report import AttentionLayer, AttentionReport
from acmix.surgery.selection import Named, selection

_Block = timm_swin.SwinTransformerBlock


def replace_attention(
    network: nn.Module,
    *,
    select: Named | None = None,
    warm_start: bool = False,
    kernel_conv: int = 3,
    backend: str = "auto",
) -> AttentionReport:
    """Replace the window attention of timm's `SwinTransformer` by `acmix.models.WindowACmix`, in place.

    Projections, positions and everything else are kept, and with them what was trained; the convolution path is new.
    What cannot be replaced is left and reported with its reason: blocks and attention that are subclasses or have a
    forward of their own, attention with hooks, which would see maps in place of windows, or of several blocks, or whose
    heads hold more or fewer channels than the map. Either every selected layer that can be replaced is, or, on an
    error, none. Make the optimiser afterwards.

    Args:
        network: Any network that holds blocks of timm's `SwinTransformer`.
        select: Which attention: None for all, a name or glob ("layers.3.*"), several of them, or a predicate of name
            and module.
        warm_start: Start with the rates 1 of attention and 0 of the convolution path, so that outputs are as they were,
            in place of 0.5 both.
        kernel_conv: Convolution kernel k_c, odd.
        backend: Of the convolution path, "auto" or a name from `acmix.ops.backends()`.

    Returns:
        Every window attention and what happened to it.

    Raises:
        ValueError: If an argument breaks its rule, `select` names no attention or the network has none; the network is
            then unchanged.
        TypeError: If an argument is not of the kind above.
    """
    validation.check_odd("kernel_conv", kernel_conv)
    ops.check_backend(backend)
    blocks = _blocks(network)
    if not blocks:
        raise ValueError(
            f"network must hold window attention of timm's SwinTransformer, {type(network).__name__} has none that is "
            "not mixed already; acmix.replace_convolutions is for convolutions"
        )
    is_selected = selection(select, [f"{name}.attn" for name in blocks.values()], "window attention")
    holders: dict[nn.Module, list[str]] = {}
    for block, name in blocks.items():
        holders.setdefault(block.attn, []).append(name)
    # A predicate may raise: nothing is changed before all of them have answered.
    reasons = {
        block: _why_not(block, holders) if is_selected(f"{name}.attn", block.attn) else "not selected"
        for block, name in blocks.items()
    }
    operators: dict[nn.Module, nn.Module] = {}
    layers: list[AttentionLayer] = []
    for block, name in blocks.items():
        attention, reason = block.attn, reasons[block]
        before = _parameters(attention)
        if reason is None:
            operators[attention] = _mix(block, warm_start, kernel_conv, backend)
        layers.append(
            AttentionLayer(
                name=f"{name}.attn",
                reason=reason,
                attention=_in_words(attention),
                heads=attention.num_heads if reason is None else None,
                parameters=(before, _parameters(operators.get(attention, attention))),
            )
        )
    exchange(network, operators)
    return AttentionReport(tuple(layers))


def _blocks(network: nn.Module) -> dict[Any, str]:
    """Every block of timm's that is not mixed yet, and its first name."""
    return {
        module: name
        for name, module in network.named_modules()
        if isinstance(module, _Block) and not isinstance(module.attn, WindowACmix)
    }


def _why_not(block: Any, holders: dict[nn.Module, list[str]]) -> str | None:
    if type(block) is not _Block:
        return f"its block is a {type(block).__name__}, not timm's SwinTransformerBlock itself"
    if {"forward", "_attn", "get_attn_mask"} & vars(block).keys():
        return "its block has a forward of its own"
    if len(holders[block.attn]) > 1:
        return f"the attention of several blocks, {', '.join(holders[block.attn])}"
    channels, own = block.attn.proj.out_features, block.attn.proj.in_features
    if channels != own:
        return f"its heads hold {own} channels, the map {channels}"
    return why_not_plain(block.attn, timm_swin.WindowAttention)


def _mix(block: Any, warm_start: bool, kernel_conv: int, backend: str) -> WindowACmix:
    old = block.attn
    mixed = mix_paths(block, kernel_conv=kernel_conv, backend=backend)
    if warm_start:
        nn.init.ones_(mixed.rate_attention)
        nn.init.zeros_(mixed.rate_convolution)
    new = [*mixed.convolution.parameters(), mixed.rate_attention, mixed.rate_convolution]
    for parameter in new:
        parameter.requires_grad_(old.proj.weight.requires_grad)
    mixed.convolution.train(old.training)
    return mixed


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _in_words(attention: Any) -> str:
    window = " x ".join(map(str, attention.window_size))
    return f"window {window}, {attention.proj.out_features} channels"
