"""Keyed actors over streams of tiny fixed-size events."""
