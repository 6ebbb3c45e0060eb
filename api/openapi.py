"""The OpenAPI 3.1 document, made from the routes and their models, so that it says what is true."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.http import API_VERSION, JSON, Route
from api.schemas import ErrorOut, HealthOut
from api.versions import VERSIONS
from infrastructure.webhooks.signatures import SIGNATURE_HEADERS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
REFERENCE: Final = "#/components/schemas/{model}"

# Which errors a route may answer, beside those of its own.
ERRORS: Final[Mapping[int, str]] = {
    400: "The request is wrong; `param` names the field.",
    401: "No API key, or one that is no good.",
    402: "The card was declined.",
    403: "The key may not do this.",
    404: "There is no such thing for this key.",
    405: "The route does not take this method.",
    406: "Only JSON is answered.",
    409: "The state does not allow it, or the idempotency key is another request's.",
    413: "The body is too large.",
    415: "The body is neither JSON nor a form.",
    429: "Too many requests.",
    500: "Something went wrong on our side.",
    502: "The bank did not understand our request.",
    503: "It cannot be done now; nothing was begun. Ask again after `Retry-After`. "
    "`bank_unavailable`: the bank is down, so no new authorization is begun with it.",
}
COMMANDS_ONLY: Final = frozenset({402, 409, 413, 415, 502})

TEXT: Final = {"type": "string"}
HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "201": ("Location",),
    "202": ("Location", "Retry-After"),
    "425": ("Retry-After",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}

SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "An API key as the user name, and no password.",
    },
}
DESCRIPTION: Final = """\
An event-sourced payment ledger with a gateway in front.

* Money is a whole number of minor units and an ISO 4217 currency.
* Bodies are JSON or forms in bracket notation (`card[number]=…`).
* Every POST takes an `Idempotency-Key`: the same request gets the first answer again, byte for byte.
  Authorizations, captures and voids need one. A refund without one is another refund each time.
* The routes without a version prefix are the asynchronous interface: JSON only, an `Idempotency-Key` with every
  POST and PATCH, errors of its own types. A confirmation is settled in the background.
* A 503 `bank_unavailable` means that the bank is down: no authorization was begun and no key was used.
  Captures, voids and refunds are taken all the same, and finished when the bank is back.
* A 202 means that the bank has not answered yet: ask again with the same key, or look at `Location`.
"""


def document(
    routes: Iterable[Route], public_url: str, told: Mapping[str, type[BaseModel]]
) -> dict[str, Any]:
    """The document for these routes. `told`: what is posted to webhook endpoints, by type of event."""
    routes = list(routes)
    models = {model for route in routes for model in route.answers.values()}
    models |= {model for route in routes if (model := route.body) is not None}
    models |= {ErrorOut, HealthOut, *told.values()}
    in_order = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema(
        [(model, "validation") for model in in_order], ref_template=REFERENCE
    )
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(published(route.path), {})[route.method.lower()] = _operation(route)
    paths["/v1/health"] = {"get": _health("health")}
    paths["/health"] = {"get": _health("async_health")}
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "Counterfoil",
            "version": API_VERSION,
            "description": DESCRIPTION,
        },
        "servers": [{"url": "/"}, {"url": public_url}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "webhooks": {kind: {"post": _told(kind, model)} for kind, model in told.items()},
        "components": {"schemas": definitions["$defs"], "securitySchemes": SECURITY},
    }


def published(path: str) -> str:
    """A path in OpenAPI's notation, from Flask's."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name or route.handler.__name__,
        "summary": route.summary,
        "tags": [route.family],
        "description": "Scope: " + " or ".join(f"`{scope}`" for scope in route.scopes) + ".",
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_headers(route)],
        "responses": _responses(route),
    }
    if route.body is not None:
        schema = {"$ref": REFERENCE.format(model=route.body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": schema} for kind in route.body_types},
        }
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"<(?:\w+:)?(\w+)>", route.path)
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    """Each field of the query's model; a nested one in bracket notation, as `created[gte]`."""
    if route.query is None:
        return []
    schema = route.query.model_json_schema(ref_template="{model}")
    definitions = schema.get("$defs", {})
    parameters = []
    for name, field in schema["properties"].items():
        inner = definitions.get(field.get("$ref"), {}).get("properties")
        fields = {f"{name}[{key}]": value for key, value in inner.items()} if inner else None
        for full_name, value in (fields or {name: field}).items():
            said = _description(value)
            parameters.append(
                {
                    "name": full_name,
                    "in": "query",
                    **({"description": said} if said else {}),
                    "schema": _plain(value, definitions),
                }
            )
    return parameters


def _description(field: dict[str, Any]) -> str | None:
    """What its own declaration says of a parameter."""
    said = [each.get("description") for each in (field, *field.get("anyOf", []))]
    return next(filter(None, said), None)


def _plain(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema: it may be left out, but it is never null, and refers to nothing."""
    options = [o for o in field.get("anyOf", [field]) if o.get("type") != "null"]
    chosen = options[0]
    chosen = definitions.get(chosen.get("$ref"), chosen)
    unwanted = {"title", "default", "description"}
    return {name: value for name, value in chosen.items() if name not in unwanted}


def _headers(route: Route) -> list[dict[str, Any]]:
    version = {
        "name": "X-API-Version",
        "in": "header",
        "schema": {"type": "string", "enum": [version.name for version in VERSIONS]},
    }
    if not route.is_command:
        return [version]
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": route.needs_idempotency_key,
        "schema": {"type": "string", "pattern": r"^[\x20-\x7e]{1,255}$"},
    }
    return [key, version]


def _responses(route: Route) -> dict[str, Any]:
    responses = {
        str(status): _response(_meaning(status), model, route.media_type)
        for status, model in route.answers.items()
    }
    for status, meaning in (route.errors or ERRORS).items():
        if route.is_command or status not in COMMANDS_ONLY:
            responses[str(status)] = _response(meaning, ErrorOut)
    for code, names in HEADERS.items():
        if code in responses:
            responses[code]["headers"] = {name: {"schema": TEXT} for name in names}
    return responses


def _meaning(status: int) -> str:
    return {
        200: "As asked.",
        204: "Done, and nothing is left to tell.",
        201: "Done.",
        202: "Begun; the bank has not answered yet. See `Location` and `Retry-After`.",
        425: "Nothing came of it yet: ask again.",
    }[status]


def _response(description: str, model: type[BaseModel], media_type: str = JSON) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _told(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    """What a receiver is sent, and how it says that it has it."""
    of_standard_webhooks = ("webhook-id", "webhook-timestamp", "webhook-signature")
    names = (*SIGNATURE_HEADERS, *of_standard_webhooks)
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    return {
        "operationId": f"told_{kind.replace('.', '_')}",
        "summary": f"`{kind}`",
        "tags": ["webhooks"],
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": TEXT} for name in names
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "2XX": {"description": "Received. Anything else, and no answer, is tried again."}
        },
    }


def _health(name: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": "Is the service up?",
        "tags": ["service"],
        "security": [],
        "responses": {
            "200": _response("It is.", HealthOut),
            "503": _response("The database is out of reach.", ErrorOut),
        },
    }
