"""The labelling page over HTTP, on loopback alone: routes, the token in the address, and what a browser may load.

A link holds a random token; with named experts each has their own, and answers only as themselves. A request that was
sent to another host name (DNS rebinding) or from another page is refused. Nothing of a row is ever logged.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from quality_judge.errors import InputError, QualityJudgeError
from quality_judge.labelling.page import asset, render_page
from quality_judge.labelling.session import Session, checked_name
from quality_judge.programme import frames, tell

HOST = "127.0.0.1"
MOST_BYTES = 65_536
MOST_NOTE = 2_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
}  # fmt: skip
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Invitations:
    """The tokens that open the page, each with the expert it belongs to, or None for whoever gives a name."""

    names: Mapping[str, str | None]

    @classmethod
    def to(cls, annotators: Sequence[str] = ()) -> Invitations:
        """A new token for each expert, or one for everybody."""
        names: list[str | None] = [checked_name(name) for name in annotators]
        if len(set(names)) < len(names):
            raise InputError("two experts have the same name; give each their own")
        return cls({secrets.token_urlsafe(24): name for name in names or [None]})

    def find(self, token: str) -> str | None:
        """Whose token it is, None for everybody's. Raises HTTPException 404 for an unknown one."""
        known = [own for own in self.names if hmac.compare_digest(own.encode(), token.encode("utf-8", "replace"))]
        if not known:
            raise HTTPException(404)
        return self.names[known[0]]


def create_app(session: Session, invitations: Invitations, *, port: int, language: str | None = None) -> FastAPI:
    """The application. port: that of the address, which every request must name. language: en or zh, else asked for."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}

    @app.middleware("http")
    async def guard(request: Request, call_next: Handler) -> Response:
        origin = request.headers.get("origin")
        if request.headers.get("host") not in hosts or origin not in (None, *(f"http://{host}" for host in hosts)):
            return Response("refused: open the address exactly as it was printed\n", 403)
        if not request.headers.get("content-length", "0").isdigit() or "transfer-encoding" in request.headers:
            return Response(status_code=411)
        if int(request.headers.get("content-length", "0")) > MOST_BYTES:
            return Response(status_code=413)
        try:
            response = await call_next(request)
        except Exception as error:  # its message may quote a row; where it was raised does not
            tell(f"error: {type(error).__name__} at {(frames(error) or ['?'])[-1]}; the answer was not kept")
            response = JSONResponse({"error": type(error).__name__}, 500)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(QualityJudgeError)
    def refuse(request: Request, error: QualityJudgeError) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    @app.get("/{token}/")
    def page(token: str, request: Request, lang: str | None = None) -> Response:
        annotator = invitations.find(token)
        chosen = lang or language or preferred(request.headers.get("accept-language", ""))
        return HTMLResponse(render_page(session.mode, session.rubric, annotator=annotator, language=chosen))

    @app.get("/{token}/{name}")
    def file(token: str, name: str) -> Response:
        invitations.find(token)
        found = asset(name)
        if found is None:
            raise HTTPException(404)
        return Response(found[0], media_type=found[1])

    @app.post("/{token}/{action}")
    async def act(token: str, action: str, request: Request) -> Response:
        owner, said = invitations.find(token), _body(await request.body())
        return JSONResponse(await _in_thread(acted, session, action, said, owner))

    return app


def acted(session: Session, action: str, said: Mapping[str, Any], owner: str | None) -> dict[str, Any]:
    """What `next`, `answer` or `undo` gives. owner: the expert of the link, who alone may answer through it."""
    annotator = owner or checked_name(_text(said, "annotator", 200))
    if action == "next":
        return session.next(annotator)
    if action == "undo":
        return session.undo(annotator)
    if action != "answer":
        raise HTTPException(404)
    seconds = said.get("seconds")
    timed = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < 1e6
    return session.answer(
        annotator, _text(said, "key", 64), said.get("answer"), note=_text(said, "note", MOST_NOTE).strip(),
        seconds=round(float(seconds), 1) if timed and seconds is not None else None,
    )  # fmt: skip


def serve(session: Session, invitations: Invitations, listening: socket.socket, *, language: str | None = None) -> None:
    """Serves until it is interrupted. listening: as `listen` gave it."""
    app = create_app(session, invitations, port=listening.getsockname()[1], language=language)
    config = uvicorn.Config(app, log_level="critical", access_log=False, server_header=False, lifespan="off")
    with suppress(KeyboardInterrupt):  # which is how it is meant to end
        uvicorn.Server(config).run(sockets=[listening])


def listen(port: int) -> socket.socket:
    """A socket on loopback; port 0 takes a free one. Raises InputError when the port is taken."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # a browser that comes before the server is ready waits
    except OSError as error:
        listening.close()
        raise InputError(f"port {port} cannot be used ({error.strerror}); give another --port, or 0 for any") from None
    return listening


def preferred(accepted: str) -> str:
    """zh when the browser puts Chinese before English, else en."""
    languages = [part.split(";")[0].strip().lower()[:2] for part in accepted.split(",")]
    return next((name for name in languages if name in ("en", "zh")), "en")


async def _in_thread(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    from fastapi.concurrency import run_in_threadpool

    return await run_in_threadpool(function, *arguments)


def _body(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise InputError("the request holds no JSON object")
    return said


def _text(said: Mapping[str, Any], name: str, most: int) -> str:
    value = said.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise InputError(f"{name} is not text of at most {most} characters")
    return value
