"""amsc makes trained PyTorch networks smaller in depth and in width at once, and proves it.

structure = amsc.trace(model, example_inputs)      # what can go, what cannot, and why
structure = amsc.cuttable(model, structure, example_inputs)   # less what a trial shows cannot go
plan = amsc.plan_cut(structure, channels={...}, blocks=[...])
small = amsc.cut(model, plan)                      # a new, smaller model, verified
small = amsc.reconstruct(small, model, batches).model   # most of what the cut cost is back, without training
result = amsc.compress(model, example_inputs, data, target=amsc.Target(macs=0.5), out="runs/half")
found = amsc.scan(model, example_inputs, data)     # the frontier in a minute, without training
result = amsc.pick("runs/half", model, example_inputs, data, target=amsc.Target(macs=0.7))
"""

TYPE_CHECKING = False  # importing typing takes time; type checkers know the name
if TYPE_CHECKING:
    from amsc.public import *

__all__ = [
    "AmscError",
    "Calls",
    "Penalty",
    "ProximalStep",
    "Result",
    "Scan",
    "Settings",
    "Structure",
    "Target",
    "compress",
    "cut",
    "cuttable",
    "export_onnx",
    "export_pt2",
    "load",
    "measure",
    "pick",
    "plan_cut",
    "reconstruct",
    "round_channels",
    "save",
    "scan",
    "select",
    "trace",
    "walk",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A public name or a package of amsc, imported when it is first asked for: that takes torch and seconds."""
        import importlib

        if name == "__version__":
            from importlib.metadata import version

            found: object = version("amsc")
        elif name in __all__:
            found = getattr(importlib.import_module("amsc.public"), name)
        else:
            try:
                found = importlib.import_module(f"amsc.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"amsc.{name}":
                    raise
                raise AttributeError(f"module 'amsc' has no attribute {name!r}") from None
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
