"""Dataclasses that are typed by hand, and what they say to an argument that they do not have."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from amsc.errors import AmscError
from amsc.words.nearest import nearest

__all__ = ["answers_typos"]

Kind = TypeVar("Kind")


def answers_typos(error: type[AmscError]) -> Callable[[type[Kind]], type[Kind]]:
    """A decorator for dataclasses under which an unknown argument is an `error` that says what was meant.

    All else of the class stays as it is, its signature too.
    """

    def decorated(kind: type[Kind]) -> type[Kind]:
        init: Callable[..., None] = kind.__init__
        known = [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]

        @functools.wraps(init)
        def checked(self: Kind, *values: Any, **said: Any) -> None:
            for word in [each for each in said if each not in known]:
                raise error(f"{kind.__name__} has no {word!r}{nearest(word, known)}; there are {', '.join(known)}")
            init(self, *values, **said)

        kind.__init__ = checked  # type: ignore[assignment]
        return kind

    return decorated
