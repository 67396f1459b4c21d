"""What a record says of a run besides its outcome: what it was about, its layers, and what stays."""

import datetime
from collections.abc import Mapping, Sequence

from torch import Tensor

from amsc.jobs.fingerprint import SPLITS, weights_fingerprint
from amsc.jobs.stages.job import Job
from amsc.limits.target import Target
from amsc.records import Asked, Circumstances, LayerWidths, PathPoint, Staying
from amsc.structure import LayerCost, Structure
from amsc.structure.cutting import kept_shapes
from amsc.structure.names import is_in_any, is_inside
from amsc.structure.words import reasons_to_stay
from amsc.training import Removal
from amsc.training.path.depth_rule import paired_difference

__all__ = ["asked_of", "circumstances", "layer_widths", "standard_error", "staying"]

Shapes = Mapping[str, tuple[int, ...]]


def circumstances(job: Job) -> Circumstances:
    """What the run of `job`, which ends now, was about."""
    data, source = job.data, job.source
    built = {"model": source.model, "num_classes": source.num_classes, "in_channels": source.in_channels}
    return Circumstances(
        network=type(job.dense).__name__,
        examples={split: data.num_examples(split) for split in SPLITS},
        inputs=tuple(leaf.shape for leaf in job.structure.inputs.leaves if leaf.dtype),
        classes=data.num_classes,
        higher_is_better=job.task.higher_is_better,
        fingerprints={
            "data": str(job.folder.identity.get("examples of the data", "")),
            "network": weights_fingerprint(job.dense),
        },
        built_from={key: value for key, value in built.items() if value is not None},
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        defined_in=type(job.dense).__module__,
    )


def asked_of(target: Target) -> tuple[Asked, ...]:
    """What the target said, one thing at a time."""
    costs = tuple(Asked(what, amount.number, amount.is_share) for what, amount in target.limits.items())
    return costs if target.most_lost is None else (*costs, Asked("drop", target.most_lost))


def layer_widths(job: Job, removal: Removal, path: Sequence[PathPoint]) -> tuple[LayerWidths, ...]:
    """The layers with weights in the order of the forward pass, with and without `removal`, and at each path point."""
    structure = job.structure
    after, *along = (
        kept_shapes(structure, gone.channels, gone.blocks)
        for gone in (removal, *(Removal(point.removed_blocks, point.removed_channels) for point in path))
    )
    axes = {m.parameter: m.axis for group in structure.channels for m in group.members if m.role == "out"}

    def width(shapes: Shapes, weight: str) -> int:
        return shapes[weight][axes.get(weight, 0)] if weight in shapes else 0

    return tuple(
        LayerWidths(
            name=weight.removesuffix(".weight"),
            kind=type(job.dense.get_submodule(max((cost.module for cost in costs), key=len))).__name__,
            before=width(structure.shapes, weight),
            after=width(after, weight),
            macs_before=_macs(costs, structure.shapes),
            macs_after=_macs([cost for cost in costs if not is_in_any(cost.module, removal.blocks)], after),
            block=next((block for block in removal.blocks if is_inside(weight, block)), ""),
            along_path=tuple(width(shapes, weight) for shapes in along),
        )
        for weight, costs in _costs_by_weight(structure).items()
    )


def _costs_by_weight(structure: Structure) -> dict[str, list[LayerCost]]:
    """The costs of each weight; those of a product of activations count with the first weight of their module."""
    found: dict[str, list[LayerCost]] = {}
    for cost in structure.costs:
        inside = [name for name, _ in cost.along if not cost.module or is_inside(name, cost.module)]
        own = [name for name in inside if len(structure.shapes[name]) > 1]
        if own:
            found.setdefault(own[0], []).append(cost)
    return found


def _macs(costs: Sequence[LayerCost], shapes: Shapes) -> int:
    return int(sum(cost.at(shapes) for cost in costs))


def staying(structure: Structure) -> tuple[Staying, ...]:
    """What cannot go: axes by reason, and blocks that a trial could not remove."""
    axes = (Staying(why, count, which, source) for why, count, which, source in reasons_to_stay(structure))
    blocks: dict[str, list[str]] = {}
    for name, why in structure.stuck.items():
        blocks.setdefault(why, []).append(name)
    return (*axes, *(Staying(why, 0, ", ".join(names)) for why, names in blocks.items()))


def standard_error(before: Tensor | None, after: Tensor) -> float | None:
    """The paired standard error of the mean difference of scores on the same examples; None of fewer than two."""
    if before is None or len(before) != len(after) or len(after) < 2:
        return None
    return paired_difference(before, after)[1]
