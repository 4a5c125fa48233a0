"""Detectors as ONNX, for images of one size: boxes, scores and labels, as many as are found."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

from acmix.checkpoints import onnx_digest
from acmix.errors import InputError, in_one_line
from acmix.export.checking import ExportError
from acmix.models.detectors import DetectionNetwork
from acmix.storage import check_file, folder_beside
from acmix.surgery.identity import copy_network

_OPSET = 18
_SMOOTHED, _INT64 = "aten::_upsample_bilinear2d_aa", 7  # ONNX numbers its types
# A detection is the same with corners so many pixels apart and this difference of scores at most; masks differ by this
# share of pixels.
_APART, _SCORE, _PIXELS = 0.1, 1e-3, 0.01
# Where scores are all but equal, rounding decides which of two detections stays.
_LOST = 0.02
_TRIED = 3


@dataclass(frozen=True, kw_only=True)
class DetectorExport:
    """What was written.

    Attributes:
        path: The file.
        operators: In its graph.
        input_size: `(1, 3, H, W)` of "images".
        outputs: Names, in their order.
        compared: Detections of PyTorch that ONNX Runtime was held against.
        lost: How many of them it does not give.
        difference: Largest difference of scores of those that it gives.
    """

    path: Path
    operators: int
    input_size: tuple[int, int, int, int]
    outputs: tuple[str, ...]
    compared: int
    lost: int
    difference: float


class _OneImage(nn.Module):
    """A detector of one image `(1, 3, H, W)` in 0..1, that gives tensors."""

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        (found,) = self.network([images[0]])
        return tuple(found[name] for name in ("boxes", "scores", "labels", "masks") if name in found)


def detector_to_onnx(
    network: DetectionNetwork,
    path: str | Path,
    *,
    image_size: Sequence[int],
    metadata: Mapping[str, Any] | None = None,
) -> DetectorExport:
    """Write a detector as ONNX for inference, of standard operators of opset 18.

    The file takes "images", `(1, 3, H, W)` in float32, 0..1, which it resizes and normalises as the network does, and
    gives "boxes" `(N, 4)` in pixels of that image, "scores" `(N,)`, "labels" `(N,)` from 0 and, of Mask R-CNN, "masks"
    `(N, 1, H, W)` in 0..1. It is run in ONNX Runtime beside PyTorch, with every score allowed, so that there are
    detections to compare, and kept if they agree; else an earlier file stays.

    Args:
        network: Not modified.
        path: The file; its folder must exist.
        image_size: `(H, W)` of the image that the file takes; others need a file of their own.
        metadata: Stored in the file as JSON under the key "acmix": class names, preprocessing; beside it lies
            "acmix.sha256", as `to_onnx` writes it.

    Returns:
        Where it lies, what it takes and gives, and how exact it is.

    Raises:
        InputError: If an argument breaks its rule, or PyTorch cannot export the network.
        ExportError: If ONNX Runtime finds something else, or fails.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    check_file("path", path)
    if len(image_size) != 2 or min(image_size) < 1:
        raise InputError(f"image_size must be two positive sizes (H, W), got {tuple(image_size)}")
    height, width = image_size
    module = _OneImage(copy_network(network).float().cpu()).eval()
    shape = (1, 3, height, width)
    with folder_beside(path) as folder:
        # The same graph but for a number, which leaves nothing out that can be compared.
        everything = _OneImage(copy_network(module.network)).eval()
        _allow_every_score(everything.network)
        _write(everything, shape, folder / "everything.onnx")
        compared, lost, difference = _compare(everything, folder / "everything.onnx", shape)
        operators = _write(module, shape, folder / path.name, metadata)
        _compare(module, folder / path.name, shape)
        (folder / path.name).replace(path)
    names = _names(module)
    return DetectorExport(
        path=path,
        operators=operators,
        input_size=shape,
        outputs=names,
        compared=compared,
        lost=lost,
        difference=difference,
    )


def _names(module: _OneImage) -> tuple[str, ...]:
    masks = isinstance(module.network.detector, MaskRCNN)
    return ("boxes", "scores", "labels", *(("masks",) if masks else ()))


