"""Tests of the library, and of the house it stands in."""
