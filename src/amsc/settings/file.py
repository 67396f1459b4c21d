"""A whole run as it is typed, and the file that holds it.

The file `settings.toml` has the tables `[run]` (model, weights, data, target) and `[settings]` (the choices), and
`[python]` (what objects there were) for a run that was started from Python.
"""

import dataclasses
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from amsc.errors import SettingsError, UnknownSettingError
from amsc.settings.allowed import check_type
from amsc.settings.choices import Settings, plain_settings
from amsc.storage import read_text, write_atomically
from amsc.words.arguments import answers_typos
from amsc.words.nearest import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

__all__ = ["RunSettings", "read_settings", "read_toml", "write_settings"]

FROM_COMMAND = "# Everything needed to run this again: amsc compress --settings FILE\n"
FROM_PYTHON = """\
# Written for a run that was started from Python, with the objects in [python].
# What [run] does not name has to be given again: amsc resume RUN --model MODEL --data DATA
"""
PYTHON = {"name", "model", "data", "task"}


@answers_typos(UnknownSettingError)
@dataclasses.dataclass(frozen=True)
class RunSettings:
    """A whole run as it is typed: what to compress, on which data, to which target, with which choices.

    `target` is text such as "macs=50%", `task` a name or function that `amsc.tasks.open_task` takes. `num_classes` and
    `in_channels` are what the model was built with, so that it can be built again without the data. None means "not
    said". A run that was started from Python was handed objects: `python` says of what "name" and class ("model") the
    network was, which "data", and which "task" if that is not one of amsc's.
    """

    model: str | None = None
    weights: str | None = None
    data: str | None = None
    target: str | None = None
    task: str | None = None
    num_classes: int | None = None
    in_channels: int | None = None
    python: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Settings = dataclasses.field(default_factory=Settings)

    def changed(self, changes: Mapping[str, Any], settings: Mapping[str, Any]) -> "RunSettings":
        """These settings with `changes` of the run and of its choices on top; a change to None is none.

        Raises:
            SettingsError: a changed value is impossible.
        """
        choices = {key: value for key, value in settings.items() if value is not None}
        said = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, **choices), **said)


def read_settings(path: Path) -> RunSettings:
    """The run that a settings file describes; what it does not say keeps its default.

    Raises:
        SettingsError: there is no such file, it is not TOML, or it has an unknown key or an impossible value.
    """
    tables = read_toml(path)
    try:
        return _run_from_tables(tables)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


MOST = 1 << 20
"""Bytes of a settings file or a recipe."""


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        SettingsError: there is no such file, or it is not TOML.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(read_text(path, most=MOST))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"the settings file {path} is nested too deeply") from error
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from error
    return tables


def _run_from_tables(tables: Mapping[str, Any]) -> RunSettings:
    keys = {
        "run": set(_hints(RunSettings)) - {"settings", "python"},
        "settings": set(_hints(Settings)),
        "python": PYTHON,
    }
    for name, table in tables.items():
        if name not in keys or not isinstance(table, dict):
            raise SettingsError(_unknown_at_top(name, keys))
        for key in table:
            if key not in keys[name]:
                raise SettingsError(_unknown_key(key, name, keys))
    choices = {key: _from_toml(_hints(Settings)[key], value) for key, value in tables.get("settings", {}).items()}
    for key, value in tables.get("run", {}).items():
        check_type(key, value, _hints(RunSettings)[key])
    for key, value in tables.get("python", {}).items():
        check_type(key, value, str)
    return RunSettings(settings=Settings(**choices), python=tables.get("python", {}), **tables.get("run", {}))


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _from_toml(kind: Any, value: Any) -> Any:
    """TOML tells 8 from 8.0, and a setting that may be a fraction takes both."""
    return float(value) if kind is float and type(value) is int else value


def _unknown_at_top(name: str, keys: Mapping[str, set[str]]) -> str:
    for table, known in keys.items():
        if name in known:
            return f"key {name!r} stands outside a table; it belongs in [{table}]"
    return f"unknown table [{name}]; expected [run] and [settings]{nearest(name, keys)}"


def _unknown_key(key: str, table: str, keys: Mapping[str, set[str]]) -> str:
    for other, known in keys.items():
        if key in known:
            return f"key {key!r} in [{table}] belongs in [{other}]"
    hint = nearest(key, sorted(keys[table]))
    return f"unknown key {key!r} in [{table}]{hint or '; known are ' + ', '.join(sorted(keys[table]))}"


def write_settings(path: Path, run: RunSettings) -> None:
    """Write `run` so that `read_settings` gives it back; what is None is left out.

    Raises:
        RunFolderError: the file cannot be written.
    """
    values = dataclasses.asdict(run)
    del values["settings"], values["python"]
    choices = {key: value for key, value in plain_settings(run.settings).items() if value is not None}
    said = {key: value for key, value in values.items() if value is not None}
    tables = {"run": said, "settings": choices, **({"python": dict(run.python)} if run.python else {})}
    text = (FROM_PYTHON if run.python else FROM_COMMAND) + tomli_w.dumps(tables)
    write_atomically(path, text.encode())
