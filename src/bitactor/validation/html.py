"""A report as one HTML page that needs nothing beside it: style inside, plots as SVG, light and dark. Pure."""

from html import escape
from typing import Final

from bitactor.validation import svg
from bitactor.validation.criteria import Outcome
from bitactor.validation.report import Report, figure_text

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --line: #d7dce1; --paper: #fff; --panel: #f5f7f9;
  --pass: #12703f; --fail: #b3201d; --warn: #8a5a00; --not-run: #5b6570;
  --c0: #2563a8; --c1: #b8551b; --c2: #2f7d4f; --c3: #8a3fa0; --c4: #a0892a; --c5: #4b5f75; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa5b1; --line: #39424c; --paper: #14181c;
  --panel: #1c2228; --pass: #57c98a; --fail: #ff7b72; --warn: #e0b050; --not-run: #9aa5b1;
  --c0: #6ea8e6; --c1: #e8935c; --c2: #6cc592; --c3: #c791d9; --c4: #d6c15e; --c5: #9fb2c6; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: 1rem; font-weight: 600 }
table { border-collapse: collapse; width: 100%; font-size: .88rem } .scroll { overflow-x: auto }
th, td { text-align: left; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
code { font-size: .85em; overflow-wrap: anywhere } .soft { color: var(--soft) }
.v { font-weight: 600; white-space: nowrap } .pass { color: var(--pass) } .fail { color: var(--fail) }
.warn { color: var(--warn) } .not-run { color: var(--not-run) }
.verdict { padding: .7rem 1rem; background: var(--panel); border-left: 4px solid currentColor; border-radius: 2px }
figure { margin: 1rem 0; background: var(--panel); padding: .6rem .8rem; border-radius: 4px }
figcaption { font-size: .88rem; color: var(--soft) } svg { width: 100%; height: auto }
.grid { stroke: var(--line) } .axis { stroke: var(--soft) } .tick { fill: var(--soft); font-size: 11px }
.legend span { margin-right: 1rem; font-size: .85rem } .legend { margin: 0 }
"""
_SERIES: Final = "".join(
    f"polyline.s{i} {{ stroke: var(--c{i}) }} rect.s{i}, circle.s{i} {{ fill: var(--c{i}) }} "
    f".legend .s{i} {{ color: var(--c{i}) }}\n"
    for i in range(svg.COLOURS)
)


def render(report: Report) -> str:
    """The page."""
    title = f"BitActor {report.kind}: {'passed' if report.good else 'FAILED'}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _verdict(report),
        _facts(report),
        _risks(report),
        *(_section(report, section.name) for section in report.sections),
        _counts(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{_SERIES}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _verdict(report: Report) -> str:
    total = report.totals
    said = ", ".join(f"{n} {verdict.replace('-', ' ')}" for verdict, n in total.items())
    wrong = len(report.disagreements)
    more = f"; {wrong} counts do not add up" if wrong else f"; all {len(report.counts)} counts add up"
    kind = "pass" if report.good else "fail"
    return f'<p class="verdict {kind}"><strong>{len(report.outcomes)} criteria: {said}{more}.</strong></p>'


def _facts(report: Report) -> str:
    rows = {
        "command": f"<code>{escape(report.command)}</code>",
        "profile": escape(report.profile),
        "commit": f"<code>{escape(report.commit)}</code>",
        "seed": str(report.seed),
        "started": escape(report.started),
        "took": f"{report.seconds:,.0f} s",
        **{f"machine: {name}": escape(str(value)) for name, value in report.machine.items()},
    }
    return _table([], [[escape(name), value] for name, value in rows.items()])


def _risks(report: Report) -> str:
    if not report.risks:
        return "<h2>Risks</h2><p>Nothing failed, warned or was left out.</p>"
    rows = [[f'<span class="v">{severity}</span>', escape(sentence)] for severity, sentence in report.risks]
    return "<h2>Risks</h2>" + _table(["severity", "why"], rows)


def _section(report: Report, name: str) -> str:
    section = next(each for each in report.sections if each.name == name)
    outcomes = [each for each in report.outcomes if each.criterion.section == name]
    plots = [plot for plot in report.plots if plot.section == name]
    parts = [f'<h2 id="{escape(name)}">{escape(section.title)} <span class="soft">{section.seconds:.1f} s</span></h2>']
    if section.error:
        parts.append(f'<p class="fail">It ended early: {escape(section.error)}</p>')
    parts.append(_table(["verdict", "criterion", "figure", "threshold"], [_row(each) for each in outcomes]))
    for plot in plots:
        parts.append(f"<figure><figcaption>{escape(plot.title)}</figcaption>{svg.render(plot)}</figure>")
    return "".join(parts)


def _row(outcome: Outcome) -> list[str]:
    criterion = outcome.criterion
    notes = [f'<div class="soft">{escape(outcome.note)}</div>'] if outcome.note else []
    if criterion.command:
        notes.append(f'<div class="soft"><code>{escape(criterion.command)}</code></div>')
    return [
        f'<span class="v {outcome.verdict}">{str(outcome.verdict).replace("-", " ")}</span>',
        escape(criterion.title) + "".join(notes),
        f"<td class=n>{escape(figure_text(outcome))}</td>",
        escape(str(criterion.threshold)),
    ]


def _counts(report: Report) -> str:
    if not report.counts:
        return ""
    rows = [
        [f'<span class="v {"pass" if c.agrees else "fail"}">{"adds up" if c.agrees else "DOES NOT"}</span>',
         f"<code>{escape(c.id)}</code>", escape(str(c))]
        for c in report.counts
    ]  # fmt: skip
    return "<h2>Counts</h2>" + _table(["", "count", "terms"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>" if head else ""
    body = "".join(
        "<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>{top}{body}</table></div>'