def _allow_every_score(network: DetectionNetwork) -> None:
    detector: Any = network.detector
    holder = getattr(detector, "roi_heads", detector)
    holder.score_thresh = 0.0


@contextmanager
def _smoothed_resizing() -> Iterator[None]:
    """Let PyTorch's exporter of traces know what opset 18 does: positions of PVT are resized without aliasing."""

    def resize(graph: Any, maps: Any, size: Any, *_: Any) -> Any:
        nothing = graph.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        channels = graph.op("Slice", graph.op("Shape", maps), *(_constant(graph, [place]) for place in (0, 2, 0)))
        sizes = graph.op("Concat", channels, graph.op("Cast", size, to_i=_INT64), axis_i=0)
        return graph.op("Resize", maps, nothing, nothing, sizes, mode_s="linear", antialias_i=1)

    torch.onnx.register_custom_op_symbolic(_SMOOTHED, resize, _OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(_SMOOTHED, _OPSET)


def _constant(graph: Any, values: Sequence[int]) -> Any:
    return graph.op("Constant", value_t=torch.tensor(values))


def _write(module: _OneImage, shape: Sequence[int], file: Path, metadata: Mapping[str, Any] | None = None) -> int:
    """Trace a detector into a file, and count its operators."""
    import onnx

    try:
        with warnings.catch_warnings(), torch.no_grad(), _smoothed_resizing():
            # Of what depends on the size of the image, which is one.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.rand(*shape, generator=torch.Generator().manual_seed(0)),),
                str(file),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["images"],
                output_names=list(_names(module)),
            )
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = in_one_line(error, 300)
        raise InputError(f"PyTorch cannot export the detector: {reason}") from error
    model = onnx.load(str(file))
    _forget_shapes(model.graph)
    if metadata is not None:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
        model.metadata_props.add(key="acmix", value=text)
    model.metadata_props.add(key=onnx_digest.KEY, value=onnx_digest.EMPTY)
    onnx.save(model, str(file))
    onnx_digest.write_digest(file)
    return len(model.graph.node)


def _forget_shapes(graph: Any) -> None:
    """Leave shapes within loops to the runtime: those of the trace are of its first turn alone."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                del attribute.g.value_info[:]
                for output in attribute.g.output:
                    output.type.tensor_type.ClearField("shape")
                _forget_shapes(attribute.g)


def _compare(module: _OneImage, file: Path, shape: Sequence[int]) -> tuple[int, int, float]:
    """Detections compared, those that ONNX Runtime does not give, and the largest difference of the scores of others.

    Raises:
        ExportError: If more are lost than rounding explains, or ONNX Runtime fails.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    compared, lost, difference = 0, 0, 0.0
    for seed in range(_TRIED):
        images = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            own = module(images)
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            found = [torch.from_numpy(each) for each in session.run(None, {"images": images.numpy()})]
        except Exception as error:  # ONNX Runtime has exceptions of its own
            raise ExportError(f"ONNX Runtime fails: {in_one_line(error, 300)}") from error
        gaps = _gaps(own, found)
        compared, lost = compared + len(gaps), lost + int((gaps > _SCORE).sum())
        difference = max([difference, *gaps[gaps <= _SCORE].tolist()])
    if lost > max(1, _LOST * compared):
        raise ExportError(f"ONNX Runtime lacks {lost} of {compared} detections of PyTorch; the file is not kept")
    return compared, lost, difference


def _gaps(own: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    """For each detection of PyTorch the difference of scores to the same one of the other; infinite where none is."""
    if not len(own[0]) or not len(found[0]):
        return torch.full((len(own[0]),), torch.inf)
    apart = (own[0][:, None] - found[0][None]).abs().amax(2)
    same = (apart <= _APART) & (own[2][:, None] == found[2][None])
    if len(own) > 3:
        pixels = (own[3][:, None] > 0.5) != (found[3][None] > 0.5)
        same &= pixels.flatten(2).float().mean(2) <= _PIXELS
    scores = (own[1][:, None] - found[1][None]).abs()
    return torch.where(same, scores, torch.inf).amin(1)
