"""Tables and the report page, from a record alone."""

from amsc.report.html import render
from amsc.report.scan_page import render_scan
from amsc.report.scan_table import SCAN_COLUMNS, scan_columns, scan_lines, scan_remarks, scan_rows
from amsc.report.tables import GroupRow, Row, before_after, group_rows, score_format

__all__ = [
    "SCAN_COLUMNS",
    "GroupRow",
    "Row",
    "before_after",
    "group_rows",
    "render",
    "render_scan",
    "scan_columns",
    "scan_lines",
    "scan_remarks",
    "scan_rows",
    "score_format",
]
