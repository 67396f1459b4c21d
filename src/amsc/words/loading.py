"""How to load the network of a run, as code to copy; and what a run was about, in words."""

from amsc.records import Record
from amsc.words.amounts import TIMES, format_count

__all__ = ["data_words", "loading_code", "network_words", "shape_words"]

TEMPLATE = """\
import amsc
{imports}
{place}, {build})
"""
BUILT_BY_HAND = '''\
{imports}

def dense():
    """The {network} that the run began with; its weights do not matter."""
    {built}

'''
BESIDE = '# "model" lies beside this page, in the folder of the run.\nsmall = amsc.load("model"'


def loading_code(record: Record, place: str = BESIDE) -> str:
    """Python that loads the small network from a `place`, by default the one beside a report; where it is not known how
    the dense one was built, with a function to fill in, which says so when it is run as it is."""
    built = dict(record.about.built_from) if record.about else {}
    model = str(built.pop("model", "") or "")
    if not model:
        return TEMPLATE.format(place=place, imports=_built_by_hand(record), build="dense")
    options = "".join(f", {name}={value!r}" for name, value in built.items())
    build = f"lambda: open_model({model!r}{options})"
    return TEMPLATE.format(place=place, imports="from amsc.models import open_model\n", build=build)


def _built_by_hand(record: Record) -> str:
    """A function that builds the dense network, as far as its class says how; the rest is for the reader to write."""
    network, module = (record.about.network, record.about.defined_in) if record.about else ("YourNetwork", "")
    if not module or module == "__main__" or module.split(".")[0] == "torch":
        missing = f"return here the {network}, built as in the code that started the run"
        return BUILT_BY_HAND.format(imports="", network=network, built=f'raise NotImplementedError("{missing}")')
    imports = f"from {module} import {network}\n"
    built = f"return {network}()  # with the arguments, if any, that it was built with when the run was started"
    return BUILT_BY_HAND.format(imports=imports, network=network, built=built)


def network_words(record: Record) -> str:
    """The network: its name, its class, how large it was and what of it could go."""
    name, parts = record.model, []
    if record.about and record.about.network != record.model:
        name += f" (a {record.about.network})"
    if record.layers:
        parts.append(f"{len(record.layers)} layers with weights")
    parts.append(f"{format_count(record.before.parameters)} parameters")
    parts.append(f"{record.blocks_before} removable blocks and {record.channels_before} removable channels")
    return f"{name}: {', '.join(parts)}"


def data_words(record: Record) -> str:
    """The data: name, classes, and how many examples each split has."""
    if record.about is None:
        return record.data
    classes = f"{record.about.classes} classes" if record.about.classes else ""
    splits = ", ".join(f"{number:,} for {_USES.get(split, split)}" for split, number in record.about.examples.items())
    return f"{record.data}: {', '.join(part for part in (classes, f'examples: {splits}' if splits else '') if part)}"


_USES = {"train": "training", "validation": "validation", "test": "the test"}


def shape_words(record: Record) -> str:
    """The example inputs for which costs are counted, such as 1 x 3 x 32 x 32 (a batch of 1)."""
    inputs = record.about.inputs if record.about else ()
    shapes = " and ".join(f" {TIMES} ".join(map(str, shape)) or "a number" for shape in inputs)
    batch = f" (a batch of {inputs[0][0]})" if inputs and inputs[0] else ""
    return f"{shapes}{batch}" if shapes else "the example inputs"
