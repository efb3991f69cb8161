"""A report as Markdown, for pull requests and terminals: the same rows as the HTML, without its plots. Pure."""

from bitactor.validation.report import Report, figure_text


def render(report: Report) -> str:
    """The page."""
    total = ", ".join(f"{n} {verdict.replace('-', ' ')}" for verdict, n in report.totals.items())
    lines = [
        f"# BitActor {report.kind}: {'passed' if report.good else 'FAILED'}",
        "",
        (
            f"{len(report.outcomes)} criteria: {total}. {len(report.counts)} counts, "
            f"{len(report.disagreements)} of them do not add up."
        ),
        "",
        f"- command: `{report.command}` (profile {report.profile}, seed {report.seed})",
        f"- commit: `{report.commit}`",
        *(f"- {name}: {value}" for name, value in report.machine.items()),
        f"- started {report.started}, took {report.seconds:,.0f} s",
        "",
        "## Risks",
        "",
        *(
            [f"- {severity}: {_one_line(risk)}" for severity, risk in report.risks]
            or ["Nothing failed or was left out."]
        ),
        "",
    ]
    for section in report.sections:
        lines += [f"## {section.title}", "", f"{section.seconds:.1f} s", ""]
        if section.error:
            lines += [f"It ended early: {_one_line(section.error)}", ""]
        lines += ["| verdict | criterion | figure | threshold | how |", "|---|---|---|---|---|"]
        for outcome in report.outcomes:
            if outcome.criterion.section == section.name:
                title = outcome.criterion.title + (f" ({outcome.note})" if outcome.note else "")
                lines.append(
                    f"| {str(outcome.verdict).replace('-', ' ')} | {_cell(title)} | {_cell(figure_text(outcome))} | "
                    f"{_cell(str(outcome.criterion.threshold))} | `{_cell(outcome.criterion.command)}` |"
                )
        lines.append("")
    if report.counts:
        lines += ["## Counts", "", "| | count | terms |", "|---|---|---|"]
        for count in report.counts:
            lines.append(f"| {'adds up' if count.agrees else 'DOES NOT'} | `{count.id}` | {_cell(str(count))} |")
    return "\n".join(lines).rstrip() + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")
