"""The network that `acmix demo` shows where none is given: trained on the bundled digits in a minute."""

from acmix.tasks.classification.choice import choose
from acmix.tasks.classification.settings import Settings

DATA = "digits"
# What differs from the recipe small; examples/digits.py types the same.
CHANGES = {"image_size": 16, "batch_size": 32, "epochs": 7, "learning_rate": 0.003}


def settings() -> Settings:
    """The settings of its training."""
    return choose(DATA, None, CHANGES)
