"""Asking a running service over its admin interface, for the verbs that do."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bitactor.cli.run import USAGE, Failed

TIMEOUT_S: Final = 60.0
URL: Final = "http://127.0.0.1:8080"


def ask(
    url: str,
    path: str,
    token_file: Path | None,
    *,
    body: Mapping[str, Any] | None = None,
    accept: str = "application/json",
) -> tuple[bytes, str]:
    """The body of the answer, and its position; with `body` it is posted. Failed: says what the service said."""
    if not url.startswith(("http://", "https://")):
        raise Failed(f"--url is {url!r}: it begins with http:// or https://", USAGE)
    headers = {"content-type": "application/json", "accept": accept}
    if token_file is not None:
        headers["authorization"] = f"Bearer {token_file.read_text().strip()}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310
        f"{url.rstrip('/')}/api/v1/{path}", content, headers, method="GET" if body is None else "POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return answer.read(), answer.headers.get("bitactor-position", "")
    except urllib.error.HTTPError as error:
        with error:
            raise Failed(_said(error)) from None
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise Failed(f"no answer from {url}: {reason}; is `bitactor serve` running there?") from None


def _said(error: urllib.error.HTTPError) -> str:
    try:
        message = str(json.loads(error.read())["message"])
    except (ValueError, KeyError, TypeError):
        message = f"status {error.code}"
    return f"{message}; give --token-file" if error.code == 401 else message
