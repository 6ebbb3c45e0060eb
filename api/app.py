"""The HTTP application: every request goes through the same gates, in the same order.

route · key · scope · rate limit · version · Accept · parameters · idempotency · the handler
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any, Final

import structlog
from flask import Flask, Response, g, request
from flask_cors import CORS
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import PathConverter

from api import auth, idempotent, metrics, openapi, pages, receipt_pages
from api.async_family import routes as async_family
from api.async_family.errors import in_our_words
from api.audit import routes as audit
from api.bodies import MAX_BODY_BYTES, read_body, read_query, too_large
from api.crowds import SHARE_OF_COMMANDS, SHARE_OF_READS, Crowd, share
from api.errors import (
    ApiError,
    Words,
    from_refusal,
    in_progress,
    internal,
    invalid,
    not_found,
    unavailable,
)
from api.fields import Strict, validated
from api.gateway import routes as gateway
from api.http import API_VERSION, JSON, Answer, Call, Route, error_answer, json_answer
from api.payments import routes as payments
from api.stripe_dialect import OWN, STRIPE, dialect_of, should_retry
from api.versions import VERSIONS, Version, spoken
from domain.errors import ConcurrentChange, DomainError, LeaseLost, StoreUnavailable
from domain.ids import Prefix, encode
from domain.ledger import Reply
from domain.payment import rfc3339
from infrastructure.api_keys import ApiKey
from infrastructure.database import UNAVAILABLE
from infrastructure.fault_points import reached
from infrastructure.projections.reading import ModelBehind
from infrastructure.services import Services

ROUTES: Final = (*gateway.ROUTES, *payments.ROUTES, *audit.ROUTES, *async_family.ROUTES)
# Families that tell errors in words of their own, whoever asks, by the first part of their paths.
WORDS: Final[Mapping[str, Words]] = dict.fromkeys(async_family.MOUNTED_AT, in_our_words)

# A few threads are kept from those that wait for the bank, so that reads are always served.
RESERVED_THREADS: Final = 16
IDEMPOTENCY_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}\Z")
LONGEST_USER_AGENT: Final = 200
KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
EXPOSED_HEADERS: Final = (
    "Request-Id",
    "X-API-Version",
    "Stripe-Version",
    "Idempotency-Key",
    "Idempotent-Replayed",
    "Location",
    "Retry-After",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
)

log = structlog.get_logger("api")


def create_app(
    services: Services,
    *,
    threads: int,
    routes: Iterable[Route] = ROUTES,
    versions: Sequence[Version] = VERSIONS,
) -> Flask:
    """The WSGI application. `threads`: how many requests the server works on at once."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1  # what is cut off is seen to be too long
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # nothing redirects
    app.url_map.converters["any_text"] = _AnyText
    gate = _Gate(services, threads, versions)
    for route in routes:
        endpoint = f"{route.method} {route.path}"
        app.add_url_rule(route.path, endpoint, partial(gate.serve, route), methods=[route.method])
    _add_public_routes(app, services, list(routes))
    app.before_request(partial(_begin, services))
    app.after_request(partial(_finish, services))
    app.register_error_handler(Exception, _answer_exception)
    if services.settings.trusted_proxies > 0:  # else the header is anybody's to write
        _ask_proxies(app, services.settings.trusted_proxies)
    CORS(app, origins=list(services.settings.cors_origins), expose_headers=EXPOSED_HEADERS)
    return app


def _ask_proxies(app: Flask, proxies: int) -> None:
    """Whose address a request is from: what the last `proxies` have said of it in X-Forwarded-For."""
    behind = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=0, x_host=0)
    app.wsgi_app = behind  # type: ignore[method-assign]


class _AnyText(PathConverter):
    """The rest of a path: the client's own id, which may begin with a slash."""

    part_isolating = False
    regex = ".+"


