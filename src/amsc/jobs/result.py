"""What a run gives: the small network, and how it came about."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from amsc.jobs.run_state import RunState
from amsc.jobs.stages import Job, run_stages
from amsc.jobs.stages.job import end_of, plan_of_removal, small_network
from amsc.records import Record
from amsc.report import render
from amsc.storage import write_atomically
from amsc.structure import Structure
from amsc.surgery import CutPlan

__all__ = ["Result", "finished"]


@dataclass(frozen=True, eq=False)
class Result:
    """The small `model`, ready to use; the `record` of the run; the `plan` that leads from the dense network to it; and
    the `structure` of the small network."""

    model: nn.Module
    record: Record
    plan: CutPlan
    structure: Structure

    def report(self, path: str | Path) -> None:
        """Write the report of the run as one HTML file.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_atomically(Path(path), render(self.record).encode())


def finished(job: Job, state: RunState) -> Result:
    """The outcome of a run that goes on from `state`; its report is written beside it."""
    last = run_stages(job, state)
    assert last.record is not None, "the last stage has written it"
    job.folder.write_report(last.record)
    small = small_network(job, last)
    return Result(small.model, last.record, plan_of_removal(job, end_of(last).removal), small.structure)
