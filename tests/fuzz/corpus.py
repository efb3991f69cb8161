"""Inputs that once told something: a line of hexadecimal each, in corpus/TARGET.hex; `#` begins a comment."""

from pathlib import Path

HERE = Path(__file__).parent / "corpus"


def kept(name):
    """The kept inputs of a target."""
    path = HERE / f"{name}.hex"
    if not path.exists():
        return []
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [bytes.fromhex(line) for line in lines if line]
