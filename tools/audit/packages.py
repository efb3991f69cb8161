"""Steps that read what BitActor needs at run time: licences and the SBOM.

What it needs is followed from pyproject.toml through the packages installed in .venv: the dependencies, and the extras
that the image holds. The versions are those of requirements/, which the image is built with; the image's own SBOM, with
the packages of its base, is made in it (k8s/image/collect.py).
"""

import importlib.metadata
import json
import re
import sys
import tomllib
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from audit.findings import HIGH, MEDIUM, Finding, Missing, Result
from audit.tree import BUILD, OURS, ROOT, failed, run, tool, version

EXTRAS = ("service", "cluster", "otel")
NOT_IN_VENV = "tools/bootstrap test installs it"


def needed() -> dict[str, str]:
    """Canonical name -> version of all that BitActor with the image's extras needs. Missing names what is not here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(one for extra in EXTRAS for one in project["optional-dependencies"][extra])]
    to_do = [Requirement(text) for text in texts]
    found: dict[str, str] = {}
    followed: set[tuple[str, str]] = set()
    while to_do:
        requirement = to_do.pop()
        name = canonicalize_name(requirement.name)
        if name == "bitactor":  # an extra that names another, which is in EXTRAS
            continue
        for extra in (*requirement.extras, ""):
            if (name, extra) in followed:
                continue
            followed.add((name, extra))
            try:
                package = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                raise Missing(f"{name} is not in .venv; {NOT_IN_VENV}") from None
            found[name] = package.version
            for text in package.requires or []:
                below = Requirement(text)
                if below.marker is None or below.marker.evaluate({"extra": extra}):
                    to_do.append(below)
    return dict(sorted(found.items()))


def pinned() -> dict[str, str]:
    """Canonical name -> version that requirements/ pins for the image."""
    lines = [
        line for name in ("build", "service") for line in (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    ]
    pairs = (re.match(r"([\w.-]+)==([\w.+!]+)", line) for line in lines)
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs if pair}


def licences() -> Result:
    """The licence of each package, against those that licences.toml allows."""
    program = tool("pip-licenses")
    rules = tomllib.loads((OURS / "licences.toml").read_text())
    packages = needed()
    done = run(program, f"--python={sys.executable}", "--from=mixed", "--format=json", "--packages", *packages)
    if done.returncode:
        raise failed("pip-licenses", done)
    said: dict[str, str] = {canonicalize_name(one["Name"]): one["License"] for one in json.loads(done.stdout)}
    (BUILD / "licences.json").write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
    found = []
    for name in packages:
        licence = said.get(name, "not told")
        parts = re.split(r"\s+AND\s+|;\s*", licence)  # each must be allowed
        choices = [[one.strip("() ") for one in re.split(r"\s+OR\s+", part)] for part in parts]  # one of them is enough
        allowed = licence in rules["allowed"] or all(
            any(one in rules["allowed"] for one in choice) for choice in choices
        )
        if not allowed and rules["packages"].get(name, {}).get("licence") != licence:
            found.append(
                Finding("licence", HIGH, "tools/audit/licences.toml", 0, f"{name} {packages[name]}: {licence}")
            )
    found += [
        Finding("unused", MEDIUM, "tools/audit/licences.toml", 0, f"{name} is not needed: take its entry out")
        for name in rules["packages"]
        if name not in packages
    ]
    return Result(version(program), f"{len(packages)} packages", found)


def sbom() -> Result:
    """build/audit/bitactor.cdx.json: every package with its version and licence, each as requirements/ pins it."""
    program = tool("cyclonedx-py")
    done = run(
        program, "environment", "--pyproject", "pyproject.toml", "--mc-type", "library", "--output-reproducible",
        "--spec-version", "1.6", "--of", "JSON", sys.executable,
    )  # fmt: skip
    if done.returncode:
        raise failed("cyclonedx-py", done)
    packages, pins = needed(), pinned()
    bom = only(json.loads(done.stdout), packages)
    (file := BUILD / "bitactor.cdx.json").write_text(json.dumps(bom, indent=2) + "\n")
    checked = run(program.with_name("python"), "-c", VALIDATE, file)
    where = file.relative_to(ROOT).as_posix()
    found = [] if checked.returncode == 0 else [Finding("schema", HIGH, where, 0, checked.stdout.strip()[:500])]
    there: dict[str, Any] = {canonicalize_name(one["name"]): one for one in bom["components"]}
    for name, needs in packages.items():
        if name not in there:
            found.append(Finding("not-listed", HIGH, where, 0, f"{name} {needs}"))
        elif not there[name].get("licenses"):
            found.append(Finding("no-licence", MEDIUM, where, 0, f"{name} {needs}"))
        if name in pins and pins[name] != needs:
            found.append(
                Finding("other-version", HIGH, where, 0, f"{name}: {needs} is here, {pins[name]} in requirements/")
            )
    return Result(
        version(program), f"{len(packages)} packages, {sum(name in pins for name in packages)} pinned by name", found
    )


# Run by the tools' Python, which has cyclonedx: CycloneDX's own schema.
VALIDATE = """
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sys.argv[1]).read_text())
sys.exit(print(error) or 1 if error else 0)
"""


def only(bom: dict[str, Any], packages: dict[str, str]) -> dict[str, Any]:
    """An SBOM of an environment without what is in it for building and testing alone."""
    root = bom["metadata"]["component"]["bom-ref"]
    kept = [one for one in bom["components"] if canonicalize_name(one["name"]) in packages]
    names = {one["bom-ref"] for one in kept} | {root}
    edges = [
        {**one, "dependsOn": [to for to in one.get("dependsOn", []) if to in names]} for one in bom["dependencies"]
    ]
    return {**bom, "components": kept, "dependencies": [one for one in edges if one["ref"] in names]}
