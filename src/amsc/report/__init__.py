"""Tables and the report page, from a record alone."""

from amsc.report.comparison import render_comparison
from amsc.report.html import render
from amsc.report.scan_page import render_scan
from amsc.report.scan_table import SCAN_COLUMNS, frontier_page, scan_columns, scan_remarks, scan_rows
from amsc.words.amounts import score_format
from amsc.words.record import GroupRow, Row, before_after, group_rows

__all__ = [
    "SCAN_COLUMNS",
    "GroupRow",
    "Row",
    "before_after",
    "frontier_page",
    "group_rows",
    "render",
    "render_comparison",
    "render_scan",
    "scan_columns",
    "scan_remarks",
    "scan_rows",
    "score_format",
]
