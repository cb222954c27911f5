"""Serving the page: what may be asked of the server, by whom, and what is left behind (nothing)."""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from foveate.demo.samples import MAX_UPLOAD

__all__ = ["USER", "Guard", "check_port", "private_environment", "serve"]

USER = "foveate"
"""The name that visitors give beside the password."""
MAX_BODY = MAX_UPLOAD + 2**16
"""Most bytes of any request: an upload and what is around it."""
CACHED = (300, 1800)
"""Every so many seconds, files older than so many seconds are deleted."""
PATHS = re.compile(
    r"/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|login/?|logout|(assets|static|svelte)/.+"
    r"|gradio_api/(startup-events|info|queue/(join|data)|upload|upload_progress|heartbeat/\w+|login_check|cancel|reset"
    r"|theme\.css|app_id|user|token|file=(?!\w+:).+))"
)
"""What the page asks for. Gradio has more, such as fetching from other servers, recordings and monitoring."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Guard:
    """ASGI middleware that answers nothing but what the page asks for.

    - Other paths: 404.
    - A request with a body longer than `MAX_BODY`: 413, after reading no more than that.
    - Where there is no password, a request for another host: 400. Else any web page that somebody visits could, by
      letting its own name point to 127.0.0.1, read this one. One that comes from another web page: 403. It could not
      read the answer, but leave files here.
    """

    def __init__(self, app: Any, *, any_host: bool) -> None:
        self.app, self.any_host = app, any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await (self.app(scope, receive, send) if scope["type"] == "lifespan" else send({"type": "websocket.close"}))
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        own = (*LOOPBACK, scope.get("server", LOOPBACK)[0])
        host, origin = (re.sub(r":\d+$", "", headers.get(name, "")) for name in (b"host", b"origin"))
        if not PATHS.fullmatch(scope["path"]):
            await _refuse(send, 404, "Not found")
        elif not (self.any_host or host in own):
            await _refuse(send, 400, "Invalid host")
        elif not (self.any_host or not origin or origin.partition("://")[2] in own):
            await _refuse(send, 403, "Not for other pages")
        elif int(headers.get(b"content-length", "0")) > MAX_BODY:
            await _refuse(send, 413, f"At most {MAX_UPLOAD // 2**20} MB can be uploaded")
        else:
            await self.app(scope, _limited(receive), send)


def _limited(receive: Receive) -> Receive:
    """Treat a client as disconnected when it sends more than it announced, or does not announce a length."""
    total = 0

    async def limited() -> Any:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        return message if total <= MAX_BODY else {"type": "http.disconnect"}

    return limited


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


def check_port(address: str, port: int | None) -> None:
    """Raise an `OSError` if the page cannot be at this address and port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port or 0))
        except OSError as error:
            where = address if port is None else f"{address}, port {port}"
            raise OSError(f"the page cannot be at {where}: {error.strerror}") from error


@contextlib.contextmanager
def private_environment() -> Iterator[Path]:
    """Give gradio a folder of its own, which is deleted in the end, and nothing else by way of environment variables.

    Its variables could open paths of the machine or share the page. It sends no statistics.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="foveate-demo-", ignore_cleanup_errors=True) as folder:
        for name in [name for name in os.environ if name.startswith("GRADIO_")]:
            del os.environ[name]
        os.environ |= {
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        for name in ("NO_PROXY", "no_proxy"):  # gradio asks whether the page is there, and no proxy can know
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost", "::1"]))
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ |= before


def serve(page: Any, *, address: str, port: int | None, password: str | None) -> None:
    """Serve ``page``, a `gradio.Blocks`, until the process is interrupted.

    Raises:
        OSError: The port is taken.
        KeyboardInterrupt: The end.
    """
    from starlette.middleware import Middleware

    from foveate.demo.components import appearance

    def admits(user: str, given: str) -> bool:
        return user == USER and hmac.compare_digest(given.encode(), (password or "").encode())

    host = f"[{address}]" if ":" in address else address
    try:
        page.queue(max_size=64, default_concurrency_limit=2).launch(
            **appearance(),
            server_name=host,
            server_port=port,
            auth=None if password is None else admits,
            auth_message=f"The user name is {USER}.",
            max_file_size=MAX_UPLOAD,
            allowed_paths=[],
            app_kwargs={"middleware": [Middleware(Guard, any_host=password is not None)], "docs_url": None},
            state_session_capacity=64,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            inline=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"The page is at http://{host}:{page.server_port} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    finally:
        page.close(verbose=False)
