"""The app of the end-to-end check, as the text of one file: the actors of examples/flights.py, and readings.

The example's own input needs pandas and the flights, which the image has not, so the app is what stands before it.
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

READINGS = '''
reading = app.kind("reading", 5, value="f8")


@app.actor(reading, state={"count": "u8", "last": "f8", "total": "f8"})
def readings(state, signal):
    """Count and sum a key's readings, and keep the last one, which shows their order."""
    state.count += 1
    state.last = signal.value
    state.total += signal.value
'''


def text():
    """The app."""
    example = (ROOT / "examples/flights.py").read_text()
    begin, end = example.index("import bitactor as ba"), example.index("\n\ndef signals_of(")
    return example[begin:end] + READINGS
