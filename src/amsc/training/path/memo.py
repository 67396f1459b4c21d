"""What a search has found out, so that one that was stopped does not ask again."""

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Memo", "NoMemo"]


class Memo(Protocol):
    """Remembers plain data (what JSON can hold) by its key, for as long as the dense network and all choices stay."""

    def get(self, key: str) -> Mapping[str, Any] | None:
        """What was kept under `key`, if anything was."""

    def keep(self, key: str, found: Mapping[str, Any]) -> None:
        """Have it remembered."""


class NoMemo:
    """Remembers nothing."""

    def get(self, key: str) -> Mapping[str, Any] | None:
        """Nothing."""
        return None

    def keep(self, key: str, found: Mapping[str, Any]) -> None:
        """Nothing happens."""
