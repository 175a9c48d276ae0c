"""The report: OUT/report.html, one page for a person, made from the files of a run directory without Spark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipelines.report import charts, duplicates, tokenizer
from pipelines.report.facts import Facts, gather
from pipelines.report.quality import warn
from pipelines.report.svg import short
from pipelines.rundir import RunDir
from pipelines.shards import write_atomic

WIDE, PHONE = 820, 340  # widths in which the pictures are drawn; the page shows the one that fits

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def write(rundir: RunDir) -> None:
    """Write OUT/report.html, whole or not at all; alarms are logged. Raises UserError where a file of the run is damaged."""
    facts = gather(rundir)
    write_atomic(rundir.report, render(facts))
    warn(facts["quality"])


def render(facts: Facts) -> str:
    """The page as text. Whatever comes from documents is escaped and stripped of control characters on its way in."""
    return page("page.html", facts)


def page(template: str, facts: Facts) -> str:
    """A template of this folder as text."""
    return _environment().get_template(template).render(**facts)


def printable(value: Any) -> Any:
    """Text without what HTML forbids: a control character becomes its picture (U+2400 ...), the others U+FFFD."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _CONTROL.sub(lambda m: chr(0x2400 + ord(m[0])) if ord(m[0]) < 0x20 else "\ufffd", value)


def both(draw: str, *arguments: Any, **named: Any) -> Markup:
    """A picture of `charts`, `duplicates` or `tokenizer` in both widths."""
    function = next(getattr(module, draw) for module in (charts, duplicates, tokenizer) if hasattr(module, draw))
    return Markup('<div class="wide">{}</div><div class="phone">{}</div>').format(
        function(*arguments, width=WIDE, **named), function(*arguments, width=PHONE, **named)
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipelines", "report"),
        autoescape=True,
        finalize=printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "n": lambda value: f"{value:,}",
        "percent": lambda share: "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}",
        "short": short,
        "seconds": _seconds,
        "size": _size,
        "measure": _measure,
        "breaks": _breaks,
        "interval": _interval,
    }
    environment.globals |= {"both": both, "bar": charts.bar, "bullet": charts.bullet}
    return environment


def _interval(share: Mapping[str, Any]) -> str:
    return f"{share['low']:.1%} to {share['high']:.1%}"


def _breaks(name: str) -> Markup:
    """A name that may break after its dots and underscores."""
    return Markup("<wbr>").join(re.findall(r"[^._]*[._]*", printable(name)))


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s" if value >= 0.1 else f"{value * 1000:.0f} ms"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _measure(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
