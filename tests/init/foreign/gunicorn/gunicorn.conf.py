"""Gunicorn of the shop."""

import multiprocessing
import os

bind = "unix:/run/shop/gunicorn.sock"
workers = multiprocessing.cpu_count() * 2 + 1
worker_class = "gthread"
threads = 4
timeout = 60
graceful_timeout = 45
keepalive = 75
max_requests, max_requests_jitter = 1000, 50
pidfile = "/run/shop/gunicorn.pid"
accesslog = "-"
loglevel = os.environ.get("LOG_LEVEL", "info")
preload_app = True


def post_fork(server, worker):
    server.log.info("worker %s", worker.pid)
