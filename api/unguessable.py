"""What is not to be guessed: marks that are the same whenever they are asked for, in every family."""

from typing import Final

from infrastructure.services import Services

CLIENT_SECRETS: Final = "client secrets"
RECEIPT_TOKENS: Final = "receipt pages"
TOKEN_LENGTH: Final = 32


def client_secret(services: Services, intent_id: str) -> str:
    """What a publishable key needs, to be told of the intent."""
    mark = services.store_secrets.mark(CLIENT_SECRETS, intent_id)
    return f"{intent_id}_secret_{mark[:TOKEN_LENGTH]}"


def receipt_url(services: Services, payment_id: str) -> str:
    """Where a shopper sees the receipt."""
    token = receipt_token(services, payment_id)
    return f"{services.settings.public_url}/receipts/{payment_id}?t={token}"


def receipt_token(services: Services, payment_id: str) -> str:
    """What opens the page of a payment's receipt."""
    return services.store_secrets.mark(RECEIPT_TOKENS, payment_id)[:TOKEN_LENGTH]
