"""Keeps the chart's pages in step with what they describe: `python tools/chart_page.py` rewrites both.

`config` in k8s/helm/bitactor/values.schema.json has a property for each setting of bitactor.config that is the user's
to set; k8s/helm/bitactor/README.md has a row for each value: name, default of values.yaml, description of the schema.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from bitactor.config.settings import Settings, leaves

CHART: Final = Path(__file__).parent.parent / "k8s" / "helm" / "bitactor"
SCHEMA: Final = CHART / "values.schema.json"
PAGE: Final = CHART / "README.md"
BEGIN: Final = "<!-- made by tools/chart_page.py -->\n"
# What the chart sets itself, from other values: sections whole, or single settings.
THE_CHARTS: Final = {
    *("app", "data_dir", "ingest", "tls", "auth", "admin", "shutdown", "log.kind", "cluster.replica", "nats.urls"),
    *("nats.credentials_file", "nats.nkey_file", "nats.user", "nats.password_file"),
    *("nats.tls_ca_file", "nats.tls_cert_file", "nats.tls_key_file"),
}
# Words of JSON Schema that are taken over.
KEPT: Final = {"type", "anyOf", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def is_the_charts(name: str) -> bool:
    """Whether a setting is made from other values of the chart."""
    return name in THE_CHARTS or name.rpartition(".")[0] in THE_CHARTS


def config_schema() -> dict[str, Any]:
    """JSON Schema of the value config: the settings by section."""
    models = Settings.model_json_schema(mode="validation")
    sections: dict[str, Any] = {}
    for name, _, about in leaves():
        section, _, key = name.rpartition(".")
        if is_the_charts(name):
            continue
        model = models["$defs"][models["properties"][section]["$ref"].rpartition("/")[2]]
        given = {word: value for word, value in model["properties"][key].items() if word in KEPT}
        if key.endswith("_s") or "bytes" in key:
            given = {"type": ["number", "string"]}  # sizes and durations may be texts
        sections.setdefault(section, {"type": "object", "additionalProperties": False, "properties": {}})
        sections[section].setdefault("description", " ".join(model["description"].split()))
        sections[section]["properties"][key] = {**given, "description": about}
    return {
        "type": "object",
        "description": "Settings of the service by section, as in docs/configuration.md; the chart sets the others.",
        "additionalProperties": False,
        "properties": sections,
    }


def schema() -> str:
    """values.schema.json with config made anew."""
    document = json.loads(SCHEMA.read_text())
    document["properties"]["config"] = config_schema()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def rows(properties: dict[str, Any], values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A row of Markdown for each value; objects of a fixed shape are walked, config and metadata are told as one."""
    for name, about in properties.items():
        path, value = f"{prefix}{name}", values.get(name)
        inner = about.get("properties")
        if inner and path not in {"config", "metadata"} and isinstance(value, dict):
            yield f"| **{path}** | | {about['description']} |"
            yield from rows(inner, value, f"{path}.")
        elif name != "global":
            text = json.dumps(value, ensure_ascii=False)
            words = about["description"].replace("|", "\\|")
            yield f"| `{path}` | `{text}` | {words}{choices(about)} |"


def choices(about: dict[str, Any]) -> str:
    """What is allowed, where that is a list."""
    found = about.get("enum", [])
    return " One of " + ", ".join(f"`{json.dumps(one)}`" for one in found) + "." if found else ""


def page() -> str:
    """README.md with its table made anew."""
    properties = json.loads(schema())["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    before = PAGE.read_text().partition(BEGIN)[0] if PAGE.exists() else "# bitactor\n\n"
    table = ["| value | default | what it is |", "|---|---|---|", *rows(properties, values)]
    return before + BEGIN + "\n".join(table) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema())
    PAGE.write_text(page())
