"""Reading and calling a model that belongs to somebody else: the model, what goes into it, and what comes out."""

from amsc.borrowing.calling import check_devices, run_model, unfused_attention
from amsc.borrowing.failures import forward_failed
from amsc.borrowing.inputs import (
    Calls,
    InputSpec,
    TensorSpec,
    call_arguments,
    copied_inputs,
    example_calls,
    map_tensors,
    random_inputs,
)
from amsc.borrowing.model import borrowed, copied, named_tensors, set_tensor, storage_id, unchanged_on_error
from amsc.borrowing.outputs import NO_STATE, OwnState, Seen, look_into, with_tensors
from amsc.borrowing.precision import has_double, in_double
from amsc.borrowing.randomness import (
    devices_of,
    forked,
    generator_states,
    generator_tensors,
    restore_generators,
    seed_generators,
)

__all__ = [
    "NO_STATE",
    "Calls",
    "InputSpec",
    "OwnState",
    "Seen",
    "TensorSpec",
    "borrowed",
    "call_arguments",
    "check_devices",
    "copied",
    "copied_inputs",
    "devices_of",
    "example_calls",
    "forked",
    "forward_failed",
    "generator_states",
    "generator_tensors",
    "has_double",
    "in_double",
    "look_into",
    "map_tensors",
    "named_tensors",
    "random_inputs",
    "restore_generators",
    "run_model",
    "seed_generators",
    "set_tensor",
    "storage_id",
    "unchanged_on_error",
    "unfused_attention",
    "with_tensors",
]
