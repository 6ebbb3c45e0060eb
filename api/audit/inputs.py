"""What the audit family takes."""

from typing import Annotated

from pydantic import Field

from api.fields import Strict, WholeNumber

MOST_EVENTS = 10**15 - 1

Position = Annotated[WholeNumber, Field(ge=0, le=MOST_EVENTS)]


class LogQuery(Strict):
    """Which part of the log."""

    after: (
        Annotated[Position, Field(description="A position; without it, from the first.")] | None
    ) = None
    limit: Annotated[WholeNumber, Field(ge=1, le=100)] = 20


class ProofQuery(Strict):
    """Inclusion of the event at `position`, or consistency of the trees of two sizes."""

    position: Position | None = None
    old: Position | None = Field(default=None, alias="from")
    new: Position | None = Field(default=None, alias="to")
