"""Serves the demo page: on this machine alone unless asked otherwise, and with nothing from outside in it."""

import os
import signal
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# Read by Gradio when it is imported and when a page is built.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio
import uvicorn
from fastapi import FastAPI

from kit.demo.look import STYLE

GRACE_S = 2  # for what is under way when the server ends
WAITING = 16  # visitors in the queue; who comes then is told to come again
# The browser loads nothing but what this server gives, whatever a library's page asks for.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]  # ASGI


def serve(page: gradio.Blocks, listener: socket.socket, upload_mib: int) -> None:
    """Until Ctrl-C, or a signal to end, which ends it in the same way."""
    config = uvicorn.Config(application(page, upload_mib), log_level="warning", timeout_graceful_shutdown=GRACE_S)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)


def application(page: gradio.Blocks, upload_mib: int) -> Application:
    page.queue(max_size=WAITING, api_open=False)
    mounted = gradio.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        max_file_size=f"{upload_mib}mb",
        theme=theme(),
        css=STYLE,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
    )
    return guarded(mounted)


def theme() -> gradio.themes.Base:
    """With fonts that Gradio brings along, so that none is fetched: regular and bold, as its semibold lacks letters."""
    text = gradio.themes.LocalFont("Source Sans Pro", weights=(400, 700))
    return gradio.themes.Default(primary_hue="emerald", neutral_hue="slate", font=(text, "system-ui", "sans-serif"))


def guarded(application: Application) -> Application:
    """The same, with the policy at the head of each of its answers."""

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await application(scope, receive, send_with_policy)

    return answer
