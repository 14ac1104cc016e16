"""The page: what it says first, its sections, its foot, its style. English, light, and good on A4."""

from __future__ import annotations

from html import escape
from typing import Final

from engine.capacity.report.sections import sections
from engine.capacity.report.svg import FONTS
from engine.capacity.report.tables import paragraph
from engine.capacity.report.units import NEVER
from engine.capacity.report.words import headline
from engine.capacity.result import PlanResult

_FAMILY: Final = ", ".join(f'"{font}"' for font in FONTS)
_STYLE: Final = f"""
:root {{ color-scheme: light; }}
body {{ font: 16px/1.5 system-ui, {_FAMILY}, sans-serif; color: #222; background: #fff;
  margin: 0 auto; padding: 2rem 1.5rem; max-width: 62rem; }}
h1 {{ font-size: 1.7rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1.2rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }}
p {{ margin: .4rem 0; }}
.lead {{ font-size: 1.12rem; }}
.dates {{ display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; padding: 0; list-style: none; }}
.dates li {{ flex: 1 1 10rem; border: 1px solid #bbb; border-top: 4px solid #0072B2; padding: .5rem .8rem; }}
.dates strong {{ display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }}
.caution {{ border-left: 5px solid #D55E00; background: #fdf4ee; padding: .2rem 1rem .6rem; margin: 1.5rem 0; }}
.caution h2 {{ font-size: 1rem; border: 0; margin: .6rem 0 0; }}
.caution ul {{ margin: .2rem 0; padding-left: 1.2rem; }}
figure {{ margin: 1rem 0; }}
figure svg {{ width: 100%; height: auto; display: block; }}
figcaption {{ font-size: .9rem; color: #444; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .86rem; margin: 1rem 0; width: 100%; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-weight: 600; padding: .3rem 0; }}
th, td {{ text-align: left; vertical-align: top;
  padding: .22rem .6rem; border-bottom: 1px solid #ddd; font-weight: 400; }}
.long {{ overflow-wrap: anywhere; }}
thead th {{ font-weight: 600; border-bottom: 2px solid #999; }}
.number {{ text-align: right; }}
td.number, time {{ white-space: nowrap; }}
footer {{ margin-top: 3rem; border-top: 1px solid #ccc; padding-top: .6rem; font-size: .85rem; color: #444; overflow-wrap: anywhere; }}
@page {{ size: A4; margin: 16mm 14mm; }}
@media print {{
  body {{ padding: 0; font-size: 10pt; line-height: 1.4; max-width: none; }}
  h2 {{ break-after: avoid; margin-top: 1.4rem; }}
  .lead {{ font-size: 1.05rem; }}
  .wide {{ overflow: visible; }}
  table {{ font-size: .84rem; margin: .6rem 0; }}
  figure {{ margin: .5rem 0; }}
  caption {{ break-after: avoid; }}
  figure, tr, .dates, .caution li, .short, footer {{ break-inside: avoid; }}
  thead {{ display: table-header-group; }}
  .caution, .dates li {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""


def page(result: PlanResult) -> str:
    """The whole HTML document."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(result.name)}</title>'
    said = "".join(paragraph(sentence, "lead") for sentence in headline(result))
    body = f"<h1>{escape(result.name)}</h1>{_dates(result)}{said}{''.join(sections(result))}{_foot(result)}"
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{body}</body></html>\n'


def _dates(result: PlanResult) -> str:
    if not result.total:
        return ""
    boxes = (("half of all replications", "P50", result.p50), ("8 of 10", "P80", result.p80), ("19 of 20", "P95", result.p95))
    shown = (f"<li>{name}<strong>{day or NEVER}</strong>{words} are done</li>" for words, name, day in boxes)
    return f'<ul class="dates">{"".join(shown)}</ul>'


def _foot(result: PlanResult) -> str:
    lines = [
        f"Scenario {result.scenario_file}; capacity profile {result.profile_file or 'none'}.",
        f"{result.replications} replications, seed {result.seed}, horizon {result.horizon_days} days; {result.seconds:.1f} s to simulate.",
        f"{result.machine}; citycard commit {result.commit or 'unknown'}.",
    ]
    return f"<footer>{''.join(paragraph(line) for line in lines)}</footer>"
