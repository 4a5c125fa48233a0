"""Networks in ONNX files that acmix exported, run in ONNX Runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acmix import records
from acmix.checkpoints import classifier, segmenter
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.detector import Detector
from acmix.checkpoints.files import read_bytes
from acmix.checkpoints.onnx_detector import OnnxDetector
from acmix.checkpoints.onnx_digest import check_digest
from acmix.checkpoints.segmenter import Segmenter
from acmix.checkpoints.stored import KINDS
from acmix.checkpoints.trained import FORMAT_VERSION, Metadata, TrainedNetwork
from acmix.errors import InputError, in_one_line
from acmix.records import FIRST_TASK

# The key of the file's metadata that is ours.
_KEY = "acmix"
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# Of each kind how many axes its output has: logits of an image, or of its pixels.
_AXES = {Classifier.task: 2, Segmenter.task: 4}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, kw_only=True)
class _Metadata:
    """What a file must hold to be used, and what it may.

    Classes of which an image has any number are `labels`, which acmix knows from then on.
    """

    preprocessing: dict[str, Any]
    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    task: str = FIRST_TASK
    model_name: str = "unknown"
    model_arguments: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def metadata_of(trained: TrainedNetwork) -> dict[str, Any]:
    """What an ONNX file must remember so that `open_onnx` gives the trained network again: `to_onnx` stores it.

    It holds the training record, paths of training data included, but for the digests of the images.
    """
    return {
        "labels" if isinstance(trained, Classifier) and trained.multi_label else "classes": trained.classes,
        "task": trained.task,
        "preprocessing": trained.preprocessing,
        "model_name": trained.model_name,
        "model_arguments": trained.model_arguments,
        "training": {key: value for key, value in trained.training.items() if key != "trained_images"},
        "versions": trained.versions,
    }


class OnnxModel(nn.Module):
    """A graph in ONNX Runtime in place of a network.

    Args:
        session: Of `onnxruntime.InferenceSession`.
        classes: How many logits it must give.
        axes: Of its output: 2 of `(B, classes)`, 4 of `(B, classes, H, W)`.

    Raises:
        InputError: If the graph does not take images, or its output are no such logits.
    """

    def __init__(self, session: Any, classes: int, axes: int = 2) -> None:
        super().__init__()
        self.session, self.classes = session, classes
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _DTYPES:
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise InputError(f"it must take images, (B, C, H, W) in float32 or float16, got {found}")
        if not outputs or len(outputs[0].shape) != axes or outputs[0].shape[1] != classes:
            found = ", ".join(f"{each.name} {each.shape}" for each in outputs)
            raise InputError(f"it must give logits of {classes} classes, got {found}")
        self.name, self.dtype = inputs[0].name, _DTYPES[inputs[0].type]
        # A number where the file was exported for one image, of one size.
        self.batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, C, H, W)` to logits `(B, classes)`, or of every pixel, on the CPU.

        Raises:
            InputError: If ONNX Runtime refuses them.
        """
        array = images.detach().cpu().numpy().astype(self.dtype)
        step = self.batch or max(1, len(array))
        parts = [array[at : at + step] for at in range(0, len(array), step)]
        try:
            found = [self.session.run(None, {self.name: part})[0] for part in parts]
        except Exception as error:  # ONNX Runtime has exceptions of its own
            reason = in_one_line(error)
            raise InputError(f"ONNX Runtime does not take images {tuple(images.shape)}: {reason}") from error
        return torch.from_numpy(np.concatenate(found)) if found else torch.zeros(0, self.classes)


def open_onnx(path: Path, device: torch.device | None) -> TrainedNetwork:
    """Open a network that `acmix export` wrote as ONNX; its `model` runs in ONNX Runtime.

    Args:
        path: The file.
        device: Where it computes, the CPU or a GPU; None takes a GPU where ONNX Runtime has one.

    Raises:
        InputError: If the file is no ONNX or holds no acmix metadata, or ONNX Runtime has no such device.
    """
    import onnxruntime

    try:
        check_digest(read_bytes(path, "checkpoint"))
    except InputError as fault:
        raise InputError(f"checkpoint {path} cannot be used: {fault}; export it again, or copy it again") from fault
    providers = _providers(path, device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    # What fails is said in one line, by us.
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime has exceptions of its own
        reason = in_one_line(error)
        raise InputError(f"checkpoint {path} cannot be used: ONNX Runtime does not open it: {reason}") from error
    # It goes on without what it cannot load, the libraries of CUDA for instance.
    if device is not None and providers[0][0] not in session.get_providers():
        raise InputError(f"device {device} cannot be used for {path}: ONNX Runtime finds no libraries for it")
    try:
        found = _metadata(session.get_modelmeta().custom_metadata_map)
        if found.task == Detector.task:
            model: nn.Module = OnnxDetector(session, found.preprocessing["mean"], len(found.classes))
        else:
            model = OnnxModel(session, len(found.classes), _AXES[found.task])
    except InputError as fault:
        raise InputError(f"checkpoint {path} cannot be used: {fault}; give an .onnx that acmix export wrote") from fault
    own = {"multi_label": True} if found.multi_label else {}
    return KINDS[found.task].of(model.eval(), found, **own)


def _providers(path: Path, device: torch.device | None, available: list[str]) -> list[tuple[str, dict[str, int]]]:
    kinds = ["cuda", "cpu"] if device is None else [device.type]
    names = [name for kind in kinds if (name := _PROVIDERS.get(kind)) in available]
    if not names:
        known = [kind for kind, name in _PROVIDERS.items() if name in available]
        raise InputError(
            f"device {device} cannot be used for {path}: the installed ONNX Runtime computes on {' and '.join(known)}"
        )
    index = 0 if device is None else device.index or 0
    return [(name, {"device_id": index} if name == _PROVIDERS["cuda"] else {}) for name in names]


def _metadata(stored: Mapping[str, str]) -> Metadata:
    if _KEY not in stored:
        raise InputError("it holds no acmix metadata, so that its classes and the size of its images are not known")
    try:
        held = records.read(_Metadata, records.parse(stored[_KEY]), others=True)
    except InputError as fault:
        raise InputError(f"its metadata are unusable: {fault}") from fault
    parts = {name: value for name, value in vars(held).items() if name != "labels"}
    parts |= {"classes": held.classes or held.labels, "multi_label": held.task == Classifier.task and bool(held.labels)}
    found = Metadata(format_version=FORMAT_VERSION, **parts)
    if found.task == Detector.task:
        return Detector.check(found)
    if found.task not in _AXES:
        raise InputError(f"it is of the task {found.task!r}, of which acmix reads no .onnx")
    check = classifier.check_preprocessing if found.task == Classifier.task else segmenter.check_preprocessing
    return replace(found, preprocessing=check(found.classes, found.preprocessing))
