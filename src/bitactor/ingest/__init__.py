"""Ingest: from bytes of producers to admitted frames. Sessions, TLS, authentication, limits, admission."""