class _Gate:
    """What every request to a published route goes through."""

    def __init__(self, services: Services, threads: int, versions: Sequence[Version]) -> None:
        self._services, self._versions = services, versions
        waiting = max(1, threads - RESERVED_THREADS)
        self._waiting = threading.BoundedSemaphore(waiting)
        self._readers = Crowd(share(threads, SHARE_OF_READS))
        self._commanders = Crowd(share(waiting, SHARE_OF_COMMANDS))

    def serve(self, route: Route, **path_parts: str) -> Response:
        """Answers one request. Raises ApiError and DomainError."""
        services = self._services
        key = auth.authenticate(request, services)
        g.key_prefix = key.prefix
        g.allowance = auth.limit(key, route, services)
        auth.authorize(key, route)
        g.version = spoken(self._versions, request.headers.get("X-API-Version"))
        _check_accept(route)
        call = Call(
            services=services,
            request_id=g.request_id,
            key=key,
            dialect=g.dialect,
            deadline=g.started_at + services.settings.request_deadline_seconds,
            path=request.path,
        )
        serve = self._command if route.is_command else self._read
        with self._one_of_the_keys(key, route):
            return _response(g.version.told(route, serve(route, call, path_parts)))

    def _read(self, route: Route, call: Call, path_parts: dict[str, str]) -> Answer:
        query = _query(route, g.version.understood(route, read_query(request)))
        call.expand = expanded(query)
        answer: Answer = route.handler(call, query, **path_parts)
        return answer

    def _command(self, route: Route, call: Call, path_parts: dict[str, str]) -> Answer:
        call.query = _query(route, read_query(request))
        call.idempotency_key = _idempotency_key(required=route.needs_idempotency_key)
        value, is_text = read_body(request, route.body_types)
        value = g.version.understood(route, value)
        model = route.body
        assert model is not None

        def ask() -> Reply:
            body = validated(model, value, is_text=is_text)
            call.expand = expanded(body)
            reply: Reply = route.handler(call, body, **path_parts)
            return reply

        with self._one_of_those_that_wait():
            answer = idempotent.once(call, route.method, value, ask, route.pending)
        if "Idempotent-Replayed" in answer.headers:
            metrics.REPLAYS.labels(route.path).inc()
        return answer

    def _one_of_the_keys(self, key: ApiKey, route: Route) -> AbstractContextManager[None]:
        """Room for one more request of this key's."""
        if self._services.settings.rate_limit_per_minute == 0:
            return nullcontext()
        return (self._commanders if route.is_command else self._readers).one_more(key.key_id)

    @contextmanager
    def _one_of_those_that_wait(self) -> Iterator[None]:
        """Room for one more to wait for the bank; where there is none, nothing is begun."""
        if not self._waiting.acquire(blocking=False):
            raise unavailable("Too many requests wait for the bank. Ask again in a moment.")
        try:
            yield
        finally:
            self._waiting.release()


# --- before: who, and what is wanted -----------------------------------------------------------


def _begin(services: Services) -> None:
    g.started_at = services.clock.monotonic()
    g.request_id = encode(Prefix.REQUEST, services.ids.new())
    g.dialect = dialect_of(request.headers.get("Stripe-Version"))
    g.key_prefix = g.allowance = g.version = None
    reached("request.received")


def _check_accept(route: Route) -> None:
    """Raises ApiError for a client that takes nothing of what the route answers; its errors are JSON."""
    accepted, kind = request.accept_mimetypes, route.media_type
    named = any(quality and each.startswith(f"{kind};") for each, quality in accepted)
    if accepted and not accepted[kind] and not accepted[JSON] and not named:
        raise invalid("not_acceptable", f"Only {kind} is answered.", status=406)


def _idempotency_key(*, required: bool) -> str | None:
    """The key, checked; None where there is none and none is needed. Raises ApiError."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        if required:
            raise invalid(
                "missing_idempotency_key",
                "This request needs an Idempotency-Key header.",
                "Idempotency-Key",
            )
        return None
    if not IDEMPOTENCY_KEY.match(key) or not key.strip():
        raise invalid(
            "invalid_param",
            "An Idempotency-Key is 1 to 255 printable ASCII characters.",
            "Idempotency-Key",
        )
    return key


def _query(route: Route, value: dict[str, Any]) -> Any:
    """The query by the route's model; a route without one takes no parameters."""
    if route.query is None:
        validated(_NoParameters, value, is_text=True)
        return None
    return validated(route.query, value, is_text=True)


def expanded(parameters: Any) -> tuple[str, ...]:
    """Which references are to be answered as the things themselves."""
    return tuple(getattr(parameters, "expand", ()))


class _NoParameters(Strict):
    """No query parameters at all."""


# --- after: headers, and one line in the log ---------------------------------------------------


def _response(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status, content_type=answer.media_type)
    response.headers.update(answer.headers)
    return response


def _finish(services: Services, response: Response) -> Response:
    response.headers["Request-Id"] = g.request_id
    response.headers["X-API-Version"] = API_VERSION if g.version is None else g.version.name
    response.headers["X-Content-Type-Options"] = "nosniff"
    if g.dialect == STRIPE:
        response.headers["Stripe-Version"] = _echo("Stripe-Version")
    if "Idempotency-Key" in request.headers:
        response.headers["Idempotency-Key"] = _echo("Idempotency-Key")
    if g.allowance is not None:
        response.headers.update(auth.allowance_headers(g.allowance))
    if response.content_type == "application/json":
        response.headers["Cache-Control"] = "no-store"
    if response.status_code >= 400:  # an outcome that was kept, such as a decline
        response.headers.setdefault("Stripe-Should-Retry", "false")
    _log(response, services.clock.monotonic() - g.started_at)
    reached("answer.written")
    return response


