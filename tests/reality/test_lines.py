"""Each mishap of a line is the one that it says it is."""

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.reality.lines import CLEAR, Address, Line, Lines, Mishap, Weather
from scripts.reality.system import free_ports

PATIENCE_SECONDS = 20
SHORT_SECONDS = 0.5
QUESTION, ANSWER = b"question " * 20, b"answer " * 20


@dataclass
class Server:
    """Answers every question, and remembers what it was asked."""

    listener: socket.socket
    heard: bytes = b""
    all_heard: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while chunk := connection.recv(65536):
                self.heard += chunk
                if self.heard.endswith(QUESTION):
                    self.all_heard.set()
                    connection.sendall(ANSWER)
        self.hung_up.set()


@dataclass
class Setting:
    server: Server
    line: Line
    port: int

    def asked(self, timeout: float = PATIENCE_SECONDS) -> bytes:
        """What comes back before the line is hung up on. Raises TimeoutError for silence."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as caller:
            caller.sendall(QUESTION)
            received = b""
            with suppress(ConnectionError):
                while len(received) < len(ANSWER) and (chunk := caller.recv(65536)):
                    received += chunk
            return received


@pytest.fixture
def setting() -> Iterator[Setting]:
    with socket.create_server(("127.0.0.1", 0)) as listener, Lines() as lines:
        server = Server(listener)
        threading.Thread(target=server.serve, daemon=True).start()
        (port,) = free_ports(1)
        to = Address(port=listener.getsockname()[1])
        line = lines.open(Address(port=port), to, random.Random(1))
        yield Setting(server, line, port)


def test_in_clear_weather_everything_is_carried(setting: Setting) -> None:
    assert setting.asked() == ANSWER
    assert setting.line.struck == {}


def test_what_is_lost_is_never_heard_and_never_answered(setting: Setting) -> None:
    setting.line.weather = Weather(1.0, (Mishap.LOST,))

    with pytest.raises(TimeoutError):
        setting.asked(SHORT_SECONDS)

    assert setting.server.hung_up.wait(PATIENCE_SECONDS)
    assert setting.server.heard == b""


def test_an_answer_that_is_swallowed_was_given(setting: Setting) -> None:
    setting.line.weather = Weather(1.0, (Mishap.SWALLOWED,))

    with pytest.raises(TimeoutError):
        setting.asked(SHORT_SECONDS)

    assert setting.server.all_heard.wait(PATIENCE_SECONDS)
    assert not setting.server.hung_up.is_set()  # nobody told it


def test_a_reset_delivers_nothing(setting: Setting) -> None:
    setting.line.weather = Weather(1.0, (Mishap.RESET,))

    assert setting.asked() == b""
    assert setting.server.hung_up.wait(PATIENCE_SECONDS)
    assert setting.server.heard == b""


def test_a_reset_instead_of_the_answer_comes_after_the_work(setting: Setting) -> None:
    setting.line.weather = Weather(1.0, (Mishap.DELIVERED_AND_RESET,))

    assert setting.asked() == b""
    assert setting.server.all_heard.wait(PATIENCE_SECONDS)


def test_a_question_is_cut_short_and_never_whole(setting: Setting) -> None:
    setting.line.weather = Weather(1.0, (Mishap.CUT_THERE,))

    assert setting.asked() == b""
    assert setting.server.hung_up.wait(PATIENCE_SECONDS)
    assert QUESTION.startswith(setting.server.heard)
    assert setting.server.heard != QUESTION


def test_an_answer_is_cut_short_and_never_whole(setting: Setting) -> None:
    setting.line.weather = Weather(1.0, (Mishap.CUT_BACK,))

    received = setting.asked()

    assert ANSWER.startswith(received)
    assert received != ANSWER


def test_what_is_delayed_arrives_unless_its_caller_hung_up(setting: Setting) -> None:
    setting.line.weather = Weather(1.0, (Mishap.DELAYED,))

    assert setting.asked() == ANSWER
    assert setting.line.struck == {Mishap.DELAYED.value: 1}


def test_weather_that_clears_is_clear_for_connections_that_are_open(setting: Setting) -> None:
    setting.line.weather = Weather(1.0, (Mishap.DELAYED,))
    with socket.create_connection(("127.0.0.1", setting.port), PATIENCE_SECONDS) as caller:
        caller.sendall(QUESTION)
        assert caller.recv(65536)

        setting.line.weather = CLEAR
        caller.sendall(QUESTION)

        assert caller.recv(65536) == ANSWER
    assert setting.line.struck.total() == 1


def test_a_line_to_nobody_hangs_up(tmp_path: Path) -> None:
    with Lines() as lines:
        lines.open(Address(path=tmp_path / "s"), Address(path=tmp_path / "none"), random.Random(1))
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(PATIENCE_SECONDS)
            caller.connect(str(tmp_path / "s"))
            with suppress(ConnectionError):
                assert caller.recv(1) == b""
