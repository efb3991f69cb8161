"""The runtime: the one place that wires ingest, log and engine into a service."""
