"""Settings as flags: a verb that takes them gets --config and a flag for each setting, by section in its help."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bitactor.config.load import flag, load
from bitactor.config.settings import Settings, is_secret, leaves


def with_settings(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb whose first parameter is `settings: Settings`, with the command line's flags instead of it.

    The app is its first argument, `--config` names the TOML file; other parameters stay as they are. One called `log`
    is --log-kind and --nats-urls in one. ConfigError of what is given comes out of the call.
    """
    parameters, by_parameter = _parameters()
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]

    @functools.wraps(verb)
    def wrapped(**given: Any) -> None:
        config = given.pop("config")
        flags = {name: given.pop(parameter) for parameter, name in by_parameter.items()}
        flags |= _log_of(given.get("log"))
        verb(load(flags, config=config), **given)

    every = [*parameters[:1], *own, *parameters[1:]]
    wrapped.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in every]
    )
    wrapped.__annotations__ = {one.name: one.annotation for one in every}
    del wrapped.__wrapped__  # the signature is another
    return wrapped


def _log_of(given: str | None) -> dict[str, Any]:
    """The settings that `--log sqlite`, `--log none` or `--log nats://host:4222` stand for."""
    if given is None:
        return {}
    if given.startswith(("nats://", "tls://")):
        return {"log.kind": "jetstream", "nats.urls": given}
    return {"log.kind": given}


def _parameters() -> tuple[list[inspect.Parameter], dict[str, str]]:
    """The parameters for the app, --config and every setting; parameter name -> setting."""
    parameters = [
        _parameter("app", str | None, typer.Argument(help="The app: a Python file, or file:name.", show_default=False)),
        _parameter(
            "config",
            Path | None,
            typer.Option("--config", help="The TOML file. [default: ./bitactor.toml]", show_default=False),
        ),
    ]
    by_parameter = {"app": "app"}
    for name, field, about in leaves(Settings):
        if name == "app" or is_secret(field):  # secrets come from files and the environment, never from arguments
            continue
        parameter = name.replace(".", "_")
        section = name.partition(".")[0] if "." in name else "settings"
        yes_or_no = field.annotation is bool
        default = str(field.default).lower() if yes_or_no else field.default
        shown = "" if default is None else f" [default: {default}]"
        names = f"{flag(name)}/--no-{flag(name)[2:]}" if yes_or_no else flag(name)
        option = typer.Option(names, help=about + shown, show_default=False, rich_help_panel=section.capitalize())
        parameters.append(_parameter(parameter, bool | None if yes_or_no else str | None, option))
        by_parameter[parameter] = name
    return parameters, by_parameter


def _parameter(name: str, type: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[type, info])
