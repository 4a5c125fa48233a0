"""What classes weigh in a loss, in words."""

from collections.abc import Sequence

from torch import Tensor


def described(kind: str | None, weights: Tensor | None, classes: Sequence[str]) -> dict[str, str]:
    """The lightest and the heaviest class, as a fact of a run; nothing where all weigh the same.

    Args:
        kind: What the settings ask for.
        weights: `(classes,)`.
        classes: Their names.
    """
    if weights is None:
        return {}
    ends = (int(weights.argmin()), int(weights.argmax()))
    lightest, heaviest = (f"{weights[label]:.3g} ({classes[label]})" for label in ends)
    return {"class weights": f"{kind}, {lightest} to {heaviest}"}
