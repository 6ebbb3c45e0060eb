"""Ids and times, as the bank writes them."""

import uuid
from datetime import UTC, datetime


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4()}"


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, always with microseconds, so that text order is time order."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
