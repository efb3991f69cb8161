"""Writes the tables of docs/configuration.md from the models of bitactor.config: `python tools/settings_page.py`."""

import types
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from bitactor.config import units
from bitactor.config.load import OTHER_VARIABLES, flag, variable
from bitactor.config.settings import Settings, is_secret, leaves

PAGE: Final = Path(__file__).parent.parent / "docs" / "configuration.md"
BEGIN: Final = "<!-- made by tools/settings_page.py -->\n"
END: Final = "<!-- end -->\n"


def table() -> str:
    """The settings by section, and the other variables, as Markdown."""
    lines: list[str] = []
    section = None
    for name, field, about in leaves():
        here, _, key = name.rpartition(".")
        if here != section:
            section = here
            model = Settings.model_fields[here].annotation if here else None
            lines += ["", f"### `[{here}]`" if here else "### At the top", ""]
            lines += [f"{' '.join((model.__doc__ or '').split())}", ""] if model else []
            lines += ["| setting | default | what it is |", "|---|---|---|"]
        names = f"`{key}`" + (f", `{key}_file`" if is_secret(field) else "")
        lines.append(f"| {names} | {default(field)} | {about}{choices(field)} |")
    lines += ["", "### Variables that are no settings", "", "| variable | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in OTHER_VARIABLES.items()]
    example = "log.durability"
    lines += ["", f"Any setting follows one pattern: `{example}` is `{flag(example)}` and `{variable(example)}`.", ""]
    return "\n".join(lines)


def default(field: Any) -> str:
    """A default as one would write it."""
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0 and "size_bytes" in repr(field.metadata):
        return f"`{units.of_bytes(value).replace(' ', '')}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


def choices(field: Any) -> str:
    """What is allowed, where that is a short list."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is types.UnionType else (field.annotation,)
    for kind in kinds:
        if get_origin(kind) is Literal:
            return " One of " + ", ".join(f"`{one}`" for one in get_args(kind)) + "."
    return ""


def with_table(page: str) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
