"""A network as one ONNX file, run by onnxruntime once before it is handed out."""

import contextlib
import importlib
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from amsc.borrowing import borrowed, call_arguments
from amsc.errors import InputError, ModelError, SettingsError
from amsc.export.parity import Exported, axis_sizes, brief, check_axes, check_parity, runs_along
from amsc.export.program import exported_program, quiet
from amsc.storage import written_whole

__all__ = ["export_onnx", "onnx_calls"]

EXTRA = ("onnx", "onnxruntime", "onnxscript")
MOST_BYTES = 2**31 - 2**20
"""An ONNX file is one protobuf message, which cannot be larger than 2 GiB."""


def export_onnx(
    model: nn.Module,
    example_inputs: Any,
    path: str | Path,
    *,
    dynamic_batch: bool = True,
    dynamic_axes: Collection[int] = (),
) -> Exported:
    """Write `model`, in eval mode, as one ONNX file, and compare what onnxruntime makes of it with the model.

    A file at `path` is replaced, but only if the new one gives the model's outputs. `model` is not changed. Weights are
    in the file. Where the exporter based on torch.export cannot follow the model, the older one is tried.

    Args:
        model: the network, for example a cut one.
        example_inputs: one batch as forward takes it; the batch is the first axis.
        path: the file, named .onnx.
        dynamic_batch: it takes batches of any size, not only that of the example; in the file the axis is "batch".
        dynamic_axes: other axes of any size, such as (2, 3) of images or (1,) of texts: of the first tensor, and of all
            others that are as long there.

    Raises:
        SettingsError: the extra packages are missing.
        ModelError: no exporter can follow the model's forward, it is too large for one file, or in bfloat16.
        VerificationError: the file gives other outputs; nothing is written.
        RunFolderError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise SettingsError(f"expected a file named .onnx, got {path}")
    runtime, free = _packages()["onnxruntime"], check_axes(dynamic_axes)
    _check_size(model)
    _check_precision(model, example_inputs)
    with borrowed(model), quiet(), written_whole(path, make_folder=True) as temporary:
        _write(model, example_inputs, temporary, dynamic_batch, free)
        session = _session(runtime, temporary)

        def run(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
            return [torch.from_numpy(array) for array in session.run(None, _feed(session, args, kwargs))]

        error = check_parity(model, run, example_inputs, dynamic_batch=dynamic_batch, dynamic_axes=free)
    return Exported(str(path), "onnx", path.stat().st_size, error, dynamic_batch, free)


@contextlib.contextmanager
def onnx_calls(models: Sequence[nn.Module], example_inputs: Any) -> Iterator[Sequence[Callable[[], Any]]]:
    """For each model a call that runs it in onnxruntime on the example inputs, with as many threads as torch has.

    Files are made for the time of the context, by the older exporter where it can: it takes a tenth of the time. What
    they compute is not compared, see `export_onnx`. `models` come back as they were.

    Raises:
        SettingsError: the extra packages are missing.
        ModelError: a model cannot be exported.
    """
    runtime = _packages()["onnxruntime"]
    args, kwargs = call_arguments(example_inputs)
    with tempfile.TemporaryDirectory() as folder:
        calls = []
        for number, model in enumerate(models):
            _check_precision(model, example_inputs)
            path = Path(folder) / f"{number}.onnx"
            with borrowed(model), quiet():
                _write_for_timing(model, example_inputs, path)
            session = _session(runtime, path, threads=torch.get_num_threads())
            calls.append(partial(session.run, None, _feed(session, args, kwargs)))
        yield calls


def _packages() -> dict[str, Any]:
    """The packages of the extra, imported.

    Raises:
        SettingsError: one is missing.
    """
    found = {}
    for name in EXTRA:
        try:
            found[name] = importlib.import_module(name)
        except ImportError as error:
            raise SettingsError(f"ONNX needs the package {name}: pip install 'amsc[onnx]'") from error
    return found


def _check_size(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}")
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > MOST_BYTES:
        raise ModelError(
            f"the weights take {size / 2**30:.1f} GiB, more than the 2 GiB of one ONNX file; cut the model further, "
            "export it in half precision, or as a .pt2 file"
        )


def _check_precision(model: nn.Module, example_inputs: Any) -> None:
    leaves = pytree.tree_leaves((list(model.parameters()), list(model.buffers()), call_arguments(example_inputs)))
    if any(isinstance(leaf, Tensor) and leaf.dtype == torch.bfloat16 for leaf in leaves):
        raise ModelError(
            "bfloat16 cannot be exported to ONNX: onnxruntime does not run it on a CPU, so that the file could not be "
            "checked; export model.half() or model.float() on inputs of that type, or a .pt2 file"
        )


def _session(runtime: Any, path: Path, *, threads: int = 0) -> Any:
    """The file, opened by onnxruntime, which runs it on so many threads (0: it decides).

    Raises:
        ModelError: onnxruntime refuses it.
    """
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each code, and no common one
        raise ModelError(
            f"the exported ONNX file cannot be run by onnxruntime ({brief(error)}); export the model in float32, or as "
            "a .pt2 file"
        ) from error


def _write(model: nn.Module, example_inputs: Any, path: Path, dynamic_batch: bool, free: Sequence[int] = ()) -> None:
    """The file by the exporter based on torch.export, or else by the older one."""
    try:
        program, shapes = exported_program(model, example_inputs, dynamic_batch=dynamic_batch, dynamic_axes=free)
        named = {} if shapes is None else {"dynamic_shapes": shapes}  # so that the file has the names of the axes
        torch.onnx.export(program, (), str(path), dynamo=True, external_data=False, verbose=False, **named)
    except InputError:
        raise
    except Exception as first:  # exporters raise errors of many kinds
        try:
            _write_by_tracing(model, example_inputs, path, dynamic_batch, free)
        except Exception as second:
            raise ModelError(
                f"{type(model).__name__} cannot be exported to ONNX: {brief(first)}; nor by the older exporter: "
                f"{brief(second)}. Replace what is named, or export a .pt2 file"
            ) from first


def _write_for_timing(model: nn.Module, example_inputs: Any, path: Path) -> None:
    """The file by whichever exporter can, the faster one first, for the batch of the example."""
    try:
        _write_by_tracing(model, example_inputs, path, dynamic_batch=False)
    except Exception:  # the other one says why
        _write(model, example_inputs, path, dynamic_batch=False)


def _write_by_tracing(
    model: nn.Module, example_inputs: Any, path: Path, dynamic_batch: bool, free: Sequence[int] = ()
) -> None:
    """The file by the exporter based on TorchScript."""
    args, kwargs = call_arguments(example_inputs)
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    names = [f"input{number}" for number in range(len(leaves))]
    known = {**({0: "batch"} if dynamic_batch else {}), **{axis: f"axis{axis}" for axis in free}}
    sizes = axis_sizes(example_inputs, known)
    along = [{axis: known[axis] for axis in runs_along(leaf, sizes)} for leaf in leaves]
    torch.onnx.export(
        model,
        args,
        str(path),
        kwargs=dict(kwargs),
        dynamo=False,
        input_names=names,
        dynamic_axes=dict(zip(names, along, strict=True)),
    )


def _feed(session: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by the names that the file gives its inputs: its own, or else in order."""
    inputs = [entry.name for entry in session.get_inputs()]
    by_name = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
    if not args and set(inputs) <= set(by_name):
        return {name: by_name[name].detach().cpu().numpy() for name in inputs}
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return {name: leaf.detach().cpu().numpy() for name, leaf in zip(inputs, leaves, strict=True)}
