"""Speed, measured: one command, one table, peers in the same run. docs/benchmarks.md says how to read it."""
