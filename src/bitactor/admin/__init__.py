"""Admin over HTTP: health, metrics, queries of live state, the dashboard."""
