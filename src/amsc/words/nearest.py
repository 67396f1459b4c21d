"""What somebody may have meant who typed something unknown."""

import difflib
from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(word: str, known: Iterable[str]) -> str:
    """The words "; did you mean ...?" for the known word nearest to `word`, or nothing if none is near.

    Capital letters do not count: ResNet20 is near resnet20.
    """
    words = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(word).lower(), words, n=1, cutoff=0.5)
    return f"; did you mean {words[close[0]]}?" if close else ""