def _echo(name: str) -> str:
    """What was sent, as far as it may be sent back in a header."""
    return re.sub(r"[^\x20-\x7e]", "?", request.headers[name])[:255]


def _log(response: Response, seconds: float) -> None:
    status = response.status_code
    write = log.error if status >= 500 else log.warning if status >= 400 else log.info
    write(
        "request",
        method=request.method,
        path=request.path,
        status_code=status,
        processing_time_ms=round(seconds * 1000, 2),
        user_agent=(request.user_agent.string or "")[:LONGEST_USER_AGENT] or None,
        api_key_prefix=g.key_prefix,
        request_id=g.request_id,
    )
    rule = "none" if request.url_rule is None else openapi.published(request.url_rule.rule)
    method = request.method if request.method in KNOWN_METHODS else "other"
    metrics.REQUESTS.labels(method, rule, str(status)).inc()
    metrics.SECONDS.labels(method, rule).observe(seconds)


# --- what goes wrong ---------------------------------------------------------------------------


def _answer_exception(error: Exception) -> Response:
    told, dialect = _api_error(error), g.dialect
    if request.path.startswith(receipt_pages.PATH):  # people read it
        return _response(receipt_pages.trouble(told.status))
    words = WORDS.get(request.path.split("/", 2)[1])
    if words is not None:
        told, dialect = words(told), OWN
    response = _response(error_answer(told, dialect, g.request_id))
    response.headers["Stripe-Should-Retry"] = should_retry(told)
    return response


def _api_error(error: Exception) -> ApiError:  # noqa: PLR0911 - one return a kind of failure
    """What a failure is called outside. Bugs are logged whole, and told as one sentence."""
    if isinstance(error, UNAVAILABLE):
        error = StoreUnavailable(type(error).__name__)
    match error:
        case ApiError():
            return error
        case DomainError():
            return from_refusal(error)
        case HTTPException():
            return _http_error(error)
        case ModelBehind():
            return unavailable("What is asked for is not up to date yet. Ask again in a moment.")
        case StoreUnavailable():
            log.error("the database is out of reach", error=str(error))
            return unavailable("The database is out of reach. Ask again with the same key.")
        case LeaseLost():
            return in_progress()
        case ConcurrentChange():
            return unavailable("The payment is changing too fast. Ask again with the same key.")
        case _:
            log.error("a bug", exc_info=error, request_id=g.request_id)
            return internal()


def _http_error(error: HTTPException) -> ApiError:
    """Flask's own refusals, in our shape."""
    match error.code:
        case 404:
            return not_found("route_not_found", "There is no such route.")
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
            return ApiError(
                status=405,
                type="invalid_request_error",
                code="method_not_allowed",
                message="The route does not take this method.",
                headers={"Allow": allowed},
            )
        case 413:
            return too_large()
        case code:
            return invalid("invalid_request", "The request is malformed.", status=code or 400)


# --- routes that need no key -------------------------------------------------------------------


def _add_public_routes(app: Flask, services: Services, routes: list[Route]) -> None:
    @cache
    def document() -> Answer:
        """Written when it is first asked for, which takes longer than all else here."""
        public_url = services.settings.public_url
        return json_answer(200, openapi.document(routes, public_url, payments.TOLD))

    def health() -> Response:
        with services.pool.connection() as connection:
            connection.execute("SELECT 1")
        body = {
            "status": "ok",
            "version": API_VERSION,
            "timestamp": rfc3339(services.clock.now()),
        }
        return _response(json_answer(200, body))

    def docs_asset(name: str) -> Response:
        asset = pages.docs_asset(name)
        if asset is None:
            raise not_found("route_not_found", "There is no such page.")
        return _response(asset)

    def receipt_page(payment_id: str) -> Response:
        token = request.args.get("t", "")
        return _response(receipt_pages.page(services, payment_id, token))

    public: dict[str, Callable[..., Response]] = {
        f"{receipt_pages.PATH}<payment_id>": receipt_page,
        "/v1/health": health,
        "/health": health,
        "/metrics": lambda: _response(metrics.metrics(services.pool)),
        "/openapi.json": lambda: _response(document()),
        "/docs": lambda: _response(pages.docs()),
        "/docs/<name>": docs_asset,
    }
    for path, view in public.items():
        app.add_url_rule(path, f"GET {path}", view, methods=["GET"])
