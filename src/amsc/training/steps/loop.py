"""Training steps: batches in a reproducible order, the loss watched without slowing the device down."""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import forked, generator_tensors, seed_generators
from amsc.data import Data, batch_size, moved
from amsc.data.protocol import alternates
from amsc.errors import DataError, InputError, NonFiniteLossError
from amsc.parallel import highest, world
from amsc.progress import NoProgress, Progress
from amsc.stopping import Terminated, Wish, putting_off
from amsc.tasks import Task
from amsc.training.steps.captured import step_of
from amsc.training.steps.pause import Pause, gone_on
from amsc.training.steps.step import AS_IS, Optimizer, Speed, Step, Teach, TrainingStep, as_it_is, device_of

__all__ = [
    "Batches",
    "Stretch",
    "ahead",
    "cosine",
    "derived_seed",
    "set_learning_rate",
    "told_of",
    "train_steps",
]

LOSS_CHECK_STEPS = 20
"""Steps between two looks at the losses: each look makes the processor wait for the accelerator."""


@dataclass(frozen=True)
class Batches:
    """Training batches of `phase`: epoch after epoch, each in an order that (seed, phase, epoch) alone decides.

    So nothing but the epoch's number is needed to go on after an interruption. `device` is where the network is."""

    data: Data
    seed: int
    phase: str
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it does not change

    def epoch(self, number: int) -> Iterator[tuple[Any, Tensor]]:
        """One pass over the training data; torch's generators on the CPU and `device` are seeded as well, for dropout.

        A single example that is left over at the end is skipped: BatchNorm has no deviation for it. So are fewer than
        there are processes."""
        second = number % 2 if alternates(self.data) else 0
        seed = derived_seed(self.seed, self.phase, number - second) ^ second
        seed_generators(seed, [self.device])
        for index, (inputs, target) in enumerate(self.data.batches("train", seed=seed)):
            if index == 0 or batch_size(target) >= max(2, world().size):
                yield inputs, target

    def take(self, steps: int, *, first_epoch: int = 0) -> Iterator[tuple[Any, Tensor]]:
        """`steps` batches, over as many epochs as that takes.

        Raises:
            DataError: an epoch has no batch.
        """
        epoch, done = first_epoch, 0
        while done < steps:
            before = done
            for batch in self.epoch(epoch):
                yield batch
                done += 1
                if done == steps:
                    return
            if done == before:
                raise DataError(f"the training split of {self.data.name} gave no batch; it needs at least one example")
            epoch += 1


@dataclass(frozen=True)
class Stretch:
    """Where a stretch of training lies, for progress and messages: its first step of `steps` of `phase`."""

    phase: str
    first: int
    steps: int


def train_steps(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterator[tuple[Any, Any]],
    task: Task,
    stretch: Stretch,
    *,
    before: Callable[[int], None] = lambda number: None,
    after: Callable[[int], None] = lambda number: None,
    watch: Callable[[], dict[str, float]] = dict,
    look: Callable[[int], Mapping[str, float]] = lambda number: {},
    teach: Teach = as_it_is,
    speed: Speed = AS_IS,
    step: Step | None = None,
    pause: Pause | None = None,
    leave: Callable[[Pause], object] | None = None,
    progress: Progress = NoProgress(),  # noqa: B008 - it has no state
) -> float:
    """Train `model` in place, one step for each batch; returns the mean loss.

    `before(i)` and `after(i)` run around step i (0, 1, ... within this call); `watch()` adds values to what `progress`
    gets, and what `look(i)` sees after step i it gets at once; `teach(inputs, output, loss)` is the loss to minimise in
    place of the task's; `speed` says how to compute. A `step` of the same (see `step_of`) may be given, so that several
    calls share what it has recorded. The caller's random generators come back as they were.

    With `leave`, a wish to stop (see `putting_off`) waits for the end of the step; `leave` then gets where this call
    stands, beside what the model and the optimiser hold. A call with the same batches and that `pause` goes on there
    identically; the first step of it has the number `pause.steps`.

    Raises:
        NonFiniteLossError: a loss is not finite; the message names the step.
    """
    device = device_of(model)
    gauge, first = _LossGauge(optimizer, stretch, pause, device), 0 if pause is None else pause.steps
    step = step_of(TrainingStep(model, optimizer, task, teach, speed)) if step is None else step
    model.train()
    with forked([device]), putting_off() if leave else nullcontext(Wish()) as wish:
        for number, (inputs, target) in enumerate(ahead(gone_on(batches, pause, device), device), start=first):
            before(number)
            loss = step(inputs, target)
            after(number)
            seen = look(number)
            if gauge.add(loss, is_asked=bool(seen)):
                values = {"loss": gauge.recent, **watch(), **seen}
                progress.update(stretch.phase, stretch.first + number + 1, stretch.steps, **values)
            if leave is not None and _is_to_stop(wish):
                leave(gauge.pause(device))
                break
    gauge.look()
    progress.update(stretch.phase, stretch.first + gauge.seen, stretch.steps, loss=gauge.recent, **watch())
    return gauge.total / max(1, gauge.seen)


