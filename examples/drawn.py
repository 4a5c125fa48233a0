"""Pictures to try things on: a red, green or blue square on dark noise, with what every task asks of it."""

from collections.abc import Iterator

import torch
from torch import Tensor

SIZE = 64


def squares(count: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Draw images `(3, 64, 64)`, and of each its class, its box `(1, 4)` in corners, and its mask `(64, 64)`."""
    for index in range(count):
        image = torch.rand(3, SIZE, SIZE) / 4
        side = int(torch.randint(16, 33, ()))
        left, top = torch.randint(0, SIZE - side, (2,)).tolist()
        image[index % 3, top : top + side, left : left + side] += 0.75
        mask = torch.zeros(SIZE, SIZE)
        mask[top : top + side, left : left + side] = 1
        box = torch.tensor([[left, top, left + side, top + side]], dtype=torch.float32)
        yield image, {"label": torch.tensor(index % 3), "boxes": box, "mask": mask}


def classified(count: int) -> tuple[Tensor, Tensor]:
    """Draw images `(count, 3, 64, 64)` and their classes `(count,)`."""
    images, targets = zip(*squares(count), strict=True)
    return torch.stack(images), torch.stack([target["label"] for target in targets])
