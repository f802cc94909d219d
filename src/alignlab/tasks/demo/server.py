"""The web server of the demo: on loopback, for one machine's people, with nothing from elsewhere on its page."""

import importlib.util
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LEAST = 6  # major version of Gradio
LOOPBACK = "127.0.0.1"  # never another address: who is elsewhere comes through a tunnel of their own
_FIRST, _PORTS = 7860, 100  # where a free port is looked for, Gradio's own
# What the page may load and ask: this server alone. A page of somebody else's in the same browser may not frame it.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


def check_extra() -> None:
    """Raises ValueError, one line, where the extra isn't installed."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("gradio is missing: pip install 'alignlab[demo]'")


def gradio(folder: Path) -> Any:
    """Gradio, which from now on keeps what is uploaded in `folder` and tells nobody that it is used.

    Raises ValueError, one line, where it isn't installed or is another one than the extra's.
    """
    check_extra()
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder)}
    try:
        import gradio as gr
    except ImportError as error:
        raise ValueError(f"gradio can't be imported ({error}): pip install 'alignlab[demo]'") from error
    if int(gr.__version__.split(".")[0]) < LEAST:
        raise ValueError(f"gradio {gr.__version__} is older than {LEAST}: pip install 'alignlab[demo]'")
    return gr


def listen(port: int | None) -> socket.socket:
    """A socket on loopback that waits for visitors; without a port the first that is free from 7860 on.

    Raises ValueError, one line, where there is none.
    """
    for number in [port] if port is not None else range(_FIRST, _FIRST + _PORTS):
        waiting = socket.socket(socket.AF_INET)
        waiting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            waiting.bind((LOOPBACK, number))
            waiting.listen()
        except OSError as error:
            waiting.close()
            reason = error.strerror
            continue
        return waiting
    raise ValueError(f"port={port} on {LOOPBACK}: {reason}; name another one, or none for the first that is free")


@contextmanager
def served(gr: Any, page: Any, waiting: socket.socket, css: str) -> Iterator[None]:
    """The page is there while this is open; at its end visitors are let go within two seconds."""
    import uvicorn
    from fastapi import FastAPI

    host, port = waiting.getsockname()
    page.queue()
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None), page, path="/", server_name=host,
        server_port=port, footer_links=[], run_history=False, allowed_paths=[], show_error=True,
        ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False, css=css,
        theme=gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
    )  # fmt: skip
    config = uvicorn.Config(
        guarded(app), log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    logging.getLogger("uvicorn.error").disabled = False
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([waiting],), daemon=True, name="demo")
    thread.start()
    try:
        yield
    finally:
        logging.getLogger("uvicorn.error").disabled = True  # it would tell of everybody whose page is still open
        server.should_exit = True
        thread.join(timeout=2)
        server.force_exit = True
        thread.join(timeout=2)
        waiting.close()


def guarded(app: Callable) -> Callable:
    """An ASGI app that answers as `app` does, under the policy, and only what this machine's own pages ask.

    A stranger's page in the same browser may know the port, and may have its own name point here.
    """

    async def answered(scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await app(scope, receive, send)
        headers = dict(scope["headers"])
        asked = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", f"http://{asked}".encode("latin-1")).decode("latin-1")
        if asked.partition(":")[0] not in (LOOPBACK, "localhost") or origin != f"http://{asked}":
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            return await send({"type": "http.response.body", "body": b"this page answers its own machine alone\n"})

        # Packing 5 MB of scripts takes longer than sending them to the same machine.
        scope = scope | {"headers": [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]}

        async def sent(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message["headers"], *_HEADERS]}
            await send(message)

        return await app(scope, receive, sent)

    return answered
