"""Proof of a cut: the cut model and the masked model give the same outputs, or there is an error."""

import contextlib
import copy
import math
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amsc.borrowing import OwnState, Seen, borrowed, devices_of, forked, has_double, in_double, look_into
from amsc.errors import AmscError, InputError, UndefinedOutputError, VerificationError
from amsc.structure.tracing.running import failing_line
from amsc.surgery.apply import masked
from amsc.surgery.draws import Shapes, first_changed, run_with_equal_draws
from amsc.surgery.inputs import EXAMPLE, doubled, trial_inputs
from amsc.surgery.plan import CutPlan

__all__ = ["verify", "verify_throwaway"]

NUM_RANDOM_INPUTS = 2
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
LOW_PRECISION_TOLERANCE = 2e-2
ANY_FINITE = sys.float_info.max
QUOTIENT = (
    "; a quotient of a width that stays (//) does not follow: in attention write the head size as -1, as in "
    "reshape(b, n, 3, heads, -1), and where the heads are put together reshape(b, n, -1)"
)
"""What to say of a reshape to a size that is computed from another."""
RESHAPED = re.compile(r"^shape '\[.*\]' is invalid for input of size|^unflatten: ")
"""What torch says of sizes in a reshape that do not make up the tensor's."""


def verify(
    model: nn.Module,
    small: nn.Module,
    plan: CutPlan,
    example_inputs: Any = None,
    tolerance: float | None = None,
    num_random: int = NUM_RANDOM_INPUTS,
) -> float:
    """The largest relative difference between `small` and `model` with the plan's channels set to zero.

    Both run in eval mode on `example_inputs` (if given) and on `num_random` batches of random inputs of the same
    specification (else that of the plan) from a fixed seed; of several calls (`Calls`) on each. For each output tensor,
    wherever it stands in what forward returns, the difference is max|a - b| / max|a|, a the masked output, in float64
    (max|a - b| where a is zero); what else is returned must be equal. Random inputs on which
    the masked model fails or is not finite are skipped with a warning. `tolerance` is by default 1e-5 in
    float32, 1e-10 in float64 and 2e-2 below, by the least precise of parameters and outputs. Where float32 differs by
    more, copies in float64 decide whether that is rounding: it may tip a choice among equals, such as the best k of
    some scores. Random numbers that the networks draw in eval mode are the same in both, by the module that draws them
    (see `EqualDraws`). Neither model is changed.

    Raises:
        VerificationError: they differ by more, the cut model fails, or nothing could be compared.
        InputError: the model fails on `example_inputs`.
        ModelError: its output holds something that cannot be looked into.
    """
    reference = masked(model, plan)
    found = _compared(reference, small, plan, example_inputs, tolerance, num_random)
    if tolerance is None and found.may_be_rounding:
        in_double = _in_double(reference, small, plan, example_inputs, num_random)
        found = in_double if in_double is not None and in_double.is_allowed else found
    return _verdict(found, plan)


def verify_throwaway(model: nn.Module, small: nn.Module, plan: CutPlan, example_inputs: Any) -> str:
    """`verify` on the example inputs alone, in a fraction of its time, for a `small` that is thrown away afterwards: it
    is not given back as it was, and may share parameters with `model`.

    It runs before there is a masked network, since most cuts that do not work fail in its forward. Where float64 might
    tell that a difference is rounding, it is told and not raised; "" if there is none.

    Of a plan with groups that no proof covers only the shapes of the outputs are compared, and that they are finite.

    Raises:
        VerificationError: as `verify`.
        InputError: the model fails on `example_inputs`.
    """
    with forked(devices_of(model)), torch.no_grad(), _full_float32():
        trials = list(trial_inputs(small, plan.inputs, example_inputs, 0))
        own = OwnState.of(model)
        outputs = [_small_output(small.eval(), inputs, own, plan, label) for label, inputs in trials]
        reference = masked(model, plan, shares=True).eval()
        for (label, inputs), (actual, redrawn) in zip(trials, outputs, strict=True):
            expected, drawn = _reference_output(reference, inputs, own, label)
            difference, output = _difference(expected, actual, plan)
            limit = ANY_FINITE if plan.unproven else _tolerance(reference, expected)
            moved = first_changed(drawn, redrawn)
            found = _Comparison(difference, f"{output} on {label}", limit, (), moved)
            try:
                _verdict(found, plan)
            except VerificationError as error:
                if not found.may_be_rounding or not _can_be_double(model):
                    raise
                return str(error)
    return ""


