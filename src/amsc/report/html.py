"""The record as one self-contained page: no script, no font, no request to anywhere."""

from importlib import resources

from jinja2 import Environment, StrictUndefined

from amsc.records import Record
from amsc.report.chart import path_chart
from amsc.words.amounts import format_count, format_seconds, score_format
from amsc.words.free import judged_section
from amsc.words.record import before_after, group_rows, path_remarks, shown_path, unproven_words, verified_words

__all__ = ["render"]

TEMPLATE = "report.html.j2"


def render(record: Record) -> str:
    """The page for `record` as text; the same record gives the same page.

    Everything is escaped: names from a model or a path cannot become markup.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(count=format_count, seconds=format_seconds, score=score_format(record.score_name))
    source = resources.files("amsc.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
        record=record,
        rows=before_after(record),
        groups=group_rows(record),
        chart=path_chart(record),
        path=shown_path(record),
        remarks=path_remarks(record),
        verified=verified_words(record),
        unproven=unproven_words(record.unproven),
        judged=judged_section(record.judged_shares, record.score_name) if record.judged_shares else None,
    )
