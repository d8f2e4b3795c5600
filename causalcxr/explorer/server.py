"""The page on a port of this machine: it is our own, and gradio queues its questions."""

import asyncio
import base64
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from causalcxr.data.film import read_film
from causalcxr.data.source import Unusable
from causalcxr.explorer.explorer import Explorer
from causalcxr.explorer.page import SECURITY, live_page
from causalcxr.support.errors import CausalCXRError, ConfigError, DataError

__all__ = ["MOST_BYTES", "serve"]

MOST_BYTES = 100 * 2**20  # of an uploaded film
OURS = ("/", "/film", "/gradio_api/call/answer", "/gradio_api/startup-events")
LOCAL = ("127.0.0.1", "localhost", "[::1]", "::1")

Scope = dict[str, Any]  # of ASGI, as the two below
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def serve(explorer: Explorer, host: str = "127.0.0.1", port: int | None = None) -> Any:
    """Start the page in a thread of its own; returns gradio's server, whose `blocks.local_url` is the address.

    `port`: by default the first that is free from 7860 on. Raises ConfigError: gradio is missing, or the port is
    taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    try:
        from fastapi import Request
        from fastapi.responses import HTMLResponse, JSONResponse
        from gradio import Server
        from starlette.middleware.trustedhost import TrustedHostMiddleware
    except ImportError as error:
        raise ConfigError(f"explore needs gradio ({error}); pip install 'causalcxr[explorer]'") from None

    torch.set_num_threads(1)  # of one film; more wait for one another longer than they save
    server = Server(title="causalcxr", docs_url=None, redoc_url=None, openapi_url=None)
    page = live_page(explorer)

    @server.api_route("/", methods=["GET", "HEAD"], response_class=HTMLResponse)
    def index() -> str:
        return page

    @server.api(name="answer", concurrency_limit=1)
    def answer(question: dict) -> dict:
        return answered(explorer, question)

    async def film(request: Request) -> JSONResponse:
        return JSONResponse(await received(explorer, request.stream(), request.headers.get("x-name", "film")))

    film.__annotations__["request"] = Request  # FastAPI reads it, and this module does not import it
    server.post("/film", response_model=None)(film)
    server.add_middleware(_OnlyOurs)
    if host in LOCAL:
        server.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL])
    try:
        server.launch(
            server_name=host, server_port=port, quiet=True, prevent_thread_lock=True, share=False, inbrowser=False
        )
    except OSError as error:
        where = f"port {port}" if port else "ports 7860 to 7959"
        raise ConfigError(
            f"explore: {where} of {host} can't be had, taken or not ours; say another --port"
        ) from error
    return server


def answered(explorer: Explorer, question: Any) -> dict[str, Any]:
    """The answer, or `{"error": one line}`."""
    try:
        return explorer.answer(explorer.parse(question))
    except CausalCXRError as error:
        return {"error": str(error)}


async def received(explorer: Explorer, stream: Any, name: str) -> dict[str, Any]:
    """An uploaded film as the model takes it, packed; or `{"error": one line}`. It is kept nowhere."""
    content = bytearray()
    async for chunk in stream:
        content += chunk
        if len(content) > MOST_BYTES:
            return {"error": f"the film is larger than {MOST_BYTES >> 20} MiB"}
    name = PurePosixPath(name.replace("\\", "/")).name[:80] or "film"
    try:
        return await asyncio.to_thread(_read, explorer, bytes(content), name)
    except CausalCXRError as error:
        return {"error": str(error)}


def _read(explorer: Explorer, content: bytes, name: str) -> dict[str, Any]:
    channels, size, _ = explorer.shape
    if not content:
        raise DataError(f"'{name}' is empty")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        path.write_bytes(content)
        pixels = read_film(path, size, channels)
    if isinstance(pixels, Unusable):
        raise DataError(pixels.detail.replace(str(path), name))
    return {"shape": list(pixels.shape), "data": base64.b64encode(pixels.tobytes()).decode()}


class _OnlyOurs:
    """Serves what the page asks for and nothing else of gradio; the page may speak to this server alone."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif scope["type"] == "http" and _is_ours(scope["path"]):
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"not found"})


def _is_ours(path: str) -> bool:
    return path in OURS or path.startswith("/gradio_api/call/answer/")


def _with_headers(send: Send) -> Send:
    added: Sequence[tuple[bytes, bytes]] = [(key.encode(), value.encode()) for key, value in SECURITY.items()]

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *added]
        await send(message)

    return sending
