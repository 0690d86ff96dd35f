"""What Prometheus is told: a status as metrics, and a small HTTP server for those who scrape it."""
