"""HTML of paragraphs and tables; every text given is escaped here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

# a table of so many rows stays on one printed page
_SHORT: Final = 14
_LONG_WORD: Final = 28
# a date is not broken at its hyphens
_DATE: Final = re.compile(r"\b\d{4}-\d\d-\d\d\b")


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph; `kind` is its class."""
    whole_dates = _DATE.sub(r"<time>\g<0></time>", escape(text))
    return f"<p{_class(kind)}>{whole_dates}</p>"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> str:
    """A table with a caption. `numbers` are the places of columns set to the right."""
    right = ["number" if place in numbers else "" for place in range(len(columns))]
    head = "".join(f'<th scope="col"{_class(kind)}>{escape(name)}</th>' for name, kind in zip(columns, right, strict=True))
    lines = [f"<tr>{''.join(_cells(row, right))}</tr>" for row in rows]
    kind = "wide short" if len(lines) <= _SHORT else "wide"
    parts = f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="{kind}"><table>{parts}</table></div>'


def items(lines: Iterable[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _cells(row: Sequence[object], kinds: Sequence[str]) -> Iterable[str]:
    for place, (cell, kind) in enumerate(zip(row, kinds, strict=True)):
        text = str(cell)
        # only a word that no column could hold may be broken anywhere
        own = kind or ("long" if any(len(word) > _LONG_WORD for word in text.split()) else "")
        yield f'<th scope="row"{_class(own)}>{escape(text)}</th>' if place == 0 else f"<td{_class(own)}>{escape(text)}</td>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
