"""The record of a run as one self-contained page: what it draws with is in it, and it asks nobody for anything."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from amsc.records import Record
from amsc.report.figures import figures
from amsc.report.library import LIBRARIES, data_text, part, policy
from amsc.report.sections import run_sections

__all__ = ["page", "render"]

RUN_SCRIPTS = ("base.js", "choosing.js", "frontier.js", "charts.js", "controls.js", "run.js")


def render(record: Record) -> str:
    """The page for `record` as text; the same record gives the same page.

    Everything is escaped: names from a model or a path cannot become markup, nor end the script that holds the data.
    """
    drawn = figures(record)
    title = f"amsc: {record.model}, {record.target}"
    return page("report.html.j2", title, drawn, RUN_SCRIPTS, drawn=drawn, **run_sections(record, drawn))


def page(template: str, title: str, data: Any, scripts: tuple[str, ...], **values: Any) -> str:
    """A page from a template, with styles, libraries, `scripts` (files of the folder `page`) and the `data` of its
    charts inside."""
    environment = Environment(
        loader=PackageLoader("amsc.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    code = [part(name) for name in (*LIBRARIES, *scripts)]
    return environment.get_template(template).render(
        title=title,
        policy=policy(code),
        styles=Markup(part("report.css")),
        scripts=[Markup(script) for script in code],
        data=Markup(data_text(data)),
        **values,
    )
