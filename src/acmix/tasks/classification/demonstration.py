"""The network that `acmix demo` shows where none is given: trained on the bundled digits in a minute."""

from acmix.tasks.loop import recipes
from acmix.tasks.loop.settings import Settings

DATA = "digits"
# What differs from the recipe small; examples/digits.py types the same.
CHANGES = {"image_size": 16, "batch_size": 32, "epochs": 7, "learning_rate": 0.003}


def settings() -> Settings:
    """The settings of its training."""
    return recipes.choose(DATA, None, CHANGES)
