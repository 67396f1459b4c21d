"""What is running: the operator, the module around it, and the line of the user's code that called it."""

import linecache
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from amsc.borrowing import calling

__all__ = ["Running", "failing_line", "running_line"]

_TORCH = os.path.dirname(torch.__file__)
_AMSC = str(Path(__file__).parents[2])
_CALLER = calling.__file__


class Running:
    """The operator that is running, and the modules it runs in.

    Args:
        names: name of every module of the network, by `id`.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._stack: list[str] = []
        self.operator = ""

    def enter(self, module: nn.Module) -> None:
        """The module starts to run."""
        self._stack.append(self._names.get(id(module), self.module))

    def leave(self) -> None:
        """The innermost module has run."""
        self._stack.pop()

    @property
    def module(self) -> str:
        """Name of the module that is running ("" for the network itself)."""
        return self._stack[-1] if self._stack else ""

    @property
    def reason(self) -> str:
        """The operator that is running, and where: what to name when it pins something."""
        return f"{self.operator} in {self.module}" if self.module else self.operator


def running_line() -> str:
    """The line of the user's code that called the running operator, as "file.py:12: code"; "" if torch's own did."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_TORCH, _AMSC)):
        if frame.f_code.co_filename == _CALLER:
            return ""
        frame = frame.f_back
    return "" if frame is None else _line(frame.f_code.co_filename, frame.f_lineno)


def failing_line(error: BaseException) -> str:
    """The line of the user's code in which a forward failed, as `running_line` gives it; "" if torch alone ran."""
    line, place = "", error.__traceback__
    while place is not None:
        path = place.tb_frame.f_code.co_filename
        if not path.startswith((_TORCH, _AMSC)):
            line = _line(path, place.tb_lineno)
        place = place.tb_next
    return line


def _line(path: str, number: int) -> str:
    code = linecache.getline(path, number).strip()
    return f"{os.path.basename(path)}:{number}{f': {code}' if code else ''}"
