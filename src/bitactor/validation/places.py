"""Paths of the machine taken out of what reports say: stable words in their place, so that two runs read alike. Pure.

Longer paths are replaced first; what was not given by name is the working directory (`.`), the package (`bitactor`),
the interpreter's prefix (`PYTHON`), temporary files (`TMP`) and the home directory (`HOME`).
"""

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


def stable(text: str, named: Mapping[Path | str, str] | None = None) -> str:
    """The text with every path below one of these, or of the usual places, said by its word."""
    words = {str(place): word for place, word in (named or {}).items()}
    for place, word in (
        (Path(__file__).parents[1], "bitactor"), (Path.cwd(), "."), (Path(sys.prefix), "PYTHON"),
        (Path(tempfile.gettempdir()), "TMP"), (Path.home(), "HOME"),
    ):  # fmt: skip
        words.setdefault(str(place), word)
        words.setdefault(str(place.resolve()), word)
    words.pop("/", None)
    found = "|".join(re.escape(place) for place in sorted(words, key=len, reverse=True))
    return re.sub(rf"(?<![\w/.-])(?:{found})(?![\w-])", lambda match: words[match[0]], text)
