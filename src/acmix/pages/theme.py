"""Colours by what they mean, in a light and a dark scheme, and drawings that take whichever their reader has set."""

import copy
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib as mpl
from matplotlib.figure import Figure

from acmix.errors import printable
from acmix.pages.colours import COLOURS
from acmix.pages.colours import HUES as HUES

ATTENTION, CONVOLUTION = "orange", "blue"
# Of layers from the first to the last: names of COLOURS.
DEPTHS = tuple(f"depth-{step}" for step in range(16))
MARKERS = "osD^vP*"
_PROPERTIES = ("fill", "stroke")
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
FONT = "system-ui, sans-serif"


def _of_depths() -> dict[str, tuple[str, str]]:
    """One ramp of colours, whose lightest part is left out on light paper and whose darkest part on dark."""
    ramp = mpl.colormaps["viridis"]
    shares = [step / (len(DEPTHS) - 1) for step in range(len(DEPTHS))]
    ends = [(ramp(0.58 * share), ramp(0.42 + 0.58 * share)) for share in shares]
    hexadecimal = mpl.colors.to_hex
    return {name: (hexadecimal(light), hexadecimal(dark)) for name, (light, dark) in zip(DEPTHS, ends, strict=True)}


COLOURS |= _of_depths()
_MEANINGS = {light: name for name, (light, _) in COLOURS.items()}


def colour(name: str) -> str:
    """What matplotlib is given for a colour: that of the light scheme, which `Drawing` gives its meaning back."""
    return COLOURS[name][0]


# Of everything that is drawn: matplotlib reads it when artists are made.
STYLE: dict[str, Any] = {
    "text.color": colour("ink"),
    "axes.labelcolor": colour("ink"),
    "axes.titlecolor": colour("ink"),
    "axes.edgecolor": colour("rule"),
    "xtick.color": colour("rule"),
    "ytick.color": colour("rule"),
    "xtick.labelcolor": colour("ink"),
    "ytick.labelcolor": colour("ink"),
    "grid.color": colour("grid"),
    "figure.facecolor": colour("paper"),
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
drawn = mpl.rc_context(STYLE)


@dataclass(frozen=True)
class Drawing:
    """A figure as SVG.

    Attributes:
        root: Its colours are classes such as "fill-ink", which `literal` and `variables` give a colour.
        label: What is seen, in words.
    """

    root: Element
    label: str

    def within(self, prefix: str) -> str:
        """As an element of an HTML page whose style has `variables`; ids begin with the prefix."""
        root = copy.deepcopy(self.root)
        for element in root.iter():
            element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
            for name, value in list(element.items()):
                if name == "id":
                    element.set(name, prefix + value)
                elif name == f"{{{_XLINK}}}href":
                    del element.attrib[name]
                    element.set("href", value.replace("#", f"#{prefix}", 1) if value.startswith("#") else value)
                elif value.startswith("url(#"):
                    element.set(name, value.replace("#", f"#{prefix}", 1))
        root.set("role", "img")
        root.set("aria-label", self.label)
        return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)

    def alone(self) -> bytes:
        """As a file, which brings its colours and its paper."""
        root = copy.deepcopy(self.root)
        used = {name for element in root.iter() for name in element.get("class", "").split()} | {"fill-paper"}
        style = Element(f"{{{_SVG}}}style")
        style.text = f"text {{ font-family: {FONT} }}\n{literal(used)}"
        title, paper = Element(f"{{{_SVG}}}title"), Element(f"{{{_SVG}}}rect")
        title.text = self.label
        paper.attrib |= {"width": "100%", "height": "100%", "rx": "6", "class": "fill-paper"}
        root[:0] = [title, style, paper]
        root.set("role", "img")
        ElementTree.register_namespace("", _SVG)
        ElementTree.register_namespace("xlink", _XLINK)
        return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def legend(figure: Figure, columns: int, size: float = 9, **given: Any) -> None:
    """Name what a figure shows below it.

    Args:
        figure: Its artists have labels, unless given has `handles` and `labels`.
        columns: Of the legend.
        size: Of letters, in points.
        given: What else `matplotlib.figure.Figure.legend` takes.
    """
    key = figure.legend(loc="outside lower center", ncols=columns, fontsize=size, **given)
    for text in key.get_texts():
        # A name is no formula, whatever it holds.
        text.set_parse_math(False)


