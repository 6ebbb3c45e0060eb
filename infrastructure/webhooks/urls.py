"""Which URLs may be registered. What a name leads to is looked at whenever it is connected to; here is
what can be said of a URL by reading it."""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from infrastructure.webhooks.addresses import is_allowed

LONGEST_URL: Final = 2048
# What a URL is made of, and the host of one: anything else is percent-encoded, or in its xn-- form.
URL: Final = re.compile(r"https?://[!-~]+\Z", re.IGNORECASE)
UNSAFE: Final = re.compile(r"[\"<>\\^`{|}]|%(?![0-9A-Fa-f]{2})")
NAME: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9-]{1,63}\.?\Z"
)
ADDRESS: Final = re.compile(r"[0-9.]+\Z|.*:")
# The names of the machine itself, in a network that has a domain of its own or none.
OWN_NAMES: Final = re.compile(r"(.*\.)?(localhost|localdomain|local|internal)\.?\Z")


class UrlRefused(ValueError):
    """Why nothing could be delivered there; a part of a sentence."""


def checked(url: str, *, allows_local: bool) -> str:
    """The URL. `allows_local`: outside production. Raises UrlRefused."""
    if len(url) > LONGEST_URL:
        raise UrlRefused(f"must be of at most {LONGEST_URL} characters")
    if not URL.match(url) or UNSAFE.search(url):
        raise UrlRefused("must be an http or https URL, with what is special percent-encoded")
    parts = _split(url)
    if "@" in parts.netloc:
        raise UrlRefused("must not have credentials in it")
    if "#" in url:
        raise UrlRefused("must not have a fragment")
    if parts.scheme == "http" and not allows_local:
        raise UrlRefused("must be an https URL")
    _check_host(parts.hostname or "", allows_local=allows_local)
    return url


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_sound = parts.port != 0  # reading it is what checks it
    except ValueError as error:
        raise UrlRefused("must have a host, and a port that there is") from error
    if not is_sound or parts.netloc.endswith(":"):
        raise UrlRefused("must have a host, and a port that there is")
    return parts


def _check_host(host: str, *, allows_local: bool) -> None:
    if ADDRESS.match(host):
        if not is_allowed(host, allows_local=allows_local):
            raise UrlRefused("must not lead to an address that is not public")
    elif not NAME.match(host):
        raise UrlRefused("must have a host, and a port that there is")
    elif OWN_NAMES.match(host) and not allows_local:
        raise UrlRefused("must not lead to an address that is not public")
