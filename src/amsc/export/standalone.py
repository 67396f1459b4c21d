"""A network as one Python file and its weights, which need torch and safetensors and nothing else."""

import inspect
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, fx, nn

from amsc.borrowing import borrowed
from amsc.errors import ModelError
from amsc.export.parity import Exported, brief, check_parity, output_tensors
from amsc.export.program import quiet
from amsc.storage import written_whole

__all__ = ["export_standalone"]

CODE_FILE, WEIGHTS_FILE = "model.py", "model.safetensors"
OF_WEIGHTS = frozenset({"device", "dtype"})
"""Arguments of layers that say what the weights are, which come from the file."""
OWN_MODULES = ("torch", "math", "operator", "_operator", "builtins")
INSTEAD = "export a .pt2 or ONNX file, or keep amsc.load"
FILE = '''"""{name}, {parameters:,} parameters. Written by amsc {version}; needs torch and safetensors.

    from model import load

    model = load()  # in eval mode
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
{imports}

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        layers = {{
{layers}
        }}
        for name, layer in layers.items():
            holder, _, own = name.rpartition(".")
            self.get_submodule(holder).add_module(own, layer)
{tensors}
{forward}


def load(folder=Path(__file__).parent):
    """The network with its weights, in eval mode."""
    return filled(load_file(Path(folder) / "{weights}"))


def filled(state):
    """The network with these weights."""
    model = Model()
    tied = {tied!r}
    model.load_state_dict(state | {{name: state[first] for name, first in tied.items()}}, assign=True)
    for name, first in tied.items():
        holder, _, own = name.rpartition(".")
        setattr(model.get_submodule(holder), own, model.get_parameter(first))
    return model.eval()
'''


