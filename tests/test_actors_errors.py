"""What a person reads when a handler cannot be: the file, the line, what is wrong, what to write instead."""

import importlib.util
import textwrap

import pytest

import bitactor as ba

HEAD = """\
import math
import bitactor as ba
app = ba.App("errors")
trade = app.kind("trade", 1, value="f8", aux="u4")
count = app.kind("count", 2, value="u8", aux="f4")
foreign = ba.App("other").kind("foreign", 9)
TEXT = "text"
def forever(x):
    return forever(x)
def nothing(x):
    if x > 1:
        return 1
"""
FIRST = HEAD.count("\n") + 3  # the first line of a handler's body

CASES = [
    ("state.notionl += 1", 0, "no field 'notionl'; did you mean 'notional'?"),
    ("x = 'text'", 0, "'text' is a text: a handler computes with int, float and bool only"),
    ("x = TEXT", 0, "TEXT is a text"),
    ("x = f'{1}'", 0, "an f-string is a text"),
    ("print(signal.value)", 0, "print(...) cannot be called in a handler: read dead_letters()"),
    ("x = len([1])", 0, "len(...) cannot be called in a handler: the size of a state array is known"),
    ("x = math.gamma(1.0)", 0, "math.gamma(...) cannot be called"),
    ("engine.flush()", 0, "engine.flush(...) cannot be called in a handler"),
    ("x = signal.price", 0, "a signal has no field 'price'"),
    ("x = signal.vlaue", 0, "did you mean 'value'?"),
    ("signal.value = 1.0", 0, "a signal cannot be changed"),
    ("x = notional", 0, "name 'notional' is not defined"),
    ("if signal.value > 1:\n    y = 1.0\nstate.notional = y", 2, "y may not be assigned here"),
    ("state.n = signal.value", 0, "state.n (i8) is an integer and the value is a float: use int(...)"),
    ("emit(trade, signal.key)", 0, "emit lacks value"),
    ("emit(trade, signal.key, 1.0, auxx=1)", 0, "emit has no argument 'auxx'; did you mean 'aux'?"),
    ("emit(foreign, signal.key, 1.0)", 0, "kind 'foreign' belongs to another app"),
    ("emit(signal.kind, signal.key, 1.0)", 0, "signal.kind is not a kind"),
    ("emit(count, signal.key, 1.5)", 0, "value (u8) of kind count is an integer and the value is a float"),
    ("x = emit(trade, 1, 2.0)", 0, "emit(...) gives nothing back"),
    ("x = [1, 2]", 0, "List ([1, 2]) is not possible in a handler"),
    ("x = lambda: 1", 0, "Lambda"),
    ("try:\n    x = 1\nexcept ValueError:\n    x = 2", 0, "try is not possible in a handler"),
    ("with signal:\n    pass", 0, "with is not possible in a handler"),
    ("import os", 0, "import is not possible in a handler: import at the top of the file"),
    ("global TEXT", 0, "global is not possible in a handler: keep what must last in the actor's state"),
    ("def inner():\n    pass", 0, "define helper functions at the top of the file"),
    ("for x in (1, 2):\n    pass", 0, "for loops go over range(...) only"),
    ("a, b = 1, 2", 0, "assign to one name at a time"),
    ("state.window[9] = 1.0", 0, "index 9 is outside state.window, which has 4 elements"),
    ("state.window[1.5] = 1.0", 0, "an index must be an integer"),
    ("state.window = 1.0", 0, "state.window is an array of 4: write state.window[index]"),
    ("state.n[0] = 1", 0, "state.n is one i8, not an array"),
    ("x = forever(1)", -6, "forever calls itself"),
    ("x = nothing(1)", -4, "nothing must return a number on every path"),
    ("x = 1 << 1.5", 0, "bit operators need integers"),
    ("return 1", 0, "a handler returns nothing"),
    ("raise ValueError(str(1))", 0, "raise with a constant text"),
    ("state = 1", 0, "state is a parameter of the handler"),
    ("x = state", 0, "state is not a number: use state.field"),
    ("x = 1 if signal in state else 2", 0, "is not a number"),
    ("yield 1", 0, "Yield"),
    ("x = math.sqrt(1, 2)", 0, "math.sqrt takes 1 number"),
    ("x = 99999999999999999999", 0, "does not fit 64 bits"),
    ("x = -9223372036854775809", 0, "does not fit 64 bits"),
]


