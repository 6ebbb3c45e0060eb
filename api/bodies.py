"""Reading what was sent, strictly: JSON or a form, the same nested value from either.

Refused with the field's name: duplicate keys, NaN, control characters, lone surrogates, too much.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Request

from api.errors import ApiError, invalid

MAX_BODY_BYTES: Final = 256 * 1024
MAX_FORM_FIELDS: Final = 1000
MAX_DEPTH: Final = 20
# The C0 and C1 controls, DEL, and surrogates that are half of nothing.
FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
JSON_TYPE: Final = "application/json"
FORM_TYPE: Final = "application/x-www-form-urlencoded"
BODY_TYPES: Final = (JSON_TYPE, FORM_TYPE)
# What a name may not repeat: a body that was sent as the wrong type is all name, card included.
DIGITS: Final = re.compile(r"[0-9]{3,}")
LONGEST_NAME: Final = 100
FIELD_NAME: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)\Z")

Value = dict[str, Any]


class _Duplicate(ValueError):
    """A key that occurs twice in one JSON object."""


def read_body(request: Request, types: Sequence[str] = BODY_TYPES) -> tuple[Value, bool]:
    """The body, which is of one of these types, as a nested value, and whether it came as text only, as
    forms do. Raises ApiError."""
    raw = _raw(request)
    if not raw.strip():
        return {}, request.mimetype == FORM_TYPE
    if request.mimetype not in types:
        raise invalid(
            "unsupported_media_type", f"The body must be {' or '.join(types)}.", status=415
        )
    is_text = request.mimetype == FORM_TYPE
    value = nested(_pairs(raw)) if is_text else _from_json(raw)
    check_texts(value)
    return value, is_text


def read_query(request: Request) -> Value:
    """The query string as a nested value of texts. Raises ApiError."""
    value = nested(_pairs(request.query_string))
    check_texts(value)
    return value


def canonical(value: Any) -> bytes:
    """The JSON value that was meant, whatever the order of its fields and its white space."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """`1.0` is the number that `1` is."""
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _raw(request: Request) -> bytes:
    try:
        raw = request.get_data(cache=False)
    except RequestEntityTooLarge as error:
        raise too_large() from error
    if len(raw) > MAX_BODY_BYTES:  # one without a length is read to the limit, without a word
        raise too_large()
    return raw


def too_large() -> ApiError:
    """More than any request of ours needs."""
    return invalid(
        "request_too_large", f"A body may have at most {MAX_BODY_BYTES} bytes.", status=413
    )


def _from_json(raw: bytes) -> Value:
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except _Duplicate as error:
        raise invalid(
            "invalid_param", "The field occurs twice in one object.", str(error)
        ) from error
    except (ValueError, RecursionError) as error:
        raise invalid("invalid_json", "The body is not valid JSON in UTF-8.") from error
    if not isinstance(value, dict):
        raise invalid("invalid_json", "The body must be a JSON object.")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> Value:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Duplicate(_shown(twice))
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FORM_FIELDS,
        )
    except ValueError as error:
        raise invalid("invalid_param", "The parameters are not valid form encoding.") from error


def nested(pairs: Iterable[tuple[str, str]]) -> Value:
    """`a[b][c]=v`, `a[0]=v` and `a[]=v` as the value that JSON would have. Raises ApiError."""
    root: Value = {}
    for name, text in pairs:
        match = FIELD_NAME.match(name)
        if match is None:
            raise _bad_name(name)
        steps = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        if len(steps) > MAX_DEPTH:
            raise _bad_name(name)
        _put(root, steps, text, name)
    return {name: _lists(value) for name, value in root.items()}


def _put(root: Value, steps: Sequence[str], text: str, name: str) -> None:
    """Puts one text where its name says. An empty step appends."""
    at = root
    for step in steps[:-1]:
        at = at.setdefault(step or str(len(at)), {})
        if not isinstance(at, dict):
            raise _bad_name(name)
    last = steps[-1] or str(len(at))
    if last in at:
        raise invalid("invalid_param", "The parameter is given twice.", _shown(name))
    at[last] = text


def _lists(value: Any) -> Any:
    """What has only the keys 0, 1, 2 … was a list."""
    if not isinstance(value, dict):
        return value
    inner = {name: _lists(item) for name, item in value.items()}
    if inner and all(name == str(place) for place, name in enumerate(inner)):
        return list(inner.values())
    return inner


def _bad_name(name: str) -> ApiError:
    return invalid("invalid_param", "The parameter's name is malformed.", _shown(name))


def _shown(name: str) -> str:
    """A field's name as far as it may be told: no controls, no long numbers, not at any length."""
    return DIGITS.sub("?", FORBIDDEN.sub("?", name))[:LONGEST_NAME]


def check_texts(value: Any, path: tuple[str, ...] = ()) -> None:
    """Refuses control characters and lone surrogates in any name or text, and too deep a nesting."""
    if len(path) > MAX_DEPTH:
        raise invalid("invalid_json", "The body is nested too deeply.")
    if isinstance(value, str) and FORBIDDEN.search(value):
        raise invalid(
            "invalid_param",
            "Control characters and lone surrogates are not allowed.",
            param_name(path),
        )
    if isinstance(value, dict):
        for name, item in value.items():
            check_texts(name, (*path, name))
            check_texts(item, (*path, name))
    if isinstance(value, list):
        for place, item in enumerate(value):
            check_texts(item, (*path, str(place)))


def param_name(path: Sequence[str | int]) -> str | None:
    """`card[number]`, as errors name fields."""
    if not path:
        return None
    first, *rest = [_shown(str(step)) for step in path]
    return first + "".join(f"[{step}]" for step in rest)
