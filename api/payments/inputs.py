"""What the payments family takes."""

from typing import Annotated

from pydantic import Field

from api.fields import Reference, Strict


class BalanceQuery(Strict):
    """Whose balance: all of the merchant's, or one customer's; now, or as of a moment."""

    customer_id: Reference | None = None
    as_of: Annotated[str, Field(description="RFC 3339, or Unix seconds.")] | None = None
