"""Replicas over NATS JetStream, measured from outside: see __main__."""
