"""The page of a report: the tables, what they mean, and the pictures, in one file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape

from restore.evaluate.gallery import Sheet
from restore.evaluate.report import COLUMNS, Part, Report

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
ul { padding-left: 1.2rem; }
.sheets { display: flex; flex-wrap: wrap; gap: 1.2rem; }
figure { margin: 0; }
figure div { display: flex; gap: 3px; }
figure span { text-align: center; font-size: 12px; color: #666; }
figure img { display: block; width: 192px; height: 192px; }
figcaption { font-size: 13px; }
dt { font-weight: 600; float: left; clear: left; width: 8rem; }
dd { margin-left: 8rem; }
"""


def page(report: Report) -> str:
    """Return a report as HTML, pictures included."""
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>restore evaluate</title>',
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Colours, judged</h1>",
        *(line for part in report.parts for line in _part(part)),
        "<h2>What the numbers mean</h2><dl>",
        *(f"<dt>{escape(column.title)}</dt><dd>{escape(column.meaning)}</dd>" for column in COLUMNS),
        "</dl><p>Pictures and frames are judged at 256 × 256, aspect ignored, with the L* of the true picture, as ",
        "8-bit sRGB.</p><h2>Made with</h2><ul>",
        *(f"<li>{escape(name)}: {escape(value)}</li>" for name, value in report.about.items()),
        "</ul></body></html>",
    ]
    return "\n".join(lines) + "\n"


def _part(part: Part) -> Iterator[str]:
    titles, *rows = part.table()
    yield f"<h2>{escape(part.source)}</h2><table><tr>"
    yield from (f"<th>{escape(title)}</th>" for title in titles)
    yield "</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
    yield "</table><ul>"
    yield from (f"<li>{escape(line)}</li>" for line in (*part.verdicts(), *part.notes))
    yield '</ul><div class="sheets">'
    for sheet in part.sheets:
        yield from _figure(sheet)
    yield "</div>"


def _figure(sheet: Sheet) -> Iterator[str]:
    yield "<figure><div>"
    for method, jpeg in sheet.panels:
        data = base64.b64encode(jpeg).decode()
        alt = escape(f"{sheet.name}, {method}", quote=True)
        yield f'<span><img alt="{alt}" src="data:image/jpeg;base64,{data}">{escape(method)}</span>'
    yield f"</div><figcaption>{escape(sheet.name)}: {escape(sheet.caption)}</figcaption></figure>"