@dataclass(frozen=True)
class _Comparison:
    """The worst difference and where it was, what is allowed, the inputs that could not be compared, and the random
    numbers that could not be the same."""

    worst: float
    where: str
    limit: float | None
    skipped: tuple[str, ...]
    redrawn: str = ""

    @property
    def is_allowed(self) -> bool:
        """Whether something was compared, and differed by no more than it may."""
        return self.limit is not None and 0 <= self.worst <= self.limit

    @property
    def may_be_rounding(self) -> bool:
        """Whether float64 might tell that there is no difference."""
        return self.limit == TOLERANCES[torch.float32] and self.limit < self.worst < math.inf and not self.redrawn


def _compared(
    reference: nn.Module, small: nn.Module, plan: CutPlan, example_inputs: Any, tolerance: float | None, num_random: int
) -> _Comparison:
    worst, where, limit, skipped, moved = -1.0, "", tolerance, list[str](), ""
    own = OwnState.of(reference)
    with borrowed(reference), borrowed(small), _full_float32():
        for label, inputs in trial_inputs(reference, plan.inputs, example_inputs, num_random):
            try:
                expected, drawn = _reference_output(reference, inputs, own, label)
            except Exception as error:  # random inputs may be outside of what the user's forward accepts
                if label.startswith(EXAMPLE):
                    raise
                skipped.append(f"{label}: {error}")
                continue
            actual, redrawn = _small_output(small, inputs, own, plan, label)
            difference, output = _difference(expected, actual, plan)
            limit = _tolerance(reference, expected) if tolerance is None else tolerance
            if difference > worst:
                worst, where = difference, f"{output} on {label}"
            if not difference <= limit:
                moved = first_changed(drawn, redrawn)
                break
    return _Comparison(worst, where, limit, tuple(skipped), moved)


def _in_double(
    reference: nn.Module, small: nn.Module, plan: CutPlan, example_inputs: Any, num_random: int
) -> _Comparison | None:
    """The same in float64 (constants that were folded in float32 are still rounded); None where the models do not run
    in it, or their device has none."""
    allowed = TOLERANCES[torch.float32] if plan.folds else None
    if not _can_be_double(reference):
        return None
    doubles = [copy.deepcopy(model).double() for model in (reference, small)]
    try:
        return _compared(doubles[0], doubles[1], plan, doubled(example_inputs), allowed, num_random)
    except AmscError:
        return None


def _can_be_double(model: nn.Module) -> bool:
    return all(has_double(device) for device in devices_of(model))


def _reference_output(reference: nn.Module, inputs: Any, own: OwnState, label: str) -> tuple[Seen, Shapes]:
    """What the masked network returns, and the shapes of the random numbers that it draws."""
    output, drawn = run_with_equal_draws(reference, inputs)
    expected = look_into(output, own)
    tensors = _tensors(expected)
    if not tensors or not any(tensor.numel() for tensor in tensors.values()):
        raise VerificationError(
            f"the model returned {type(output).__name__} without any number in it on {label}, so a cut cannot be"
            " checked; return a tensor, or a tuple, list or dict of tensors"
        )
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UndefinedOutputError(
                f"{name} of the model with the removed channels set to zero is not finite on {label}, so the cut cannot"
                " be checked on them; give example inputs on which the model's output is finite"
            )
    return expected, drawn


def _small_output(small: nn.Module, inputs: Any, own: OwnState, plan: CutPlan, label: str) -> tuple[Seen, Shapes]:
    try:
        output, drawn = run_with_equal_draws(small, inputs)
    except Exception as error:  # the user's forward may raise anything, an assertion for example
        cause = error.__cause__ if isinstance(error, InputError) and error.__cause__ else error
        raise VerificationError(
            f"the cut model fails on {label}: {_why(cause)}. A size in the model's forward is"
            " probably written as a constant (such as x.view(-1, 400))"
            f"{', or it cannot do without a removed block' if plan.blocks else ''}; {_advice(plan)}"
        ) from error
    return look_into(output, own), drawn


def _why(cause: BaseException) -> str:
    """The error, the line of the user's code that it is from, and what follows a cut where sizes of a reshape do not.

    What comes after the next ". A size" or so is advice that is left out where reasons are listed."""
    line = failing_line(cause)
    hint = ""
    if RESHAPED.search(str(cause)):
        hint = QUOTIENT if "//" in line else ""
        hint += "; a size written as -1, as in reshape(b, n, -1), follows a cut"
    return f"{type(cause).__name__}: {cause}{f', at {line}' if line else ''}{hint}"