def export_standalone(model: nn.Module, example_inputs: Any, folder: str | Path) -> Exported:
    """Write `model` to `folder` as model.py and model.safetensors, from which it is loaded without amsc and without the
    code of the network: `from model import load`.

    It works for networks whose forward does the same whatever the numbers are (`torch.fx` can follow it), and whose
    layers are torch's own. Files there are replaced, but only if the new ones give the model's outputs in eval mode.
    `model` is not changed.

    Args:
        example_inputs: one batch as forward takes it.

    Raises:
        ModelError: the network is not of this kind; the message says why.
        VerificationError: the file gives other outputs; nothing is written.
        RunFolderError: the files cannot be written.
    """
    folder = Path(folder)
    with borrowed(model), quiet():
        graph = _graph(model)
        state, tied = _state(graph)
        code = _code(graph, type(model).__name__, tied)
        again = _made_again(code, state)

        def run(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
            with torch.no_grad():
                return output_tensors(again(*args, **kwargs))

        error = check_parity(model, run, example_inputs, dynamic_batch=False)
        with (
            written_whole(folder / WEIGHTS_FILE, make_folder=True) as weights,
            written_whole(folder / CODE_FILE) as text,
        ):
            save_file(state, weights)
            text.write_text(code, encoding="utf-8")
            weights.chmod(text.stat().st_mode)  # which safetensors leaves to its owner alone
    size = sum((folder / name).stat().st_size for name in (CODE_FILE, WEIGHTS_FILE))
    return Exported(str(folder), "standalone", size, error, dynamic_batch=False)


def _graph(model: nn.Module) -> fx.GraphModule:
    """What the forward does, and the layers that it uses.

    Raises:
        ModelError: it depends on values.
    """
    try:
        return fx.symbolic_trace(model)
    except Exception as error:  # whatever a forward raises that is given symbols for numbers
        raise ModelError(
            f"{type(model).__name__} cannot be written as a file of its own: torch.fx cannot follow its forward "
            f"({brief(error)}); {INSTEAD}"
        ) from error


def _state(graph: fx.GraphModule) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, each under its first name, and the first name of each that has others."""
    first: dict[int, str] = {}
    state, tied = dict[str, Tensor](), dict[str, str]()
    for name, tensor in _tensors(graph):
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
        else:
            first[id(tensor)], state[name] = name, tensor.detach().cpu().contiguous()
    return state, tied


def _tensors(graph: fx.GraphModule) -> Iterator[tuple[str, Tensor]]:
    yield from chain(graph.named_parameters(remove_duplicate=False), graph.named_buffers(remove_duplicate=False))


def _code(graph: fx.GraphModule, name: str, tied: Mapping[str, str]) -> str:
    """The file.

    Raises:
        ModelError: a layer or a function is not torch's.
    """
    from importlib.metadata import version

    layers = {place: layer for place, layer in graph.named_modules(remove_duplicate=False) if place}
    leaves = [place for place, layer in layers.items() if _is_layer(layer)]
    held = {place: _call(place, layer) if place in leaves else "nn.Module()" for place, layer in layers.items()}
    source = graph.graph.python_code("self")
    forward = _plain(source.src)
    used = {word: value for word, value in source.globals.items() if re.search(rf"\b{word}\b", forward)}
    return FILE.format(
        name=name,
        version=version("amsc"),
        parameters=sum(parameter.numel() for parameter in graph.parameters()),
        imports="".join(f"{line}\n" for line in _imports(used, name)),
        layers="\n".join(f"            {place!r}: {call}," for place, call in held.items()),
        tensors="".join(f"        {line}\n" for line in _loose_tensors(graph, leaves)),
        forward="\n".join(f"    {line}".rstrip() for line in forward.splitlines()),
        weights=WEIGHTS_FILE,
        tied=dict(tied),
    )


def _is_layer(module: nn.Module) -> bool:
    """Whether it is a layer of torch, rather than something that holds layers."""
    holders = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    return type(module).__module__.startswith("torch.nn.modules") and type(module) not in (nn.Module, *holders)


def _call(name: str, layer: nn.Module) -> str:
    """The call that makes a layer like this one, with the arguments that are not the usual ones.

    Raises:
        ModelError: there is none.
    """
    arguments = []
    for argument in list(inspect.signature(type(layer).__init__).parameters.values())[1:]:
        if argument.name in OF_WEIGHTS or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        value = getattr(layer, argument.name, argument.default)
        if isinstance(argument.default, bool) and not isinstance(value, bool):  # the bias itself
            value = value is not None
        usual = (argument.default,) * len(value) if isinstance(value, tuple) else argument.default
        if value is argument.empty or value != usual:
            arguments.append(f"{argument.name}={value!r}")
    call = f"nn.{type(layer).__name__}({', '.join(arguments)})"
    try:
        again = eval(call, {"nn": nn})  # a constructor of torch's, of numbers and texts
    except Exception as error:  # whatever it raises
        raise ModelError(
            f"the layer {name} ({type(layer).__name__}) cannot be written as a call ({brief(error)}); {INSTEAD}"
        ) from error
    shapes = [{key: tensor.shape for key, tensor in one.state_dict().items()} for one in (layer, again)]
    if shapes[0] != shapes[1]:
        raise ModelError(f"the layer {name} is not what {call} makes; {INSTEAD}")
    return call


def _loose_tensors(graph: fx.GraphModule, layers: list[str]) -> Iterator[str]:
    """Lines that make the parameters and buffers that are in no layer."""
    for name, tensor in _tensors(graph):
        holder, _, own = name.rpartition(".")
        if holder not in layers:
            empty, place = f"torch.empty({tuple(tensor.shape)})", f"self.get_submodule({holder!r})"
            if isinstance(tensor, nn.Parameter):
                yield f"{place}.register_parameter({own!r}, nn.Parameter({empty}, requires_grad=False))"
            else:
                yield f"{place}.register_buffer({own!r}, {empty})"


def _imports(found: Mapping[str, Any], name: str) -> Iterator[str]:
    """Lines that import what the forward names.

    Raises:
        ModelError: it is neither torch's nor Python's.
    """
    for word, value in sorted(found.items()):
        module = value.__name__ if inspect.ismodule(value) else str(getattr(value, "__module__", ""))
        if word in ("torch", "inf", "nan") or module == "builtins":
            if isinstance(value, float):
                yield f"from math import {word}"
            continue
        if module.partition(".")[0] not in OWN_MODULES:
            raise ModelError(
                f"{name} cannot be written as a file of its own: its forward calls {word} of {module or 'its own'}; "
                f"{INSTEAD}"
            )
        if inspect.ismodule(value):
            yield f"import {module} as {word}" if module != word else f"import {module}"
        else:
            own = getattr(value, "__name__", word)
            yield f"from {module.lstrip('_')} import {own}" + ("" if own == word else f" as {word}")


def _plain(source: str) -> str:
    """The forward without annotations, which may name what is not imported, and without what frees memory."""
    head, _, body = source.strip().partition("\n")
    names = re.findall(r"[(,]\s*(\**\w+)(?:\s*:\s*[\w.\[\], ]+?)?(\s*=\s*[^,)]+)?(?=\s*[,)])", head.partition("->")[0])
    arguments = ", ".join(f"{name}{default.strip()}" for name, default in names)
    lines = (re.sub(r";  [\w =]+ = None$", "", line) for line in body.splitlines())
    return "\n".join([f"def forward({arguments}):", *lines])


def _made_again(code: str, state: Mapping[str, Tensor]) -> nn.Module:
    """The network as the file makes it."""
    names: dict[str, Any] = {"__name__": "model", "__file__": CODE_FILE}
    exec(compile(code, CODE_FILE, "exec"), names)
    model: nn.Module = names["filled"](dict(state))
    return model
