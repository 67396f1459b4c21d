"""What a run gives: the small network, and how it came about."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from amsc.jobs.run_state import RunState
from amsc.jobs.stages import Job, run_stages
from amsc.jobs.stages.job import end_of, plan_of_removal, small_network
from amsc.records import Record
from amsc.report import render
from amsc.storage import write_atomically
from amsc.structure import Structure
from amsc.structure.words import cost_words
from amsc.surgery import CutPlan
from amsc.words.page import Page
from amsc.words.record import record_page
from amsc.words.shown import Shown

__all__ = ["Result", "finished"]


@dataclass(frozen=True, eq=False, repr=False)
class Result(Shown):
    """The small `model`, in eval mode; the `record` of the run; the `plan` that leads from the dense network to it; and
    the `structure` of the small network."""

    model: nn.Module
    record: Record
    plan: CutPlan
    structure: Structure

    def page(self) -> Page:
        """What the record says, and how large the network is now."""
        page = record_page(self.record)
        return replace(
            page,
            lines=(*page.lines, f"the small network: {cost_words(self.structure)}"),
            more="more: result.record, result.plan, result.structure, result.report(PATH), result.to_json()",
        )

    def in_a_line(self) -> str:
        """The run, and what is left."""
        return f"{self.record.in_a_line()}; {cost_words(self.structure)} left"

    def to_json(self, *, indent: int | None = None) -> str:
        """Record, plan and structure as JSON text; the model is saved with `amsc.save`."""
        parts = {"record": self.record, "plan": self.plan, "structure": self.structure}
        return json.dumps({name: json.loads(part.to_json()) for name, part in parts.items()}, indent=indent)

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
    return Result(small.model.eval(), last.record, plan_of_removal(job, end_of(last).removal), small.structure)
