"""Folders of images and masks, a few pixels each."""

import numpy as np
from PIL import Image


def write(folder, images, masks, suffix=".png"):
    """Images of random pixels by name, and masks of given values."""
    random = np.random.default_rng(0)
    for names, where in ((images, "images"), (masks, "masks")):
        for name, values in names.items():
            path = folder / where / f"{name}{suffix if where == 'images' else '.png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.asarray(values, np.uint8)
            if where == "images":
                values = random.integers(0, 256, (*values.shape, 3), np.uint8)
            Image.fromarray(values).save(path)
    return folder


def pairs(folder, count=4, values=(0, 1, 2), size=(6, 8)):
    """Undivided images with masks of some values."""
    random = np.random.default_rng(1)
    masks = {f"{number:02d}": random.choice(values, size) for number in range(count)}
    return write(folder, masks, masks)
