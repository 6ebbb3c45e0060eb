"""Moments in the past, as clients name them."""

from datetime import UTC, datetime

from api.errors import invalid


def moment(text: str) -> datetime:
    """RFC 3339 with an offset, or Unix seconds. Raises ApiError."""
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        # A plus sign in a query string is a space to whoever decodes it.
        at: datetime | None = datetime.fromisoformat(
            text.replace(" ", "+") if "T" in text else text
        )
    except (ValueError, OverflowError, OSError):
        at = None
    if at is None or at.tzinfo is None:
        raise invalid(
            "invalid_param", "as_of must be RFC 3339 with an offset, or Unix seconds.", "as_of"
        )
    return at
