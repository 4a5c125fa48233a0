"""A study made up of known numbers."""

import pytest

from acmix.bench import Timing
from acmix.study.results import Measured, Study, Trained
from tests.tasks.detection.conftest import shapes, trained

__all__ = ["shapes", "trained"]

ACCURACIES = {"convolution": [0.90, 0.91, 0.93], "acmix": [0.95, 0.96, 0.975], "attention": [0.95, 0.96, 0.975]}


@pytest.fixture
def made_up():
    timing = Timing(0.01, 0.011, 0.012, 0.013, 9)
    variants = {
        "convolution": Measured("3x3 convolutions", 517_882, 9_094_144, timing, timing),
        "acmix": Measured("ACmix, learned rates", 408_042, 11_141_440, timing, timing),
        "attention": Measured("attention path alone", 388_162, 10_078_720, timing, timing),
    }
    trainings = [
        Trained(name, seed, accuracy, [accuracy], 0.5, [(0.4, 0.6)], 1.0)
        for name, values in ACCURACIES.items()
        for seed, accuracy in enumerate(values)
    ]
    data = {"location": "digits", "train_images": 1438, "validation_images": 359, "classes": 10}
    machine = {
        "processor": "a processor",
        "instructions": "AVX2",
        "kernels": "avx2",
        "threads": 1,
        "torch": "2",
        "revision": "abc",
    }
    return Study(
        data=data | {"input_size": [3, 32, 32]},
        settings={"model": "acmix_resnet14_small", "epochs": 1, "batch_size": 10, "optimizer": "adamw"}
        | {"learning_rate": 0.001},
        variants=variants,
        # One seed without its pairs.
        trainings=[*trainings, Trained("acmix", 7, 0.1, [0.1], 2.0, [(0.4, 0.6)], 1.0)],
        batch=10,
        machine=machine | {"withheld_share": 0.0},
    )
