"""The templates of the page and of the record."""

from pathlib import Path

import jinja2

FOLDER = Path(__file__).with_name("templates")


def fill(template: str, **names) -> str:
    """A template of this package with names filled in, escaped in HTML; one that is not given is an error."""
    loader = jinja2.FileSystemLoader(FOLDER)
    escape = jinja2.select_autoescape(["html"])
    environment = jinja2.Environment(
        loader=loader, autoescape=escape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**names)
