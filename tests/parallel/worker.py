"""What each of the processes of a job does here: everything once alone, and once together with the others.

Called by `test_two_processes.py` as two processes that torchrun might have started. What came out is written
as JSON, by each into a file of its own.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import amsc
from amsc.data import LoaderData, open_data
from amsc.errors import AmscError
from amsc.jobs.processes import together
from amsc.parallel import all_together, by_first, joined, told_of_failure, world
from amsc.settings import Settings
from amsc.stopping import stoppable
from amsc.surgery import stand_in
from amsc.tasks import Classification
from amsc.training import OptimizerChoice, TrainSettings, evaluate, finetune
from amsc.training.gates.scan_gates import find_gates, gate_derivatives
from amsc.training.steps.finetune import TrainState

TASK = Classification()
EXAMPLES = 64


class Residual(nn.Module):
    """Adds to what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        read: Tensor = x + self.inner(x)
        return read


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)]
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), Residual(), Residual(), *ends).double()


@dataclass(frozen=True)
class Doubled:
    """The digits in float64, so that what is summed in another order differs by nothing that counts."""

    data: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, target in self.data.batches(split, seed=seed):
            yield inputs.double(), target

    def spread_batches(self, split: str, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, target in self.data.spread_batches(split, count):
            yield inputs.double(), target

    def example_inputs(self, batch: int = 1) -> Tensor:
        inputs: Tensor = self.data.example_inputs(batch).double()
        return inputs


DATA = Doubled(open_data("digits", seed=0, batch_size=50))


def trained() -> nn.Module:
    model = network()
    finetune(model, DATA, TASK, TrainSettings("dense", 1.0, OptimizerChoice(0.05), seed=0))
    return model


def training() -> list[float]:
    return [float(tensor.double().sum()) for tensor in trained().state_dict().values()]


def scores() -> list[float]:
    return evaluate(network(), DATA, "validation", TASK).per_example.tolist()


def derivatives() -> list[float]:
    model = network().eval()
    structure, coordinates = find_gates(amsc.trace(model, DATA.example_inputs()), model)
    found = gate_derivatives(model, structure, coordinates, DATA, TASK, stand_in=stand_in, examples=EXAMPLES)
    return found.gradients.flatten().tolist()


def reconstruction() -> list[float]:
    model = network().eval()
    structure = amsc.trace(model, DATA.example_inputs())
    channels = {group.name: range(3) for group in structure.channels if group.removable and group.kind != "stream"}
    plan = amsc.plan_cut(structure, channels=channels)
    small = amsc.reconstruct(amsc.cut(model, plan), model, DATA, examples=4 * 50).model
    return [float(tensor.double().sum()) for tensor in small.state_dict().values()]


def job(out: Path | None, settings: Settings) -> amsc.Result:
    torch.manual_seed(0)
    model = network().float()
    data = open_data("digits", seed=0, batch_size=50)
    return amsc.compress(model, data.example_inputs(), data, target="macs=60%", settings=settings, out=out)


def run(folder: Path) -> dict[str, Any]:
    """A job from beginning to end, in a folder that the first process writes."""
    result = job(folder, Settings(dense_epochs=1, path_points=1, finetune_epochs=1, reconstruction=150))
    return {"gone": [result.record.removed_blocks, result.record.removed_channels], "score": result.record.score_after}


def refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except (AmscError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def refusals(folder: Path) -> dict[str, str]:
    """What each process says where only one of them has a reason."""
    rank = int(os.environ["RANK"])
    one, many = Settings(), Settings(path_points=2 + rank)

    def with_others(model: nn.Module, data: Any, settings: Settings) -> None:
        with together(model, data, settings):
            pass

    def failing() -> None:
        if rank == 1:
            raise FileNotFoundError("only here")

    def short() -> None:
        batches = [(torch.zeros(1, 1, 8, 8).double(), torch.zeros(1, dtype=torch.long))]
        data = LoaderData(batches, batches, batches)
        finetune(network(), data, TASK, TrainSettings("dense", 1.0, OptimizerChoice(0.1)))

    return {
        "weights": refusal(lambda: with_others(network(rank), DATA, one)),
        "data": refusal(lambda: with_others(network(), open_data("digits", seed=rank), one)),
        "settings": refusal(lambda: with_others(network(), DATA, many)),
        "capture": refusal(lambda: with_others(network(), DATA, Settings(capture=True, device="cuda"))),
        "failure of one": refusal(lambda: told_of_failure(failing)),
        "of the first": refusal(lambda: by_first(lambda: (folder / "missing").read_text())),
        "a short batch": refusal(short),
    }


class Interrupted(Doubled):
    """Data in whose second batch the second process is asked to end."""

    def batches(self, split: str, *, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(super().batches(split, seed=seed)):
            if (number, split, world().rank) == (1, "train", 1):
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def stopping() -> dict[str, Any]:
    """One process is asked to end; both leave training after the same step, and go on from there to the same end."""
    states: list[TrainState] = []
    model, settings, reason = network(), TrainSettings("dense", 1.0, OptimizerChoice(0.05), seed=0), ""
    try:
        with stoppable():
            finetune(model, Interrupted(DATA.data), TASK, settings, save=states.append)
    except KeyboardInterrupt as stop:
        reason = type(stop).__name__
    again = network()
    finetune(again, DATA, TASK, settings, state=states[-1])
    pause = states[-1].pause
    return {
        "reason": reason,
        "steps": 0 if pause is None else pause["steps"],
        "sums": [float(tensor.sum()) for tensor in again.parameters()],
        "undisturbed": [float(tensor.sum()) for tensor in trained().parameters()],
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    works = {work.__name__: work for work in (training, scores, derivatives, reconstruction)}
    alone = {name: work() for name, work in works.items()}
    with joined(), all_together() as here:
        found: dict[str, Any] = {
            "size": here.size,
            "alone": alone,
            "together": {name: work() for name, work in works.items()},
            "refusals": refusals(folder),
            "stopping": stopping(),
            "run": run(folder / "run"),
        }
        (folder / f"{here.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
