"""Lists, in all families: which page, and how it is told."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.fields import Strict, UnixTime, WholeNumber
from projections.pages import Page

Document = dict[str, Any]


class CreatedFilter(Strict):
    """A range of creation times."""

    gt: UnixTime | None = None
    gte: UnixTime | None = None
    lt: UnixTime | None = None
    lte: UnixTime | None = None

    def filters(self) -> dict[str, int]:
        """As read models name them."""
        return {f"created_{name}": value for name, value in self if value is not None}


class PageQuery(Strict):
    """Which page of a list."""

    limit: Annotated[WholeNumber, Field(ge=1, le=100)] = 20
    starting_after: str | None = None
    ending_before: str | None = None
    created: CreatedFilter = CreatedFilter()

    @model_validator(mode="after")
    def one_direction(self) -> "PageQuery":
        """A page goes one way."""
        if self.starting_after is not None and self.ending_before is not None:
            raise PydanticCustomError("both", "takes starting_after or ending_before, not both")
        return self


def asked_page(
    query: PageQuery, wanted: Mapping[str, Any], cursor: Callable[[str, str], UUID]
) -> Page:
    """The page that is asked for. `cursor` finds what a public id of the list names, and raises
    NotFound for another."""
    filters = {name: value for name, value in wanted.items() if value is not None}
    after, before = query.starting_after, query.ending_before
    return Page(
        limit=query.limit,
        after=None if after is None else cursor(after, "starting_after"),
        before=None if before is None else cursor(before, "ending_before"),
        filters={**filters, **query.created.filters()},
    )


def told_page(
    documents: Sequence[Document], *, page: Page, has_more: bool, url: str, id_field: str = "id"
) -> Document:
    """A page of a list. `next_cursor` goes on in the direction that was asked for."""
    edge = -1 if page.before is None else 0
    return {
        "object": "list",
        "data": list(documents),
        "has_more": has_more,
        "next_cursor": documents[edge][id_field] if has_more and documents else None,
        "url": url,
    }