def _is_to_stop(wish: Wish) -> bool:
    """Whether somebody wants training to stop, here or in another process."""
    kinds = (None, KeyboardInterrupt, Terminated)
    wish.kind = kinds[highest(kinds.index(wish.kind))]
    return wish.is_heard


def ahead(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """The same batches; those for a CUDA device have come there, copied while the step before was computed."""
    if device.type != "cuda":
        yield from batches
        return
    aside, coming = torch.cuda.Stream(device), deque[tuple[Any, torch.cuda.Event]]()
    for batch in batches:
        with torch.cuda.stream(aside):
            coming.append((moved(batch, device), aside.record_event()))
        if len(coming) > 1:
            yield _arrived(*coming.popleft(), device)
    for batch, event in coming:
        yield _arrived(batch, event, device)


def _arrived(batch: Any, event: torch.cuda.Event, device: torch.device) -> Any:
    """The batch for the main stream, which waits for the copy and keeps its memory."""
    main = torch.cuda.current_stream(device)
    main.wait_event(event)
    for leaf in pytree.tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.is_cuda:
            leaf.record_stream(main)
    return batch


class _LossGauge:
    """Collects losses on the device and looks at them every `LOSS_CHECK_STEPS` steps."""

    def __init__(self, optimizer: Optimizer, stretch: Stretch, pause: Pause | None, device: torch.device) -> None:
        self.optimizer, self.stretch = optimizer, stretch
        self.waiting: list[Tensor] = [] if pause is None else list(pause.wait.to(device))
        self.seen = 0 if pause is None else pause.steps - len(self.waiting)
        self.total, self.recent = (0.0, math.nan) if pause is None else (pause.total, pause.recent)

    def pause(self, device: torch.device) -> Pause:
        """Where it stands. The losses that wait are not looked at, so that whoever goes on looks when it would have;
        but if one of them is no number, there is nothing to go on with."""
        wait = torch.stack(self.waiting).cpu() if self.waiting else torch.zeros(0)
        if not bool(torch.isfinite(wait).all()):
            self.look()
        return Pause(self.seen + len(wait), self.total, self.recent, wait, generator_tensors([device]))

    def add(self, loss: Tensor, *, is_asked: bool = False) -> bool:
        """Whether the losses were looked at, as it was time or somebody asked."""
        self.waiting.append(loss)
        if len(self.waiting) < LOSS_CHECK_STEPS and not is_asked:
            return False
        self.look()
        return True

    def look(self) -> None:
        values: list[float] = torch.stack(self.waiting).tolist() if self.waiting else []
        for index, value in enumerate(values):
            if not math.isfinite(value):
                step = self.stretch.first + self.seen + index + 1
                rate = float(self.optimizer.param_groups[0]["lr"])
                raise NonFiniteLossError(
                    f"the loss became {value} at step {step} of {self.stretch.steps} of the {self.stretch.phase} phase "
                    f"(learning rate {rate:.3g}); lower that phase's learning rate, and check that the data and the "
                    "model's weights are finite"
                )
            self.total += value  # one by one, so that the sum does not depend on when somebody looks
        self.seen, self.waiting = self.seen + len(values), []
        if values:
            self.recent = sum(values) / len(values)


@contextmanager
def told_of(what: str) -> Iterator[None]:
    """An `InputError` inside, of a batch that the network does not take, is a `DataError` that says `what` it was."""
    try:
        yield
    except InputError as error:
        raise DataError(f"the network does not take {what}: {error}; give batches of one kind in all splits") from error


def cosine(step: int, steps: int, *, warmup: int = 0) -> float:
    """Factor on the learning rate at `step` (from 0): linear over `warmup` steps, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every parameter group of `optimizer` this learning rate; where it is a tensor, a captured step reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def derived_seed(seed: int, *parts: str | int) -> int:
    """A seed of 31 bits that depends on `seed` and all `parts`, and looks unrelated to that of other parts."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
