"""Values that print well: a line for `repr`, ten to thirty for `print`, a table in a notebook, all of it as JSON."""

from abc import ABC, abstractmethod

from amsc.errors import AmscError
from amsc.words.json_text import to_json
from amsc.words.page import Page, as_html, as_text

__all__ = ["Shown"]


class Shown(ABC):
    """A frozen dataclass (made with repr=False) that says what is in it, and not all of it."""

    @abstractmethod
    def page(self) -> Page:
        """What a person wants to know of it."""

    @abstractmethod
    def in_a_line(self) -> str:
        """What it is and how large, in a few words; its `repr` has them in brackets."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_a_line()})"

    def __str__(self) -> str:
        return as_text(self.page())

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return as_html(self.page())

    def to_json(self, *, indent: int | None = None) -> str:
        """Everything that is in it, as JSON text.

        Raises:
            AmscError: it holds something that JSON does not have, such as an example input that is an object.
        """
        try:
            return to_json(self, indent=indent)
        except TypeError as error:
            raise AmscError(f"{type(self).__name__} cannot be written as JSON: {error}") from error
