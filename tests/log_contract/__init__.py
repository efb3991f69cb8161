"""One suite for every kind of log, and what is needed to write such suites."""
