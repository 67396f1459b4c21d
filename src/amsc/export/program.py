"""A network as a torch.export program (.pt2), which runs without the Python code of the model."""

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import borrowed, call_arguments, run_model
from amsc.errors import InputError, ModelError, SettingsError
from amsc.export.parity import (
    LONGEST,
    Exported,
    axis_sizes,
    batch_size,
    batched,
    brief,
    check_axes,
    check_parity,
    output_tensors,
    runs_along,
)
from amsc.storage import written_whole

__all__ = ["export_pt2", "exported_program", "quiet"]

FIXED_BATCH = "if forward is written for one batch size, export with dynamic_batch=False (--fixed-batch)"


def export_pt2(
    model: nn.Module,
    example_inputs: Any,
    path: str | Path,
    *,
    dynamic_batch: bool = True,
    dynamic_axes: Collection[int] = (),
) -> Exported:
    """Write `model`, in eval mode, as a torch.export program, and compare the file, read again, with the model.

    A file at `path` is replaced, but only if the new one gives the model's outputs. `model` is not changed. To use it:
    `torch.export.load(path).module()(inputs)`.

    Args:
        model: the network, for example a cut one.
        example_inputs: one batch as forward takes it; the batch is the first axis.
        path: the file, named .pt2.
        dynamic_batch: it takes batches of any size, not only that of the example.
        dynamic_axes: other axes of any size, such as (2, 3) of images or (1,) of texts: of the first tensor, and of all
            others that are as long there.

    Raises:
        ModelError: torch.export cannot follow the model's forward.
        VerificationError: the file gives other outputs; nothing is written.
        RunFolderError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise SettingsError(f"expected a file named .pt2, got {path}")
    free = check_axes(dynamic_axes)
    with borrowed(model), quiet():
        program, _ = exported_program(model, example_inputs, dynamic_batch=dynamic_batch, dynamic_axes=free)
        with written_whole(path, make_folder=True) as temporary:
            loaded = _written(model, program, temporary)

            def run(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
                return output_tensors(loaded(*args, **kwargs))

            error = check_parity(model, run, example_inputs, dynamic_batch=dynamic_batch, dynamic_axes=free)
    return Exported(str(path), "pt2", path.stat().st_size, error, dynamic_batch, free)


def exported_program(
    model: nn.Module, example_inputs: Any, *, dynamic_batch: bool, dynamic_axes: Sequence[int] = ()
) -> tuple[torch.export.ExportedProgram, Any]:
    """The model as a graph, traced on the example or, for a free batch axis, on a batch of two or more; and which axes
    of which argument are free, as torch.export takes that.

    Raises:
        ModelError: torch.export fails.
        InputError: the model fails on the example, or on a larger batch.
    """
    inputs, free = example_inputs, {axis: f"axis{axis}" for axis in dynamic_axes}
    if dynamic_batch:
        size = batch_size(example_inputs)
        inputs = batched(example_inputs, max(2, size))  # torch.export takes a size of 1 for a constant
        _try_larger_batch(model, example_inputs, inputs)
        free[0] = "batch"
    shapes = _free_axes(inputs, free) if free else None
    args, kwargs = call_arguments(inputs)
    try:
        return torch.export.export(model, args, dict(kwargs), dynamic_shapes=shapes), shapes
    except Exception as error:  # torch.export raises errors of many kinds
        raise ModelError(
            f"torch.export cannot follow {type(model).__name__}.forward ({brief(error)}); {FIXED_BATCH}"
        ) from error


def _written(model: nn.Module, program: torch.export.ExportedProgram, path: Path) -> nn.Module:
    """The program as it is read again from the file that it was written to.

    Raises:
        ModelError: torch.export does not write or read it.
    """
    try:
        torch.export.save(program, path)
        return torch.export.load(path).module()
    except OSError:
        raise
    except Exception as error:  # torch.export raises errors of many kinds
        raise ModelError(
            f"torch.export follows {type(model).__name__}.forward, but cannot write it to a file and read it again "
            f"({brief(error)}); let forward return tensors alone, without texts or objects beside them"
        ) from error


def _try_larger_batch(model: nn.Module, example_inputs: Any, larger: Any) -> None:
    try:
        run_model(model, larger)
    except InputError as error:
        run_model(model, example_inputs)  # if that fails too, it is not for the size of the batch
        raise InputError(f"{str(error)[:LONGEST]}; {FIXED_BATCH}") from error


def _free_axes(inputs: Any, names: Mapping[int, str]) -> Any:
    """The layout of the arguments, with the axes marked that are free, by their `names`."""
    sizes = axis_sizes(inputs, names)
    dims = {axis: torch.export.Dim(name, min=1) for axis, name in names.items()}

    def mark(leaf: Any) -> Any:
        return {axis: dims[axis] for axis in runs_along(leaf, sizes)} or None

    args, kwargs = call_arguments(inputs)
    # by position, and by name for keyword arguments: torch.export matches them with the signature
    return pytree.tree_map(mark, kwargs) if kwargs else pytree.tree_map(mark, args)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings, progress and graphs that exporters write; errors are raised as ever."""
    level, graphs = logging.root.manager.disable, torch._C._jit_onnx_log
    logging.disable(logging.ERROR)
    # torch writes the graph of a failure past sys.stdout, and sets its own switch for that whatever is asked for
    torch._C._jit_onnx_log = lambda *_: None
    words = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_onnx_log = graphs
        logging.disable(level)
