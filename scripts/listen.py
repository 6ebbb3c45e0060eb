"""`counterfoil listen`: forwards events to a program of yours while you develop it, wherever the API is,
signed as deliveries are. Nothing needs to reach you from outside: events are asked for."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
import requests

from infrastructure.settings import Settings
from infrastructure.webhooks.javascript import stringify
from infrastructure.webhooks.signatures import headers, new_secret
from infrastructure.webhooks.urls import UrlRefused, checked
from scripts.console import NOT_DONE, refuse, settings_or_exit

POLL_SECONDS: Final = 0.5
TROUBLE_SECONDS: Final = 2.0
API_TIMEOUT_SECONDS: Final = 10.0
FORWARD_TIMEOUT_SECONDS: Final = 10.0
PAGE: Final = 100
MOST_PAGES: Final = 50
# An event may be listed a little after others that are younger.
OVERLAP_SECONDS: Final = 10
FIRST_REFUSAL: Final = 400
FIRST_FAILURE: Final = 500
TOO_MANY: Final = 429

Event = dict[str, Any]


class ApiRefused(Exception):
    """The API does not tell: what it says."""


class Events:
    """The events of one key's merchant that were not told of yet, from the first look on."""

    def __init__(self, base: str, api_key: str, kinds: Sequence[str]) -> None:
        self._url, self._kinds = f"{base.rstrip('/')}/v1/events", list(kinds)
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {api_key}"
        # Those of the last seconds, with when they happened; what is older is not asked for.
        self._known: dict[str, int] = {}
        self._newest = 0

    def skip(self) -> None:
        """What has happened is not told. Raises ApiRefused, RequestException."""
        for event in self._page({"limit": "1"})["data"]:
            self._newest = event["created"]
        self.new()

    def new(self) -> list[Event]:
        """What has happened since, the oldest first. Raises ApiRefused, RequestException."""
        found = [each for each in self._recent() if each["id"] not in self._known]
        for event in found:
            self._known[event["id"]] = event["created"]
            self._newest = max(self._newest, event["created"])
        floor = self._newest - OVERLAP_SECONDS
        self._known = {each: at for each, at in self._known.items() if at >= floor}
        return sorted(found, key=lambda event: str(event["id"]))

    def _recent(self) -> Iterator[Event]:
        floor = max(0, self._newest - OVERLAP_SECONDS)
        asked = {"limit": str(PAGE), "created[gte]": str(floor)}
        for _ in range(MOST_PAGES):
            page = self._page(asked)
            yield from page["data"]
            if not page["has_more"]:
                return
            asked["starting_after"] = page["next_cursor"]

    def _page(self, asked: dict[str, str]) -> dict[str, Any]:
        response = self._session.get(
            self._url,
            params={**asked, **{f"types[{n}]": kind for n, kind in enumerate(self._kinds)}},
            timeout=API_TIMEOUT_SECONDS,
        )
        if response.status_code == TOO_MANY or response.status_code >= FIRST_FAILURE:
            raise requests.ConnectionError(f"the API answered {response.status_code}")
        if response.status_code >= FIRST_REFUSAL:
            raise ApiRefused(response.json()["error"]["message"])
        page: dict[str, Any] = response.json()
        return page


def forwarded(event: Event, url: str, secret: str) -> str:
    """What came of sending it: a status, or what went wrong."""
    body = stringify(event).encode()
    signed = headers(body, event_id=event["id"], unix_seconds=int(time.time()), secrets_of=[secret])
    try:
        response = requests.post(
            url,
            data=body,
            headers={**signed, "Content-Type": "application/json"},
            timeout=FORWARD_TIMEOUT_SECONDS,
            allow_redirects=False,
            stream=True,
        )
    except requests.RequestException as error:
        return type(error).__name__
    with response:
        return str(response.status_code)


@click.command("listen")
@click.option(
    "--forward-to", "url", required=True, help="Your program, as http://localhost:3000/hooks."
)
@click.option(
    "--events", "kinds", help="Types, with commas between; also as charge.*. Default: all."
)
@click.option("--api-base", help="Where the API is. Default: PUBLIC_URL.")
@click.option("--api-key", help="A secret key. Default: API_KEY.")
@click.option("--secret", help="Sign with this one, whsec_…, instead of a new one.")
def listen_command(
    url: str, kinds: str | None, api_base: str | None, api_key: str | None, secret: str | None
) -> None:
    """Forward events to a local URL while you develop; Ctrl-C ends it.

    The secret that they are signed with is printed. What cannot be forwarded is told, and not tried again.
    """
    settings = settings_or_exit()
    try:
        checked(url, allows_local=True)
    except UrlRefused as error:
        refuse(f"--forward-to {error}")
    secret = secret or new_secret()
    if not _is_secret(secret):
        refuse("--secret must be one that an endpoint was given, whsec_ and base 64")
    events = _events(settings, kinds, api_base, api_key)
    click.echo(f"forwarding to {url}; the secret is {secret}")
    try:
        _forward_for_ever(events, url, secret)
    except KeyboardInterrupt:
        click.echo("")


def _events(
    settings: Settings, kinds: str | None, api_base: str | None, api_key: str | None
) -> Events:
    """What there is to forward from now on; or one line that says why it cannot be known."""
    base, key = api_base or settings.public_url, api_key or settings.api_key
    if key is None:
        refuse("a secret key is needed: --api-key, or API_KEY")
    wanted = [each.strip() for each in (kinds or "").split(",") if each.strip()]
    events = Events(base, key, wanted)
    try:
        events.skip()
    except ApiRefused as error:
        refuse(f"the API at {base} says: {error}")
    except requests.RequestException:
        refuse(f"the API at {base} is out of reach", NOT_DONE)
    return events


def _forward_for_ever(events: Events, url: str, secret: str) -> None:
    while True:
        try:
            found = events.new()
        except requests.RequestException:
            click.echo("the API is out of reach; trying again", err=True)
            time.sleep(TROUBLE_SECONDS)
            continue
        except ApiRefused as error:
            refuse(f"the API says: {error}", NOT_DONE)
        for event in found:
            outcome = forwarded(event, url, secret)
            at = datetime.now(UTC).strftime("%H:%M:%S")
            click.echo(f"{at}  {outcome:<4} {event['type']:<44} {event['id']}")
        time.sleep(POLL_SECONDS)


def _is_secret(text: str) -> bool:
    """Whether deliveries can be signed with it."""
    try:
        headers(b"", event_id="", unix_seconds=0, secrets_of=[text])
    except ValueError:
        return False
    return text.startswith("whsec_")
