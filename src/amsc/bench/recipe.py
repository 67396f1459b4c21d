"""What a bench compares, as it is typed: networks, methods, budgets, seeds, epochs; and the cells that this makes."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from amsc.errors import SettingsError, TargetError
from amsc.limits.target import parse_target
from amsc.settings import Settings, read_toml
from amsc.words.nearest import nearest

__all__ = ["CONTROLS", "OUTSIDERS", "TUNING", "Cell", "Method", "Network", "Recipe", "read_recipe"]

CONTROLS = ("dense", "scratch")
"""Methods that remove nothing: the dense network trained as long, and another method's small network trained as long
from random weights."""
OUTSIDERS = ("torch-pruning:magnitude", "torch-pruning:taylor")
"""Other people's libraries, and what they rank channels by; `amsc.bench.outsiders` calls them."""
TUNING = ("distillation", "temperature", "ema", "finetune_learning_rate")
"""What a method may say of its own fine-tuning; all else is common."""


@dataclass(frozen=True)
class Network:
    """A network by the name that `amsc.models.open_model` takes, with a file of trained `weights` if there is one."""

    model: str
    weights: str | None = None


@dataclass(frozen=True)
class Method:
    """How a network is made smaller: by `compress` with these `changes` of the common settings, of whose epochs it
    trains for the share `walked` on its path; or a `control` (see `CONTROLS`), for which "scratch" takes the small
    networks of the method `like`; or an `outsider` cuts (see `OUTSIDERS`)."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    walked: float = 0.0
    control: str = ""
    like: str = ""
    outsider: str = ""


@dataclass(frozen=True)
class Cell:
    """One network to make and judge: a method, a budget ("" for the dense control), a seed, and all epochs of training
    after the dense ones."""

    network: str
    method: str
    budget: str
    seed: int
    epochs: float

    @property
    def name(self) -> str:
        """The cell in words."""
        budget = f", {self.budget}" if self.budget else ""
        return f"{self.network}, {self.method}{budget}, seed {self.seed}, {self.epochs:g} epochs"


@dataclass(frozen=True)
class Recipe:
    """A bench: every method on every network, for every budget, seed and number of epochs.

    The dense network of each name is trained for `dense_epochs` first, once for all. `epochs` is all training that
    follows, whatever it is spent on. `settings` are common to all methods; `seed` and the epochs in them are those of
    the cell, and where they leave the precision open it is float32, so that all compute alike. The first method is the
    one that the others are compared with.

    Raises:
        SettingsError: something is missing, unknown or impossible.
        TargetError: a budget is.
    """

    data: str
    networks: Mapping[str, Network]
    methods: Mapping[str, Method]
    budgets: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    epochs: tuple[float, ...] = (0.0,)
    dense_epochs: float = 0.0
    task: str = "classification"
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.settings.precision == "auto":
            object.__setattr__(self, "settings", replace(self.settings, precision="float32"))
        for name in ("networks", "methods", "budgets", "seeds", "epochs"):
            if not getattr(self, name):
                raise SettingsError(f"a bench needs at least one of: {name}")
        for budget in self.budgets:
            target = parse_target(budget)
            if target.is_free or target.drop is not None:
                raise SettingsError(f"budgets: {budget!r} is no cost; a bench compares networks of equal cost")
        _check_number("dense_epochs", self.dense_epochs)
        if min(self.epochs) < 0 or min(self.seeds) < 0 or self.dense_epochs < 0:
            raise SettingsError("epochs, seeds and dense_epochs cannot be negative")
        for name, method in self.methods.items():
            self._check(name, method)

    def _check(self, name: str, method: Method) -> None:
        if method.control and method.control not in CONTROLS:
            known = nearest(method.control, CONTROLS)
            raise SettingsError(
                f"methods.{name}: control is one of {', '.join(CONTROLS)}, not {method.control!r}{known}"
            )
        if (method.control == "scratch") != bool(method.like):
            raise SettingsError(
                f"methods.{name}: the control scratch, and it alone, says whose networks: like = METHOD"
            )
        like = self.methods.get(method.like, Method(control="none"))
        if method.like and (like.control or like.outsider):
            known = nearest(method.like, self.methods)
            raise SettingsError(
                f"methods.{name}: like names {method.like!r}, which is no method by which amsc cuts{known}"
            )
        if method.outsider:
            self._check_outsider(name, method)
        _check_number(f"methods.{name}: walked", method.walked)
        if not 0 <= method.walked < 1:
            raise SettingsError(f"methods.{name}: walked is a share of the epochs, from 0 to below 1: {method.walked}")
        try:
            self.settings_of(Cell("", name, "", 0, 1.0))
        except SettingsError as error:
            raise SettingsError(f"methods.{name}: {error}") from error

    def _check_outsider(self, name: str, method: Method) -> None:
        if method.outsider not in OUTSIDERS:
            known = nearest(method.outsider, OUTSIDERS)
            raise SettingsError(
                f"methods.{name}: outsider is one of {', '.join(OUTSIDERS)}, not {method.outsider!r}{known}"
            )
        others = [*(key for key in method.changes if key not in TUNING)]
        others += [key for key in ("control", "walked") if getattr(method, key)]
        if others:
            raise SettingsError(
                f"methods.{name}: an outsider cuts by itself, and {others[0]} has no part in that; leave it out (of "
                f"its fine-tuning may be said: {', '.join(TUNING)})"
            )
        if costs := [budget for budget in self.budgets if list(parse_target(budget).limits) != ["macs"]]:
            raise SettingsError(f"methods.{name}: an outsider cuts to multiply-adds alone, not to {costs[0]!r}")

    def settings_of(self, cell: Cell) -> Settings:
        """The settings with which a cell's network is cut; fine-tuning is no part of that."""
        method = self.methods[cell.method]
        epochs = {"dense_epochs": 0.0, "path_epochs": method.walked * cell.epochs, "finetune_epochs": 0.0}
        return replace(self.settings, **{**method.changes, "seed": cell.seed, **epochs})

    def tuning_epochs(self, cell: Cell) -> float:
        """For how many epochs a cell's network is fine-tuned."""
        return (1 - self.methods[cell.method].walked) * cell.epochs

    def cells(self) -> Iterator[Cell]:
        """All cells, those first that are compared with each other."""
        for network, seed, budget in itertools.product(self.networks, self.seeds, self.budgets):
            for name, method in self.methods.items():
                if method.control != "dense":
                    yield from (Cell(network, name, budget, seed, epochs) for epochs in self._epochs(method))
                elif budget == self.budgets[0]:
                    yield from (Cell(network, name, "", seed, epochs) for epochs in self.epochs)

    def _epochs(self, method: Method) -> tuple[float, ...]:
        """A path cannot be walked in no time."""
        return tuple(epochs for epochs in self.epochs if epochs or not method.walked)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file: `[bench]` with data, networks (names, or tables of model and weights), budgets, seeds,
    epochs, dense_epochs and task; `[settings]`, common to all; and a table for each of `[methods]`.

    Paths are taken from the folder of the file.

    Raises:
        SettingsError, TargetError: it cannot be read, or see `Recipe`; the message begins with the file.
    """
    tables = read_toml(path)
    try:
        return _recipe(tables, path.resolve().parent)
    except (SettingsError, TargetError) as error:
        raise type(error)(f"{path}: {error}") from error


def _recipe(tables: Mapping[str, Any], folder: Path) -> Recipe:
    _check_keys("", tables, ("bench", "settings", "methods"))
    bench = tables.get("bench", {})
    known = ("data", "networks", "budgets", "seeds", "epochs", "dense_epochs", "task")
    _check_keys("bench", bench, known)
    if missing := [name for name in ("data", "networks", "budgets") if name not in bench]:
        raise SettingsError(f"[bench] does not say {', '.join(missing)}")
    kind, colon, rest = str(bench["data"]).partition(":")
    data = f"{kind}:{folder / rest}" if colon and kind in ("parquet", "folder") else str(bench["data"])
    more: dict[str, Any] = {name: _list(name, bench[name]) for name in LISTS if name in bench}
    more |= {name: bench[name] for name in ("dense_epochs", "task") if name in bench}
    try:
        settings = Settings(**tables.get("settings", {}))
    except SettingsError as error:
        raise SettingsError(f"[settings]: {error}") from error
    methods = {name: _method(name, table) for name, table in tables.get("methods", {}).items()}
    return Recipe(data, _networks(bench["networks"], folder), methods, **more, settings=settings)


def _networks(given: Any, folder: Path) -> dict[str, Network]:
    if isinstance(given, list):
        return {str(name): Network(str(name)) for name in given}
    if not isinstance(given, dict) or not all(isinstance(table, dict) for table in given.values()):
        raise SettingsError("networks is a list of names, or a table for each with model and perhaps weights")
    found = {}
    for name, table in given.items():
        _check_keys(f"bench.networks.{name}", table, ("model", "weights"))
        weights = table.get("weights")
        found[name] = Network(str(table.get("model", name)), None if weights is None else str(folder / weights))
    return found


def _method(name: str, table: Any) -> Method:
    if not isinstance(table, dict):
        raise SettingsError(f"methods.{name} is a table, as in [methods.{name}]")
    own = {key: table[key] for key in ("walked", "control", "like", "outsider") if key in table}
    return Method({key: value for key, value in table.items() if key not in own}, **own)


LISTS: Mapping[str, tuple[type, ...]] = {"budgets": (str,), "seeds": (int,), "epochs": (int, float)}


def _list(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise SettingsError(f"[bench] {name} is a list, as in {name} = [{value!r}]")
    if wrong := [each for each in value if not isinstance(each, LISTS[name]) or isinstance(each, bool)]:
        raise SettingsError(f"[bench] {name}: {wrong[0]!r} is of the wrong type")
    return tuple(value)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{name}: expected a number, got {value!r}")


def _check_keys(where: str, table: Any, known: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise SettingsError(f"{where} is a table, as in [{where}]")
    for key in table:
        if key not in known:
            place = f"[{where}]" if where else "a recipe"
            raise SettingsError(f"{place} has no {key!r}{nearest(key, known)}; there are {', '.join(known)}")
