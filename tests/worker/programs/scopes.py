"""An ASGI application that answers with what a scope says of client, TLS and drain."""

from __future__ import annotations

import json
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    extensions = scope["extensions"]
    tls = extensions.get("tls", {})
    told = {
        "client": scope["client"],
        "server": scope["server"],
        "scheme": scope["scheme"],
        "draining": extensions["sockmgr.draining"]["is_set"](),
        "name": tls.get("client_cert_name"),
        "certificates": len(tls.get("client_cert_chain", ())),
        "version": tls.get("tls_version"),
    }
    body = json.dumps(told).encode()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": body.decode()})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
