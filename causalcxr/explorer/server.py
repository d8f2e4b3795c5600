"""The page on a port of this machine. It answers who asks it by its own name, and asks nobody itself."""

import asyncio
import ipaddress
import json
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import torch

from causalcxr.data.film import read_film
from causalcxr.data.source import Unusable
from causalcxr.explorer.explorer import Explorer, packed_levels
from causalcxr.explorer.page import SECURITY, live_page
from causalcxr.support.errors import CausalCXRError, ConfigError, DataError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

__all__ = ["MOST_BYTES", "PORTS", "Busy", "application", "listening", "serve"]

MOST_BYTES = 100 * 2**20  # of an uploaded film
SECONDS = 120  # in which it must arrive
MOST_WAITING = 100  # questions, or films, that wait for their turn
PORTS = range(7860, 7960)  # the first that is free
LEFT = "the client has left"
_ROOM = 65536  # bytes of a question besides its pixels

Scope = dict[str, Any]  # of ASGI, as the two below
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Busy(CausalCXRError):
    """Too many wait already."""


def serve(explorer: Explorer, at: socket.socket, host: str = "localhost") -> None:
    """Answer on a listening socket until the process is interrupted. `host`: what it is called.

    Raises ConfigError: uvicorn is missing.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise _missing(error) from None
    torch.set_num_threads(1)  # of one film; more wait for one another longer than they save
    app = application(explorer, at.getsockname()[0], host)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=5)).run([at])


def listening(host: str = "127.0.0.1", port: int | None = None) -> socket.socket:
    """A socket that listens; without a port on the first of PORTS that is free. Raises ConfigError: none is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in PORTS if port is None else [port]:
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # of 0 asyncio is 40 ms late
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host.strip("[]"), number))
            found.listen(128)
            return found
        except (OSError, TypeError, UnicodeError) as error:
            found.close()
            reason = getattr(error, "strerror", None) or str(error)
    where = f"port {port}" if port else f"any port from {PORTS[0]} to {PORTS[-1]}"
    raise ConfigError(f"explore: can't have {where} of {host} ({reason}); choose another --port or --host")


def application(explorer: Explorer, address: str, host: str) -> "Starlette":
    """The page, `POST /answer` and `POST /film`, for a server that is bound to `address` and called `host`."""
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.requests import ClientDisconnect
        from starlette.responses import HTMLResponse, JSONResponse
        from starlette.routing import Route
    except ImportError as error:
        raise _missing(error) from None
    page, answers, films = live_page(explorer), _Queue(), _Queue()
    longest = _ROOM + 2 * int(torch.Size(explorer.shape).numel())

    async def index(request: "Request") -> HTMLResponse:
        return HTMLResponse(page)

    async def answer(request: "Request") -> JSONResponse:
        content = await _body(request, longest, "the question")
        with answers.place():
            async with answers.turn:
                if await request.is_disconnected():
                    return JSONResponse({"error": LEFT})
                return JSONResponse(await asyncio.to_thread(_answered, explorer, content))

    async def film(request: "Request") -> JSONResponse:
        content = await _body(request, MOST_BYTES, "the film")
        with films.place():
            async with films.turn:
                return JSONResponse(await asyncio.to_thread(_read, explorer, content, _file_name(request)))

    async def refused(request: "Request", error: Exception) -> JSONResponse:
        return JSONResponse({"error": LEFT if isinstance(error, ClientDisconnect) else str(error)})

    routes = [
        Route("/", index),
        Route("/answer", answer, methods=["POST"]),
        Route("/film", film, methods=["POST"]),
    ]
    middleware = [Middleware(_OwnNameOnly, address=address, host=host)]
    errors = {CausalCXRError: refused, ClientDisconnect: refused}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=errors)


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(f"explore needs a web server ({error}); pip install 'causalcxr[explorer]'")


class _Queue:
    """Its `turn` is one's at a time; of those who wait for it too many are refused."""

    def __init__(self) -> None:
        self.turn, self._waiting = asyncio.Semaphore(1), 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue. Raises Busy: there is none."""
        if self._waiting >= MOST_WAITING:
            raise Busy(f"{MOST_WAITING} others wait already; try again in a moment")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


async def _body(request: "Request", most: int, what: str) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > most:
                    size = f"{most >> 20} MiB" if most >= 2**20 else f"{most >> 10} KiB"
                    raise DataError(f"{what} is larger than {size}")
    except TimeoutError:
        raise DataError(f"{what} did not arrive within {SECONDS} seconds") from None
    return bytes(content)


def _answered(explorer: Explorer, content: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(content)
        json.dumps(asked, ensure_ascii=False).encode()  # half a letter could not be sent back
    except (ValueError, RecursionError):
        raise ConfigError("question: expected JSON") from None
    return explorer.answer(explorer.parse(asked))


def _file_name(request: "Request") -> str:
    name = unquote(request.headers.get("x-name", "film"), errors="replace").replace("\\", "/")
    return PurePosixPath(name).name[:80] or "film"


def _read(explorer: Explorer, content: bytes, name: str) -> dict[str, Any]:
    """An uploaded film as the model takes it, packed. It is kept nowhere. Raises DataError: unusable."""
    channels, size, _ = explorer.shape
    if not content:
        raise DataError(f"'{name}' is empty")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film"
        path.write_bytes(content)
        pixels = read_film(path, size, channels)
    if isinstance(pixels, Unusable):
        raise DataError(" ".join(pixels.detail.replace(str(path), name).split()))
    return packed_levels(pixels)


class _OwnNameOnly:
    """Refuses requests that another site's page makes, or that came by another name; lets no page of ours leave.

    A page of the web may be given a name that leads here. So the name must be an address, or this machine's.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], address: str, host: str):
        self.app, self.names = app, {"localhost", host.lower()}
        if not ipaddress.ip_address(address).is_loopback:
            self.names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {key: value.decode("latin-1") for key, value in scope.get("headers", [])}
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif not self._is_ours(host) or (origin and origin.partition("://")[2] != host):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"not from here"})
        else:
            await self.app(scope, receive, _with_headers(send))

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name.lower() in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _with_headers(send: Send) -> Send:
    added = [(key.encode(), value.encode()) for key, value in SECURITY.items()]

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *added]
        await send(message)

    return sending
