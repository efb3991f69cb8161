"""The service measured from outside: `python -m benchmarks.service`, `make bench-service`."""
