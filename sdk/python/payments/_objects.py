"""What the API answers: objects whose fields are attributes, and lists that go on by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

T = TypeVar("T")

CLASSES: Final[dict[str, type[PaymentsObject]]] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class LastResponse:
    """What came with an answer."""

    status: int
    headers: Mapping[str, str]

    @property
    def request_id(self) -> str | None:
        """What to give to support."""
        return self.headers.get("Request-Id")


class Fields(dict[str, Any]):
    """A dictionary inside an object: its fields are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class PaymentsObject:
    """Something that the API answered. `last_response` is None where it was inside another."""

    OBJECT: ClassVar[str] = ""
    last_response: LastResponse | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        CLASSES[cls.OBJECT] = cls

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {name: _converted(value) for name, value in values.items()}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no field {name}") from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PaymentsObject) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # its fields may be dictionaries

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._values.get('id', '')}>"

    def to_dict(self) -> dict[str, Any]:
        """As the API answered it: dictionaries, lists, texts, numbers."""
        return {name: _plain(value) for name, value in self._values.items()}


class ListObject(PaymentsObject, Generic[T]):
    """A page of a list, newest first."""

    OBJECT = "list"
    # The page with these parameters, of the same list for the same key; a page in an object has none.
    next_page: Callable[[Mapping[str, Any]], ListObject[T]] | None = None
    params: Mapping[str, Any] = {}

    @property
    def data(self) -> list[T]:
        """What is on this page."""
        return cast("list[T]", self._values["data"])

    def __iter__(self) -> Iterator[T]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def auto_paging_iter(self) -> Iterator[T]:
        """All of the list from this page on; with `ending_before`, backwards, the oldest first."""
        page = self
        backwards = "ending_before" in self.params
        while True:
            yield from reversed(page.data) if backwards else page.data
            if not page.has_more or not page.data or page.next_page is None:
                return
            page = page._page_beyond(backwards)

    def _page_beyond(self, backwards: bool) -> ListObject[T]:
        assert self.next_page is not None, "asked by those who looked"
        cursor = "ending_before" if backwards else "starting_after"
        edge = cast("PaymentsObject", self.data[0 if backwards else -1])
        return self.next_page({**self.params, cursor: edge.id})


def object_from(document: Mapping[str, Any]) -> PaymentsObject:
    """The object of the class that the document says it is of."""
    return CLASSES.get(str(document.get("object")), PaymentsObject)(document)


def _converted(value: Any) -> Any:
    """Objects wherever the API put one; metadata and the like stay dictionaries."""
    if isinstance(value, dict):
        if isinstance(value.get("object"), str):
            return object_from(value)
        return Fields({name: _converted(item) for name, item in value.items()})
    return [_converted(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, PaymentsObject):
        return value.to_dict()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
