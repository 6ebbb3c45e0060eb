"""Pushing: each checkpoint, once it is signed and kept, to places outside, so that we could not sign
another history without being found out.

A place is a file, which is appended to, a folder, which has a file for each, or an address that each is
sent to by POST. They are told in order, each at its own pace; one that fails is tried again, later each
time, and nobody waits for it.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString
from urllib.parse import urlsplit

import requests
import structlog
from psycopg import Connection
from psycopg.rows import DictRow

from infrastructure.audit.checkpoints import Signed, since
from infrastructure.database import Pool

AT_ONCE: Final = 20
TIMEOUT_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 300.0
MOST_DOUBLINGS: Final = 10
# While it is being told by one worker, no other begins.
TAKEN_SECONDS: Final = AT_ONCE * TIMEOUT_SECONDS + 20
SUCCESS: Final = range(200, 300)

ADD: Final[LiteralString] = """
    INSERT INTO audit_pushes (target, number, failures, due_at)
    VALUES (%(target)s, 0, 0, clock_timestamp()) ON CONFLICT DO NOTHING
"""
TAKE: Final[LiteralString] = """
    UPDATE audit_pushes SET due_at = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE target = %(target)s AND due_at <= clock_timestamp()
      AND number < (SELECT coalesce(max(number), 0) FROM audit_checkpoints)
    RETURNING number, failures
"""
DONE: Final[LiteralString] = """
    UPDATE audit_pushes
    SET number = greatest(number, %(number)s), failures = %(failures)s,
        due_at = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE target = %(target)s
"""

log = structlog.get_logger(__name__)


class PushFailed(Exception):
    """The place did not take it. One line that says why, and nothing of what is secret in an address."""


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere outside, by its URL."""

    url: str

    @property
    def target(self) -> str:
        """By which it is known in the database, where its passwords must not be."""
        return hashlib.sha256(self.url.encode()).hexdigest()

    @property
    def shown(self) -> str:
        """What may be told of it."""
        parts = urlsplit(self.url)
        return parts.path if parts.scheme == "file" else f"{parts.scheme}://{parts.hostname}"

    def tell(self, checkpoint: Signed) -> None:
        """Raises PushFailed."""
        if self.url.startswith("file:"):
            _keep_in_file(urlsplit(self.url).path, checkpoint)
        else:
            _post(self.url, checkpoint)


def _keep_in_file(path: str, checkpoint: Signed) -> None:
    """Once it is there it is on the disk. In a folder, what is there already stays."""
    note = checkpoint.note.encode()
    try:
        if path.endswith("/"):
            _keep_in_folder(Path(path), f"{checkpoint.number:012}.txt", note)
        else:
            _write(Path(path), os.O_APPEND, note + b"\n")
    except OSError as error:
        raise PushFailed(error.strerror or type(error).__name__) from error


def _keep_in_folder(folder: Path, name: str, note: bytes) -> None:
    """Whole, or not at all."""
    partial = folder / f".{name}.{os.getpid()}"
    try:
        _write(partial, os.O_TRUNC, note)
        (folder / name).hardlink_to(partial)
    except FileExistsError:
        if (folder / name).read_bytes() != note:
            raise PushFailed("another checkpoint is there under its number") from None
    finally:
        partial.unlink(missing_ok=True)
    _to_disk(folder)


def _write(file: Path, how: int, content: bytes) -> None:
    """At once, so that nothing that others append comes between."""
    is_new = not file.exists()
    handle = os.open(file, how | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        if os.write(handle, content) != len(content):
            raise PushFailed("there was no room for all of it")
        os.fsync(handle)
    finally:
        os.close(handle)
    if is_new:
        _to_disk(file.parent)


def _to_disk(folder: Path) -> None:
    """The names of the files in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _post(url: str, checkpoint: Signed) -> None:
    try:
        with requests.post(
            url,
            data=checkpoint.note.encode(),
            headers={"Content-Type": "text/plain; charset=utf-8"},
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
            stream=True,
        ) as answer:
            status = answer.status_code
    except requests.RequestException as error:
        raise PushFailed(type(error).__name__) from error
    if status not in SUCCESS:
        raise PushFailed(f"HTTP {status}")


class Pushes:
    """Tells all places what they do not know yet."""

    def __init__(self, pool: Pool, urls: Sequence[str]) -> None:
        self._pool = pool
        self._places = [Place(url) for url in urls]

    def step(self) -> int:
        """Tells each place that is due the next checkpoints; how many were told in all."""
        return sum(self._tell(place) for place in self._places)

    def _tell(self, place: Place) -> int:
        with self._pool.connection() as connection:
            taken = _taken(connection, place)
            waiting = [] if taken is None else since(connection, taken["number"], AT_ONCE)
        if taken is None or not waiting:
            return 0
        number, failures, told = taken["number"], taken["failures"], 0
        try:
            for checkpoint in waiting:
                place.tell(checkpoint)
                number, failures, told = checkpoint.number, 0, told + 1
        except PushFailed as error:
            failures += 1
            log.warning("a checkpoint was not taken", place=place.shown, error=str(error))
        parameters = {"target": place.target, "number": number, "failures": failures}
        with self._pool.connection() as connection:
            connection.execute(DONE, {**parameters, "seconds": _pause(failures)})
        return told


def _taken(connection: Connection[DictRow], place: Place) -> dict[str, Any] | None:
    parameters = {"target": place.target, "seconds": TAKEN_SECONDS}
    connection.execute(ADD, parameters)
    return connection.execute(TAKE, parameters).fetchone()


def _pause(failures: int) -> float:
    """Longer with each failure."""
    if failures == 0:
        return 0.0
    doubled: float = FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, MOST_DOUBLINGS)
    return min(doubled, LONGEST_PAUSE_SECONDS)
