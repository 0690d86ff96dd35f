"""An application that counts its answers with prometheus_client, and the lines of its service."""

APP = """
import json, os
from prometheus_client import Counter
ANSWERS = Counter("shop_answers", "Answers.")
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = json.dumps({"version": "1", "pid": os.getpid()}).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    ANSWERS.inc()
    await send({"type": "http.response.body", "body": body})
"""
MORE = """
app = "main:app"
prometheus_multiproc = true
http = { access_log = false }
"""
