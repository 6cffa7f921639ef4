"""Restricts requests to the studio's server: by origin, by host name and by amount.

Middleware of Starlette, the outermost first: /healthz, names of the host, origins, sizes.
"""

import urllib.parse
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from umt_jax.studio.folder import NoRoomError, StudioFolder

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
_CALL_BYTES = 2**20  # Of a request that is no upload: a call's arguments, a few hundred bytes.
_FORM_BYTES = 2**16  # Of what is around a file in the request that brings it.


def allowed_names(host: str, allowed_hosts: Sequence[str]) -> list[str]:
    """Returns the names that a server answers to; "*" for any.

    Args:
        host: Address that it listens on. On this machine alone, its own names are enough.
        allowed_hosts: What the user allows further: names, or *.example.org for all below one.

    Raises:
        ValueError: One of them is no name.
    """
    for name in allowed_hosts:
        rest = name[2:] if name.startswith("*.") else name
        bracketed = rest.startswith("[") and rest.endswith("]")
        if name != "*" and (
            not rest or "*" in rest or "/" in rest or ":" in rest and not bracketed
        ):
            raise ValueError(
                f"--allowed_hosts={name} is not the name of a host. Write it as studio.example.org "
                "or *.example.org, without http:// and port; * allows all."
            )
    if host not in _LOOPBACK and not allowed_hosts:
        return ["*"]
    return [*_LOOPBACK, host, *(name.lower() for name in allowed_hosts)]


def middleware(names: Sequence[str], folder: StudioFolder) -> list[Middleware]:
    """Returns what requests pass through before they reach Gradio.

    Args:
        names: As `allowed_names` returns them.
        folder: Where what they bring is stored.
    """
    return [
        Middleware(Health),
        Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False),
        Middleware(OwnPagesOnly, names=names),
        Middleware(Sizes, folder=folder),
    ]


class Health:
    """Answers /healthz, for whatever watches over the server, by any name and without a login."""

    def __init__(self, app: ASGIApp) -> None:
        """Takes what answers everything else."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] == "http" and scope["path"].endswith("/healthz"):
            await PlainTextResponse("ok\n")(scope, receive, send)
            return
        await self._app(scope, receive, send)


class OwnPagesOnly:
    """Refuses what browsers ask on behalf of other sites' pages."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        """Takes the names by which pages of this server are known."""
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and not self._is_own(origin, headers.get("host", "")):
                refusal = PlainTextResponse(
                    "This request comes from a page of another site. If that is this studio's own "
                    "name, start it with --allowed_hosts=NAME.",
                    403,
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_own(self, origin: str, host: str) -> bool:
        name = _hostname(origin)
        if name is None:  # As of a page in a sandbox, "null".
            return False
        if "*" in self._names:
            return name == _hostname(f"//{host}")
        return any(
            name == allowed.strip("[]") or allowed[0] == "*" and name.endswith(allowed[1:])
            for allowed in self._names
        )


class Sizes:
    """Refuses bodies that are too large or too many, before they are stored where that is known.

    To Gradio's reader of forms an upload that is broken off, or too large, looks like one in a form
    that it cannot read: then it removes the files that it has begun.
    """

    def __init__(self, app: ASGIApp, folder: StudioFolder) -> None:
        """Takes where bodies of forms are stored."""
        self._app, self._folder = app, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").startswith("multipart/form-data")
        limit = self._folder.limits.file_bytes + _FORM_BYTES if is_form else _CALL_BYTES
        client = scope["client"][0] if scope.get("client") else ""
        announced = headers.get("content-length", "")
        num_announced = int(announced) if announced.isdecimal() else 0
        try:
            if num_announced > limit:
                raise _too_large(limit)
            if is_form:
                self._folder.take(client, 0)
                self._folder.check_room(num_announced)
        except NoRoomError as error:
            await _drain(receive, limit)
            await PlainTextResponse(str(error), error.status)(scope, receive, send)
            return

        num_bytes, is_complete = 0, False

        async def receive_some() -> Message:
            nonlocal num_bytes, is_complete
            message = await receive()
            if message["type"] == "http.disconnect" and not is_complete and is_form:
                raise MultiPartException("The upload was broken off.")
            if message["type"] != "http.request":
                return message
            num_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            try:
                if num_bytes > limit:
                    raise _too_large(limit)
                if is_form:
                    self._folder.take(client, len(message.get("body", b"")))
            except NoRoomError as error:
                if is_form:
                    raise MultiPartException(str(error)) from error
                raise HTTPException(error.status, str(error)) from error
            return message

        await self._app(scope, receive_some, send)


def _too_large(limit: int) -> NoRoomError:
    # In words by which Gradio knows that its answer is to be 413.
    return NoRoomError(
        413, f"The request exceeds the maximum allowed size of {limit / 2**20:.1f} MB."
    )


async def _drain(receive: Receive, num_bytes: int) -> None:
    """Reads on for a while: a client that is still sending does not look for an answer."""
    while num_bytes > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        num_bytes -= len(message.get("body", b""))


def _hostname(url: str) -> str | None:
    try:
        return urllib.parse.urlsplit(url).hostname
    except ValueError:
        return None
