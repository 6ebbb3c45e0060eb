"""Where shoppers return to from a page of the bank's."""

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from api.errors import invalid


def returning_to(return_url: str, name: str, public_id: str) -> str:
    """The merchant's address, with the id of what the shopper was sent away for as `name`. Raises
    ApiError."""
    try:
        parts = urlsplit(return_url)
    except ValueError as error:
        raise _no_url() from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise _no_url()
    query = [*parse_qsl(parts.query, keep_blank_values=True), (name, public_id)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _no_url() -> Exception:
    return invalid("invalid_param", "return_url must be an http or https URL.", "return_url")
