"""`import torchvision` where its compiled part is missing, as it is for a torch that it was not built for.

ultralytics, timm and transformers import it; what they do here needs none of its operators but one, for which
ultralytics has a function of its own.
"""

import importlib.util

import torch

__all__ = ["make_importable", "put_in_place_of_nms"]

_DECLARED: list[torch.library.Library] = []


def make_importable() -> None:
    """Declare the two operators that the import looks for, if they are missing; nothing stands behind them."""
    if _DECLARED or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)


def put_in_place_of_nms(function: object) -> None:
    """Let `torchvision.ops.nms` be this function, if torchvision is there without its own."""
    if _DECLARED:
        importlib.import_module("torchvision").ops.nms = function