def _difference(expected: Seen, actual: Seen, plan: CutPlan) -> tuple[float, str]:
    """Largest relative difference over the output tensors, and in which one."""
    wanted, got = _tensors(expected), _tensors(actual)
    if differing := _first_differing(expected, actual):
        raise VerificationError(f"the cut model returns another structure of outputs, {differing}: {_advice(plan)}")
    for name, tensor in wanted.items():
        if tensor.shape != got[name].shape:
            raise VerificationError(
                f"{name} has shape {tuple(tensor.shape)} before the cut and {tuple(got[name].shape)} after it:"
                f" a removed channel can be seen from outside; {_advice(plan)}"
            )
    differences = {name: _relative(tensor, got[name]) for name, tensor in wanted.items() if tensor.numel()}
    where = max(differences, key=differences.__getitem__)
    return differences[where], where


def _relative(expected: Tensor, actual: Tensor) -> float:
    """max|a - b| / max|a| (max|a - b| for a = 0) in float64; infinite where b is not finite."""
    a, b = in_double(expected), in_double(actual)
    scale = float(a.abs().max())
    difference = float((a - b).abs().max()) / (scale if scale > 0 else 1.0)
    return difference if math.isfinite(difference) else math.inf


def _first_differing(expected: Seen, actual: Seen) -> str:
    """Where two outputs have not the same tensors, numbers and constants, and what is there; "" if they have."""
    for name in dict.fromkeys((*expected.leaves, *actual.leaves)):
        if name not in actual.leaves or name not in expected.leaves:
            return f"{name} only {'before' if name in expected.leaves else 'after'} the cut"
    for name in dict.fromkeys((*expected.constants, *actual.constants)):
        before, after = (side.constants.get(name, "nothing") for side in (expected, actual))
        if before != after:
            return f"{name} is {before!r} before the cut and {after!r} after it"
    return ""


def _tensors(seen: Seen) -> dict[str, Tensor]:
    """The tensors and numbers of an output by where they stand in it, such as "output[0]"."""
    return {name: leaf if isinstance(leaf, Tensor) else _as_tensor(leaf) for name, leaf in seen.leaves.items()}


def _as_tensor(number: Any) -> Tensor:
    """A number, or an array of numpy, as a tensor of double precision."""
    return torch.as_tensor(number, dtype=torch.complex128 if np.iscomplexobj(number) else torch.float64, device="cpu")


def _tolerance(reference: nn.Module, output: Seen) -> float:
    numbers = [*reference.parameters(), *_tensors(output).values()]
    kinds = {tensor.dtype.to_real() for tensor in numbers if tensor.is_floating_point() or tensor.is_complex()}
    return max((TOLERANCES.get(kind, LOW_PRECISION_TOLERANCE) for kind in kinds), default=0.0)


def _verdict(found: _Comparison, plan: CutPlan) -> float:
    if found.limit is None or found.worst < 0:
        raise VerificationError(
            f"nothing could be compared, so the cut is not proven ({'; '.join(found.skipped)}); pass example_inputs"
        )
    if not found.worst <= found.limit and found.redrawn:
        raise VerificationError(
            f"random numbers that are drawn in evaluation change their shape with the cut ({found.redrawn}), so that"
            f" they cannot be the same before and after it, and the cut cannot be checked; {_advice(plan)}"
        )
    if not found.worst <= found.limit:
        raise VerificationError(
            f"the cut model differs from the masked model by {found.worst:.3g} relative in {found.where}; allowed is"
            f" {found.limit:.3g}. The cut model is not handed out. Please report this with the model; until then,"
            f" {_advice(plan)}"
        )
    for reason in found.skipped:
        warnings.warn(f"the cut was not compared on {reason}", stacklevel=3)
    return found.worst


def _advice(plan: CutPlan) -> str:
    names = [*plan.blocks, *plan.channels]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    without = f"call plan_cut without the one at fault of: {shown or 'the axes of this plan'}"
    return f"{without} (`amsc.cuttable(model, structure, example_inputs)` finds what can go)"


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Float32 products in full: with TF32 or bfloat16 inside, two equal networks differ by 1e-3."""
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn
