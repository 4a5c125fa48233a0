"""Labelled images: open a folder of class folders or the bundled digits, check them, split them, transform them."""

from acmix.data.datasets import Digits, ImageData, LabelledImages, export_digits, open_dataset
from acmix.data.evaluation import DataRecord, data_record, open_evaluation
from acmix.data.images import read_image
from acmix.data.loading import image_loader
from acmix.data.sources import EncodedImage, ImageSource
from acmix.data.transforms import preprocessing_for, training_transform

__all__ = [
    "DataRecord",
    "Digits",
    "EncodedImage",
    "ImageData",
    "ImageSource",
    "LabelledImages",
    "data_record",
    "export_digits",
    "image_loader",
    "open_dataset",
    "open_evaluation",
    "preprocessing_for",
    "read_image",
    "training_transform",
]
