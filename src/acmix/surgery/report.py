"""What surgery did to every layer, as data and as tables."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A layer of a network.

    Attributes:
        name: Its dotted name, the first where it has several.
        reason: Why it was left, which follows its name in a sentence; None where it was changed.
    """

    name: str
    reason: str | None = None

    @property
    def replaced(self) -> bool:
        """Whether something else stands in its place."""
        return self.reason is None


_AnyLayer = TypeVar("_AnyLayer", bound=_Layer)


@dataclass(frozen=True, kw_only=True)
class LayerReport(_Layer):
    """One convolution that `replace_convolutions` found.

    Attributes:
        name: Its dotted name, the first where it has several.
        convolution: Its type and sizes in words.
        reason: Why it was left, a sentence for people; None where ACmix has taken its place.
        heads: Heads of the operator; None where left.
        map_size: Height and width of the largest map it read in the example; None where the example did not reach it.
        parameters: Of the convolution, and of what stands in its place now.
        multiply_adds: The same for one image, all calls in the example together; None where it did not reach it.
        residual: With a warm start, the part of the kernel that the convolution path cannot express, as a share of the
            kernel's Frobenius norm, 0 to 1.
    """

    convolution: str
    heads: int | None = None
    map_size: tuple[int, ...] | None = None
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int] | None = None
    residual: float | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionLayer(_Layer):
    """One window attention that `replace_attention` found.

    Attributes:
        name: Its dotted name, the first where it has several.
        attention: Its window and channels in words.
        reason: Why it was left, which follows its name in a sentence; None where ACmix has taken its place.
        heads: Heads of the operator; None where left.
        parameters: Of the attention, and of what stands in its place now.
    """

    attention: str
    heads: int | None = None
    parameters: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class FusedLayer(_Layer):
    """One operator, batch norm, ReLU beside an operator, or bottleneck around one that `fuse` found.

    Attributes:
        name: Its dotted name in the network that was fused, the first where it has several.
        kind: Its type, or what that derives from; "Bottleneck", whatever its type is.
        reason: Why it stayed, which follows its name in a sentence; None where it was fused.
        into: The layer that computes it now; None where it stayed, and for an operator or a
            bottleneck, now a `FusedACmix` or a `FusedBottleneck`.
    """

    kind: str
    into: str | None = None


@dataclass(frozen=True)
class _Report(Generic[_AnyLayer]):
    layers: tuple[_AnyLayer, ...]

    what: ClassVar[str]
    """Layers and what was done to them, which follows "3 of 5"."""

    @property
    def replaced(self) -> tuple[_AnyLayer, ...]:
        """The layers that something else stands for now."""
        return tuple(layer for layer in self.layers if layer.replaced)

    @property
    def left(self) -> tuple[_AnyLayer, ...]:
        """The layers that stayed as they were, each with its reason."""
        return tuple(layer for layer in self.layers if not layer.replaced)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"layers": [asdict(layer) | {"replaced": layer.replaced} for layer in self.layers]}

    def __str__(self) -> str:
        """Count in one line, then one line for each reason."""
        lines = [f"{len(self.replaced)} of {len(self.layers)} {self.what}"]
        lines += [f"{count} left: {reason}" for reason, count in Counter(layer.reason for layer in self.left).items()]
        return "\n".join(lines)

    def __rich__(self) -> "Group":
        """A table of the replaced layers, then for each reason the names of those that were left."""
        from rich import box
        from rich.console import Group
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        shown = {heading: cells for heading, cells in self._columns().items() if any(cells)}
        table = Table(
            title=str(self).splitlines()[0],
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        words = ("layer", "convolution", "attention", "kind", "into")
        for heading in shown:
            justify = "left" if heading in words else "right"
            table.add_column(heading, justify=justify, no_wrap=heading != "convolution")
        for row in zip(*shown.values(), strict=True):
            table.add_row(*map(Text, row))
        names: dict[str, list[str]] = {}
        for layer in self.left:
            names.setdefault(str(layer.reason), []).append(layer.name)
        left = [
            Group(Text(f"{len(layers)} left: {reason}"), Padding(Text(", ".join(layers)), (0, 0, 0, 2)))
            for reason, layers in names.items()
        ]
        return Group(table, *left)

    def _columns(self) -> dict[str, list[str]]:
        """Cells of the table by heading."""
        raise NotImplementedError


@dataclass(frozen=True)
class Report(_Report[LayerReport]):
    """Every convolution of a network and what happened to it; `rich.print` shows a table."""

    what = "convolutions replaced"

    def _columns(self) -> dict[str, list[str]]:
        return {
            "layer": [layer.name for layer in self.replaced],
            "convolution": [layer.convolution.removeprefix("Conv2d ") for layer in self.replaced],
            "heads": [str(layer.heads) for layer in self.replaced],
            "map": [" x ".join(map(str, layer.map_size or ())) for layer in self.replaced],
            "parameters": [_factor(layer.parameters) for layer in self.replaced],
            "MACs": [_factor(layer.multiply_adds) for layer in self.replaced],
            "residual": ["" if layer.residual is None else f"{layer.residual:.1%}" for layer in self.replaced],
        }


@dataclass(frozen=True)
class AttentionReport(_Report[AttentionLayer]):
    """Every window attention of a network and what happened to it; `rich.print` shows a table."""

    what = "window attentions replaced"

    def _columns(self) -> dict[str, list[str]]:
        return {
            "layer": [layer.name for layer in self.replaced],
            "attention": [layer.attention for layer in self.replaced],
            "heads": [str(layer.heads) for layer in self.replaced],
            "parameters": [_factor(layer.parameters) for layer in self.replaced],
        }


@dataclass(frozen=True)
class FusionReport(_Report[FusedLayer]):
    """Every operator, batch norm, ReLU and bottleneck found, and what became of it; `rich.print` shows a table."""

    what = "operators, batch norms, ReLUs and bottlenecks fused"

    def _columns(self) -> dict[str, list[str]]:
        return {
            "layer": [layer.name for layer in self.replaced],
            "kind": [layer.kind for layer in self.replaced],
            "into": [layer.into or "" for layer in self.replaced],
        }


def _factor(change: tuple[int, int] | None) -> str:
    return "" if change is None else f"x {change[1] / change[0]:.2f}"
