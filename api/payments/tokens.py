"""Tokens: cards that may be used once, within the hour, made where the card was typed."""

from typing import Final

from api.http import Call, Route
from api.payments import objects
from api.payments.commands import done
from api.payments.inputs import TokenInput
from api.payments.schemas import TokenOut
from domain.cards import Card
from domain.ids import Prefix, encode
from domain.ledger import Settled
from domain.payment import rfc3339
from domain.token import Token
from infrastructure.api_keys import Scope

FAMILY: Final = "payments"


def create(call: Call, body: TokenInput) -> Settled:
    """A card, to be used once."""
    services, given = call.services, body.card
    card = Card(
        number=given.number, exp_month=given.exp_month, exp_year=given.exp_year, cvc=given.cvc
    )
    at = services.clock.now()
    card.check(at)
    token = Token.create(
        token_id=services.ids.new(),
        tenant=call.tenant,
        card=card.face(),
        fingerprint=services.cards.fingerprint(card.number),
        at=at,
    )
    kept = services.cards.sealed(token.id, card, is_for_once=True)
    return done(call, token, _told(call, token), kept, status=201)


def _told(call: Call, token: Token) -> objects.Document:
    face = token.card
    record = {
        "id": encode(Prefix.TOKEN, token.id),
        "mode": call.tenant.mode.value,
        "created_at": rfc3339(token.created_on),
        "card": {
            "brand": face.brand,
            "last4": face.last4,
            "exp_month": face.exp_month,
            "exp_year": face.exp_year,
            "fingerprint": token.fingerprint,
        },
    }
    return objects.token(record)


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/tokens",
        handler=create,
        name="create_token",
        body=TokenInput,
        scope=Scope.PAYMENTS_WRITE,
        summary="Make a token of a card, to be used once",
        family=FAMILY,
        answers={201: TokenOut},
        takes_publishable_keys=True,
    ),
)
