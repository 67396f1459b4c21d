"""The parts of a page that are the same in every report: styles, scripts, and the libraries that draw the charts."""

import base64
import functools
import hashlib
import json
import math
from collections.abc import Iterable
from importlib import resources
from typing import Any

__all__ = ["LIBRARIES", "data_text", "part", "policy"]

LIBRARIES = ("d3.min.js", "plot.umd.min.js")
"""Observable Plot and what it is made of: a tenth of Plotly's size, and its SVG takes its colours from the page."""


@functools.cache
def part(name: str) -> str:
    """A file of the folder `page`."""
    return resources.files("amsc.report").joinpath(f"page/{name}").read_text(encoding="utf-8")


def policy(scripts: Iterable[str]) -> str:
    """The content security policy of a page: these scripts run and no others, and nothing is asked for anywhere."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def data_text(data: Any) -> str:
    """`data` as JSON that cannot end the script element that it stands in; numbers that are not finite are null."""
    text = json.dumps(_finite(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
