"""Before and after, for people: rows of a table and a self-contained page, from the record alone."""

from amsc.report.html import render
from amsc.report.tables import Row, before_after, group_rows

__all__ = ["Row", "before_after", "group_rows", "render"]
