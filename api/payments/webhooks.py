"""Webhook endpoints, and what was delivered to them.

An answer that shows a secret is kept encrypted under its idempotency key, as the secret itself is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from api.errors import invalid
from api.http import API_VERSION, Answer, Call, json_answer, routes_of
from api.idempotent import sealed
from api.lists import asked_page, told_page
from api.payments import objects
from api.payments.commands import set_in
from api.payments.events import DELIVERIES, event_row, told, wait_for_events
from api.payments.expand import expanded
from api.payments.inputs import (
    DeliveriesQuery,
    EndpointChange,
    EndpointInput,
    ExpandQuery,
    ListQuery,
    NothingInput,
    ResendInput,
    RotationInput,
    missing,
    uuid_of,
)
from api.payments.reading import Reader
from api.payments.schemas import (
    DeliveryList,
    EndpointList,
    EndpointOut,
    EndpointWithSecretOut,
    EventOut,
)
from api.stripe_dialect import STRIPE, tells_what_was_deleted
from domain.commands import Mode
from domain.errors import WebhookEndpointDisabled
from domain.ids import Prefix, encode
from domain.ledger import Settled
from domain.records import ClaimKey, StoredAnswer, claimed_by
from infrastructure.api_keys import Scope
from infrastructure.webhooks.endpoints import BY_MERCHANT, Endpoint
from infrastructure.webhooks.queue import DeliveryQueue
from infrastructure.webhooks.signatures import new_secret
from infrastructure.webhooks.urls import UrlRefused, checked
from projections.pages import Page

FAMILY: Final = "payments"
ANY_VERSION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(\.[a-z]{1,20})?\Z")

Document = dict[str, Any]


def create(call: Call, body: EndpointInput) -> Settled:
    """Somewhere to be told of events. The secret is shown here, and never again."""
    services, at = call.services, call.services.clock.now()
    endpoint = Endpoint(
        id=services.ids.new(),
        tenant=call.tenant,
        url=_url(call, body.url),
        enabled_events=body.wanted(),
        api_version=_version(call, body.api_version),
        description=body.description,
        metadata=dict(body.metadata),
        disabled_reason=None,
        created_at=at,
        updated_at=at,
    )
    secret = new_secret()
    answer = _stored(call, 201, {**shown(endpoint), "secret": secret})
    services.webhook_endpoints.create(
        endpoint, secret, lambda made: _claims(call, made.id, sealed(call, answer))
    )
    return Settled(answer=answer, history=())


def update(call: Call, body: EndpointChange, *, endpoint_id: str) -> Settled:
    """What is given is changed, and nothing else."""
    url = None if body.url is None else _url(call, body.url)

    def decide(before: Endpoint) -> Endpoint:
        given: dict[str, Any] = {"url": url, "enabled_events": body.wanted()}
        after = replace(before, **{name: value for name, value in given.items() if value})
        if "description" in body.model_fields_set:
            after = replace(after, description=body.description)
        if body.disabled is not None:
            reason = (before.disabled_reason or BY_MERCHANT) if body.disabled else None
            after = replace(after, disabled_reason=reason)
        metadata = set_in(before.metadata, body.metadata)
        return replace(after, metadata=metadata, updated_at=call.services.clock.now())

    def claims(changed: Endpoint) -> Sequence[ClaimKey]:
        return _claims(call, changed.id, _stored(call, 200, shown(changed)))

    uuid = uuid_of(Prefix.WEBHOOK_ENDPOINT, endpoint_id)
    changed = call.services.webhook_endpoints.change(call.tenant, uuid, decide, claims)
    return Settled(answer=_stored(call, 200, shown(changed)), history=())


def rotate_secret(call: Call, body: RotationInput, *, endpoint_id: str) -> Settled:
    """A new secret, shown here and never again; the old one signs beside it for a while."""

    def answer(endpoint: Endpoint, secret: str) -> StoredAnswer:
        return _stored(call, 200, {**shown(endpoint), "secret": secret})

    def claims(endpoint: Endpoint, secret: str) -> Sequence[ClaimKey]:
        return _claims(call, endpoint.id, sealed(call, answer(endpoint, secret)))

    uuid = uuid_of(Prefix.WEBHOOK_ENDPOINT, endpoint_id)
    endpoints = call.services.webhook_endpoints
    rotated = endpoints.rotate(call.tenant, uuid, body.expires_in, claims)
    return Settled(answer=answer(*rotated), history=())


def delete(call: Call, _body: NothingInput, *, endpoint_id: str) -> Settled:
    """Nothing is sent there any more."""
    is_told = tells_what_was_deleted(call.dialect)
    gone = objects.deleted("webhook_endpoint", endpoint_id)
    answer = _stored(call, 200, gone) if is_told else Answer(status=204, body=b"").stored()
    call.services.webhook_endpoints.delete(
        call.tenant,
        uuid_of(Prefix.WEBHOOK_ENDPOINT, endpoint_id),
        lambda endpoint: _claims(call, endpoint.id, answer),
    )
    return Settled(answer=answer, history=())


def get(call: Call, query: ExpandQuery, *, endpoint_id: str) -> Answer:
    """One endpoint."""
    found = shown(_found(call, endpoint_id))
    return json_answer(200, expanded(found, query.expand, Reader(call.services, call.tenant)))


def list_endpoints(call: Call, query: ListQuery) -> Answer:
    """Endpoints, newest first."""

    def cursor(text: str, param: str) -> UUID:
        return _found(call, text, param).id

    page = asked_page(query, {}, cursor)
    endpoints, has_more = call.services.webhook_endpoints.page(call.tenant, page)
    body = told_page(
        [shown(each) for each in endpoints],
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, Reader(call.services, call.tenant)))


def list_deliveries(call: Call, query: DeliveriesQuery, *, endpoint_id: str) -> Answer:
    """What was delivered to an endpoint or is still to be, newest first."""
    endpoint = _found(call, endpoint_id)
    wait_for_events(call)
    event = None if query.event is None else uuid_of(Prefix.EVENT, query.event, "event")

    def cursor(text: str, param: str) -> UUID:
        uuid = uuid_of(Prefix.WEBHOOK_DELIVERY, text, param)
        one = Page(limit=1, filters={"endpoint_id": endpoint.id, "id": uuid})
        with call.services.pool.connection() as connection:
            if not DELIVERIES.page(connection, call.tenant, one)[0]:
                raise missing(Prefix.WEBHOOK_DELIVERY, param)
        return uuid

    wanted = {"endpoint_id": endpoint.id, "event_id": event, "status": query.status}
    page = asked_page(query, wanted, cursor)
    with call.services.pool.connection() as connection:
        rows, has_more = DELIVERIES.page(connection, call.tenant, page)
    body = told_page(
        [shown_delivery(row) for row in rows],
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, Reader(call.services, call.tenant)))


def resend_event(call: Call, body: ResendInput, *, event_id: str) -> Settled:
    """Delivers an event again: to one endpoint, or to all that want it."""
    wait_for_events(call)
    row = event_row(call, uuid_of(Prefix.EVENT, event_id))
    endpoint_id = None
    if body.webhook_endpoint is not None:
        endpoint = _found(call, body.webhook_endpoint, "webhook_endpoint")
        if not endpoint.is_enabled:
            raise WebhookEndpointDisabled(
                "The webhook endpoint is disabled.", param="webhook_endpoint"
            )
        endpoint_id = endpoint.id
    (event,) = told(call.services, call.tenant, [row])

    def answer(pending: int) -> StoredAnswer:
        return _stored(call, 200, {**event, "pending_webhooks": pending})

    event_of_tenant = {
        **row,
        "merchant_id": call.tenant.merchant_id,
        "mode": call.tenant.mode.value,
    }
    pending = DeliveryQueue(call.services.pool).send_again(
        event_of_tenant,
        endpoint_id,
        lambda pending: _claims(call, row["aggregate_id"], answer(pending)),
    )
    return Settled(answer=answer(pending), history=())


# --- what is shown ------------------------------------------------------------------------------


def shown(endpoint: Endpoint) -> Document:
    """An endpoint as it is published. `disabled_reason`: `requested` by the merchant, or `unreachable`:
    it answered nothing well for days."""
    return {
        "id": encode(Prefix.WEBHOOK_ENDPOINT, endpoint.id),
        "object": "webhook_endpoint",
        "api_version": endpoint.api_version,
        "application": None,
        "created": int(endpoint.created_at.timestamp()),
        "updated": int(endpoint.updated_at.timestamp()),
        "description": endpoint.description,
        "disabled_reason": endpoint.disabled_reason,
        "enabled_events": list(endpoint.enabled_events),
        "livemode": endpoint.tenant.mode is Mode.LIVE,
        "metadata": dict(endpoint.metadata),
        "status": "enabled" if endpoint.is_enabled else "disabled",
        "url": endpoint.url,
    }


def shown_delivery(row: Mapping[str, Any]) -> Document:
    """A delivery as it is published: how it stands, its last attempt, and those that are kept."""
    last = row["tries"][-1] if row["tries"] else {}
    is_pending = row["status"] == "pending"
    return {
        "id": encode(Prefix.WEBHOOK_DELIVERY, row["id"]),
        "object": "webhook_delivery",
        "event": encode(Prefix.EVENT, row["event_id"]),
        "type": row["type"],
        "webhook_endpoint": encode(Prefix.WEBHOOK_ENDPOINT, row["endpoint_id"]),
        "status": row["status"],
        "created": int(row["created_at"].timestamp()),
        "next_attempt_at": int(row["due_at"].timestamp()) if is_pending else None,
        "attempts": row["attempts"],
        "status_code": last.get("status_code"),
        "duration_ms": last.get("duration_ms"),
        "error": last.get("error"),
        "response": last.get("response"),
        "history": row["tries"],
    }


# --- what they have in common -------------------------------------------------------------------


def _found(call: Call, public_id: str, param: str | None = None) -> Endpoint:
    uuid = uuid_of(Prefix.WEBHOOK_ENDPOINT, public_id, param)
    endpoint = call.services.webhook_endpoints.get(call.tenant, uuid)
    if endpoint is None:
        raise missing(Prefix.WEBHOOK_ENDPOINT, param)
    return endpoint


def _url(call: Call, url: str) -> str:
    try:
        return checked(url, allows_local=not call.services.settings.is_production)
    except UrlRefused as refused:
        raise invalid("invalid_param", f"url {refused}.", "url") from refused


def _version(call: Call, version: str | None) -> str | None:
    """Ours, or one of Stripe's for who speaks as Stripe's clients do: their packages compare it."""
    is_known = version == API_VERSION or (
        call.dialect == STRIPE and version is not None and ANY_VERSION.match(version)
    )
    if version is not None and not is_known:
        raise invalid("invalid_param", f"api_version must be {API_VERSION}.", "api_version")
    return version


def _stored(call: Call, status: int, body: Document) -> StoredAnswer:
    whole = expanded(dict(body), call.expand, Reader(call.services, call.tenant))
    return json_answer(status, whole).stored()


def _claims(call: Call, about: UUID, answer: StoredAnswer) -> Sequence[ClaimKey]:
    return claimed_by(call.claim, call.cause, about, answer)


_route = routes_of(FAMILY, reads=Scope.WEBHOOKS_READ, writes=Scope.WEBHOOKS_WRITE)
ENDPOINTS: Final = "/v1/webhook_endpoints"
ENDPOINT: Final = f"{ENDPOINTS}/<endpoint_id>"
ROUTES: Final = (
    _route(
        "POST",
        ENDPOINTS,
        create,
        "Create a webhook endpoint; its secret is shown once",
        name="create_webhook_endpoint",
        body=EndpointInput,
        answers={201: EndpointWithSecretOut},
    ),
    *(
        _route(
            method,
            ENDPOINT,
            update,
            "Change a webhook endpoint",
            name=f"{'update' if method == 'POST' else 'patch'}_webhook_endpoint",
            body=EndpointChange,
            answers={200: EndpointOut},
        )
        for method in ("POST", "PATCH")
    ),
    _route(
        "DELETE",
        ENDPOINT,
        delete,
        "Delete a webhook endpoint",
        name="delete_webhook_endpoint",
        body=NothingInput,
        answers={},
    ),
    _route(
        "POST",
        f"{ENDPOINT}/rotate_secret",
        rotate_secret,
        "Give a webhook endpoint a new secret; the old one signs as well for a while",
        body=RotationInput,
        answers={200: EndpointWithSecretOut},
    ),
    _route(
        "POST",
        "/v1/events/<event_id>/resend",
        resend_event,
        "Deliver an event again",
        body=ResendInput,
        answers={200: EventOut},
    ),
    _route(
        "GET",
        ENDPOINTS,
        list_endpoints,
        "List webhook endpoints, newest first",
        name="list_webhook_endpoints",
        query=ListQuery,
        answers={200: EndpointList},
    ),
    _route(
        "GET",
        ENDPOINT,
        get,
        "A webhook endpoint",
        name="get_webhook_endpoint",
        query=ExpandQuery,
        answers={200: EndpointOut},
    ),
    _route(
        "GET",
        f"{ENDPOINT}/deliveries",
        list_deliveries,
        "What was delivered to a webhook endpoint, or is to be, newest first",
        query=DeliveriesQuery,
        answers={200: DeliveryList},
    ),
)
