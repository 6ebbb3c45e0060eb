"""The kinds of field that requests are made of, strict in JSON and in forms alike.

Forms carry texts only, so there, and only there, a number may be written as one. Errors never repeat
what was sent.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from api.bodies import param_name
from api.errors import ApiError, invalid
from domain.money import ISO_4217, MAXIMUM_AMOUNT_MINOR, MINIMUM_AMOUNT_MINOR

TEXT_ONLY: Final = {"text_only": True}
MAX_METADATA_KEYS: Final = 50
MAX_METADATA_KEY_LENGTH: Final = 40
MAX_METADATA_VALUE_LENGTH: Final = 500
MAX_EXACT_INTEGER: Final = 2**53 - 1

Model = TypeVar("Model", bound="Strict")


class Strict(BaseModel):
    """A request's parameters: nothing unknown, nothing converted."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True
    )


def is_text_only(info: ValidationInfo) -> bool:
    """Whether all of it came as text, as forms and queries do."""
    return bool(info.context and info.context.get("text_only"))


def whole_number(value: Any, info: ValidationInfo) -> Any:
    """A number as it was given; of a form, also one that is written out."""
    if (
        is_text_only(info)
        and isinstance(value, str)
        and re.fullmatch(r"-?[0-9]{1,15}", value, re.ASCII)
    ):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticCustomError("int_type", "must be a whole number")
    return value


def _amount(value: Any, info: ValidationInfo) -> Any:
    number = whole_number(value, info)
    if number < MINIMUM_AMOUNT_MINOR:
        raise PydanticCustomError(
            "amount_too_small", f"must be at least {MINIMUM_AMOUNT_MINOR} (minor units)"
        )
    if number > MAXIMUM_AMOUNT_MINOR:
        raise PydanticCustomError(
            "amount_too_large", f"must be at most {MAXIMUM_AMOUNT_MINOR} (minor units)"
        )
    return number


def _currency(value: Any) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError("invalid_currency", "must be an ISO 4217 code")
    code = value.upper() if value.isascii() else value
    if code not in ISO_4217:
        raise PydanticCustomError("invalid_currency", "must be an ISO 4217 code")
    return code


def _reference(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return value


def _digits(low: int, high: int, what: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or not re.fullmatch(
            rf"[0-9]{{{low},{high}}}", value, re.ASCII
        ):
            raise PydanticCustomError("digits", f"must be {what} as a string")
        return value

    return BeforeValidator(check)


def _sort_code(value: Any) -> Any:
    """Six digits, however they are grouped."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{2}([- ]?[0-9]{2}){2}", value):
        raise PydanticCustomError("sort_code", "must be 6 digits, as in 12-34-56")
    return value.replace("-", "").replace(" ", "")


def metadata(value: Any, info: ValidationInfo) -> Any:
    """Metadata, checked: up to 50 keys, texts and exact numbers."""
    if value == "":
        return {}
    if is_text_only(info) and isinstance(value, list):  # `metadata[0]=` is a key in a form
        value = {str(place): item for place, item in enumerate(value)}
    if not isinstance(value, dict):
        raise PydanticCustomError("metadata", "must be an object of up to 50 keys")
    if len(value) > MAX_METADATA_KEYS:
        raise PydanticCustomError("metadata", f"may have at most {MAX_METADATA_KEYS} keys")
    return {_metadata_key(name): _metadata_value(item) for name, item in value.items()}


def _metadata_key(name: str) -> str:
    if not 1 <= len(name) <= MAX_METADATA_KEY_LENGTH:
        raise PydanticCustomError(
            "metadata", f"keys must be of 1 to {MAX_METADATA_KEY_LENGTH} characters"
        )
    return name


def _metadata_value(value: Any) -> str | int | float | bool:
    match value:
        case bool():
            return value
        case str() if len(value) <= MAX_METADATA_VALUE_LENGTH:
            return value
        case int() if abs(value) <= MAX_EXACT_INTEGER:
            return value
        case float() if abs(value) <= MAX_EXACT_INTEGER:
            return value
    raise PydanticCustomError(
        "metadata",
        f"values must be strings of up to {MAX_METADATA_VALUE_LENGTH} characters, numbers that a "
        "double carries exactly, or booleans",
    )


WholeNumber = Annotated[int, BeforeValidator(whole_number)]
Amount = Annotated[
    int,
    BeforeValidator(
        _amount, json_schema_input_type=Annotated[int, Field(ge=1, le=MAXIMUM_AMOUNT_MINOR)]
    ),
    Field(description="Minor units.", examples=[5000]),
]
Currency = Annotated[
    str,
    BeforeValidator(_currency, json_schema_input_type=str),
    Field(description="ISO 4217, in either case.", examples=["USD"]),
]
Reference = Annotated[
    str, Field(min_length=1, max_length=255, pattern=r"\S"), BeforeValidator(_reference)
]
CardNumber = Annotated[
    str,
    _digits(13, 19, "13 to 19 digits, without spaces,"),
    Field(pattern=r"^[0-9]{13,19}$", examples=["4111111111111111"]),
]
CardCvc = Annotated[
    str, _digits(3, 4, "3 or 4 digits"), Field(pattern=r"^[0-9]{3,4}$", examples=["123"])
]
AccountNumber = Annotated[
    str, _digits(8, 8, "8 digits"), Field(pattern=r"^[0-9]{8}$", examples=["12345678"])
]
SortCode = Annotated[
    str,
    BeforeValidator(_sort_code, json_schema_input_type=str),
    Field(description="6 digits, with or without hyphens.", examples=["12-34-56"]),
]
Month = Annotated[WholeNumber, Field(ge=1, le=12, examples=[12])]
Year = Annotated[WholeNumber, Field(ge=2000, le=2099, examples=[2030])]
UnixTime = Annotated[WholeNumber, Field(ge=0, le=253_402_300_799, description="Unix seconds.")]
MetadataMap = Annotated[
    dict[str, str | int | float | bool],
    BeforeValidator(metadata),
    Field(description="Up to 50 keys of your own. Keep personal data out of it."),
]

# Pydantic's words for what we have words of our own for.
_CODES: Final[Mapping[str, str]] = {
    "missing": "missing_param",
    "extra_forbidden": "unknown_param",
    "amount_too_small": "amount_too_small",
    "amount_too_large": "amount_too_large",
    "invalid_currency": "invalid_currency",
}
_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is not a parameter of this request",
    "string_type": "must be a string",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
}


def validated(model: type[Model], value: dict[str, Any], *, is_text: bool) -> Model:
    """The parameters, as `model` has them. Raises ApiError that names the first wrong field."""
    try:
        return model.model_validate(value, context=TEXT_ONLY if is_text else None)
    except ValidationError as error:
        raise _api_error(error) from None


def _api_error(error: ValidationError) -> ApiError:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    kind = first["type"]
    param = param_name(first["loc"])
    reason = _MESSAGES.get(kind) or _lower_first(first["msg"])
    return invalid(_CODES.get(kind, "invalid_param"), f"{param or 'The request'} {reason}.", param)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")
