import os

bind = f"0.0.0.0:{os.getenv('PORT', '8000')}"
workers = int(os.getenv("WEB_CONCURRENCY", "2"))
worker_class = "uvicorn.workers.UvicornWorker"
reload = True
raw_env = ["A=1"]
if os.getenv("DEBUG"):
    loglevel = "debug"
