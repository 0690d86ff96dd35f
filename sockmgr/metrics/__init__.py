"""Metrics for Prometheus: made of a status, and served by a small HTTP server."""
