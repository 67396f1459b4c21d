"""The points of a path, and which of them keep their weights."""

from dataclasses import replace

from amsc.jobs.run_state import removal_of
from amsc.jobs.stages.job import Job, plan_of_removal
from amsc.records import PathPoint
from amsc.training import Snapshot

__all__ = ["with_point"]


def with_point(job: Job, points: tuple[PathPoint, ...], point: PathPoint, snapshot: Snapshot) -> tuple[PathPoint, ...]:
    """The points with one more. Of those of one structure the last keeps its weights, which were trained for
    longest; the dense network keeps its own."""
    if not snapshot.removal:
        return (*points, point)
    older = (replace(known, weights=None) if removal_of(known) == snapshot.removal else known for known in points)
    return (*older, job.folder.save_point(point, snapshot.weights, plan_of_removal(job, snapshot.removal)))
