"""Fuzz targets of what is not C: each takes any bytes and raises when something is so that must not be.

`python -m tests.fuzz SECONDS [TARGET...]` runs them; `make fuzz` does, after libFuzzer ran the targets of core/fuzz.
"""
