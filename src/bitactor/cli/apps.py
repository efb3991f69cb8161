"""Finding the app that a verb is given: a Python file, or file:name."""

import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING

from bitactor.cli.run import USAGE, Failed

if TYPE_CHECKING:
    from bitactor.actors import App

MODULE_NAME = "bitactor_app"


def load_app(target: str | None) -> "App":
    """The App that `market.py` or `market.py:app` holds; its directory is importable from then on.

    Failed: no target, no such file, an error in it (with its line), no App of that name or more than one without name,
    an App without kinds.
    HandlerError of a handler comes through: it has file, line and fix.
    """
    from bitactor.actors import App, HandlerError

    if not target:
        raise Failed("which app? Give its file, such as `bitactor serve market.py`, or set app in bitactor.toml", USAGE)
    name, _, attribute = target.partition(":")
    file = Path(name)
    if not file.is_file():
        more = "; an app is a Python file" if file.suffix == ".py" else "; an app is a Python file such as market.py"
        raise Failed(f"{name}: no such file{more}", USAGE)
    module = types.ModuleType(MODULE_NAME)
    module.__file__ = str(file.resolve())
    sys.modules[MODULE_NAME] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        exec(compile(file.read_bytes(), module.__file__, "exec"), module.__dict__)  # noqa: S102
    except HandlerError:
        raise
    except SyntaxError as error:
        raise Failed(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == module.__file__]
        line = frames[-1].lineno if frames else 1
        raise Failed(f"{name}:{line}: {type(error).__name__}: {error}") from error
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, App):
            what = "is not a bitactor.App" if hasattr(module, attribute) else "is not defined"
            raise Failed(f"{name}: {attribute} {what}", USAGE)
        return _with_kinds(found, name)
    apps = {key: one for key, one in vars(module).items() if isinstance(one, App)}
    if len({id(one) for one in apps.values()}) != 1:
        if not apps:
            raise Failed(f"{name} defines no bitactor.App", USAGE)
        raise Failed(f"{name} defines {len(apps)} apps; choose one, such as {name}:{next(iter(apps))}", USAGE)
    return _with_kinds(next(iter(apps.values())), name)


def _with_kinds(app: "App", file: str) -> "App":
    if not app.kinds:
        raise Failed(f"{file}: app {app.name!r} declares no kind: app.kind(name, number) declares one")
    return app
