"""Hold out images: what may be asked for, and which of those that show several classes each."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acmix.errors import InputError


def check_fraction(fraction: float) -> None:
    """Raise InputError unless it is a share of images that can be held out."""
    if not 0 < fraction < 1:
        raise InputError(f"val_fraction must lie between 0 and 1, got {fraction}")


def check_count(count: int) -> None:
    """Raise InputError unless so many images can be on both sides of a split."""
    if count < 2:
        raise InputError(f"too few images to split: {count}; at least 2 are needed, or validation images beside them")


def held_out(order: Sequence[int], shown: Sequence[Sequence[int]], fraction: float) -> NDArray[np.bool_]:
    """Which images to hold out, so that every class is on both sides where it can be.

    Classes are dealt with one after another, the rarest first: of the images of a class that no class before it has
    dealt out, as many are held out as its share asks for.

    Args:
        order: All images, in the order in which they are taken.
        shown: The classes of each image, each once.
        fraction: Share of images to hold out.

    Returns:
        A mask of images: neither none nor all of them, of two or more.
    """
    chosen, dealt = np.zeros(len(order), bool), np.zeros(len(order), bool)
    counts = Counter(label for labels in shown for label in labels)
    members: dict[int, list[int]] = {label: [] for label, _ in sorted(counts.items(), key=lambda item: item[::-1])}
    for image in order:
        for label in shown[image]:
            members[label].append(image)
    for group in (*members.values(), list(order)):
        free = [image for image in group if not dealt[image]]
        wanted = min(len(group) - 1, max(1, round(len(group) * fraction))) - int(chosen[group].sum())
        chosen[free[: max(0, wanted)]] = True
        dealt[free] = True
    # Where every class has one image alone.
    chosen[order[0]] |= not chosen.any()
    return chosen