def declare(tmp_path, body, signature="state, signal, emit", kinds="trade"):
    path = tmp_path / "handlers.py"
    path.write_text(
        HEAD
        + f'@app.actor({kinds}, state={{"notional": "f8", "n": "i8", "window": ("f8", 4)}})\n'
        + f"def handler({signature}):\n"
        + textwrap.indent(body, "    ")
        + "\n"
    )
    spec = importlib.util.spec_from_file_location("handlers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.handler


@pytest.mark.parametrize(("body", "line", "message"), CASES, ids=[case[0].splitlines()[0] for case in CASES])
def test_a_handler_that_cannot_be_is_refused_with_file_line_and_what_to_write(tmp_path, body, line, message):
    with pytest.raises(ba.HandlerError) as caught:
        declare(tmp_path, body)
    assert message in str(caught.value)
    assert caught.value.filename.endswith("handlers.py")
    if line >= 0:
        assert caught.value.lineno == FIRST + line
    assert str(caught.value).startswith(f"{caught.value.filename}:{caught.value.lineno}: ")


def test_reserved_and_unknown_parameters_are_refused(tmp_path):
    with pytest.raises(ba.HandlerError, match="parameter clock is reserved for a later version"):
        declare(tmp_path, "pass", "state, clock")
    with pytest.raises(ba.HandlerError, match="parameter 'sate' is unknown.*did you mean 'state'"):
        declare(tmp_path, "pass", "sate, signal")


def test_a_value_whose_type_depends_on_the_kind_is_asked_for_first(tmp_path):
    with pytest.raises(
        ba.HandlerError, match=r"signal.value is f8 or u8 here: ask first, such as if signal.kind == trade"
    ):
        declare(tmp_path, "state.notional += signal.value", kinds="trade, count")
    body = "if signal.kind == trade:\n    state.notional += signal.value\nelse:\n    state.n += signal.value"
    assert [kind.name for kind in declare(tmp_path, body, kinds="trade, count").kinds] == ["trade", "count"]


def test_declarations_that_collide_are_refused_naming_the_other():
    app = ba.App("twice")
    app.kind("trade", 1)
    with pytest.raises(ValueError, match="kind 'trade' is declared twice; the first has number 1"):
        app.kind("trade", 2)
    with pytest.raises(ValueError, match="number 1 is that of kind 'trade'"):
        app.kind("other", 1)
    with pytest.raises(ValueError, match="number 0 is outside 1..65535"):
        app.kind("zero", 0)
    with pytest.raises(ValueError, match="value type 'f9' is not one of f8, i8, u8"):
        app.kind("wrong", 3, value="f9")


def test_a_bad_state_or_setting_names_the_actor_and_the_field():
    app = ba.App("bad")
    kind = app.kind("k", 1)

    def handler(state, signal):
        state.n += 1

    with pytest.raises(ValueError, match="actor 'handler': state field 'n' type 'u9' is not one of"):
        app.actor(kind, state={"n": "u9"})(handler)
    with pytest.raises(ValueError, match="expire_after is 'soon'"):
        app.actor(kind, state={"n": "u8"}, expire_after="soon")(handler)
    with pytest.raises(ValueError, match="keys_max is 0"):
        app.actor(kind, state={"n": "u8"}, keys_max=0)(handler)
    with pytest.raises(TypeError, match="'k' is not a kind"):
        app.actor("k", state={"n": "u8"})(handler)