def shortened(name: str, most: int) -> str:
    """A name as a figure can hold it, of so many letters at most."""
    shown = printable(name)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def drawing(figure: Figure, label: str) -> Drawing:
    """What matplotlib drew, with meanings in place of colours.

    Args:
        figure: Its words are such that XML can hold them: names go through `acmix.errors.printable`.
        label: What is seen, in words.
    """
    root = ElementTree.fromstring(saved(figure, "svg"))  # noqa: S314 -- written a line before
    definitions = root.find(f"{{{_SVG}}}defs")
    if definitions is not None:
        # A rule for every element of whatever page it stands in.
        root.remove(definitions)
    root.set("stroke-linejoin", "round")
    for name in ("width", "height"):
        root.set(name, f"{float(root.attrib[name].removesuffix('pt')) * 4 / 3:.0f}")
    for element in root.iter():
        _give_meaning(element)
    return Drawing(root, printable(label))


def saved(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of an SVG or PNG file."""
    data = io.BytesIO()
    # Text as text keeps the page small and searchable; a fixed salt keeps it the same from run to run.
    style = {"svg.fonttype": "none", "svg.hashsalt": "acmix", "path.simplify": False}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A page shows text in its reader's fonts, which have more letters than those that measure it here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        svg = kind == "svg"
        metadata: dict[str, Any] | None = dict.fromkeys(("Date", "Creator", "Format", "Type")) if svg else None
        figure.savefig(data, format=kind, dpi=150, bbox_inches="tight", metadata=metadata, transparent=svg)
    return data.getvalue()


def _give_meaning(element: Element) -> None:
    """Move what a style says of colours that have a meaning to classes; fonts are the reader's."""
    declared = dict(part.strip().split(": ", 1) for part in element.get("style", "").split(";") if part.strip())
    declared.pop("font-family", None)
    if short := declared.pop("font", None):
        # As matplotlib 3.9 has it: weight, size, families.
        weight, _, declared["font-size"] = short.partition(" '")[0].rpartition(" ")
        declared["font-weight"] = weight or "400"
    meant = {name: _MEANINGS[declared[name]] for name in _PROPERTIES if declared.get(name) in _MEANINGS}
    if meant:
        element.set("class", " ".join(f"{name}-{meaning}" for name, meaning in meant.items()))
    rest = "; ".join(f"{name}: {value}" for name, value in declared.items() if name not in meant)
    if rest:
        element.set("style", rest)
    else:
        element.attrib.pop("style", None)


def literal(classes: Iterable[str]) -> str:
    """Rules of classes such as "fill-ink" in both schemes, for a drawing that stands alone."""
    rules = [(each, *each.partition("-")[::2]) for each in sorted(classes)]
    light, dark = (
        "".join(f"  .{each} {{ {part}: {COLOURS[name][scheme]} }}\n" for each, part, name in rules) for scheme in (0, 1)
    )
    return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}"


@cache
def variables() -> str:
    """What `Drawing.within` needs of a page's style: colours as variables of both schemes, and their classes."""
    light, dark = (" ".join(f"--{name}: {pair[scheme]};" for name, pair in COLOURS.items()) for scheme in (0, 1))
    classes = "\n".join(f".{part}-{name} {{ {part}: var(--{name}) }}" for name in COLOURS for part in _PROPERTIES)
    # Paper that is printed on is white.
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    return f":root {{ color-scheme: light dark; {light} }}\n{dark}\n{classes}\n"
