"""What the server loads in each of its processes."""

import os
from typing import Final

from flask import Flask

from api.answers import FamilyAnswers
from api.app import create_app
from infrastructure.logs import configure_logs
from infrastructure.processes import look_for_garbage_seldom
from infrastructure.services import build_services
from infrastructure.settings import read_settings

# A connection is held for a statement or two, never while the bank is asked: few serve many.
CONNECTIONS: Final = 16
THREADS_VARIABLE: Final = "COUNTERFOIL_THREADS"


def create() -> Flask:
    """The application, on services of its own."""
    settings = read_settings()
    configure_logs(settings.log_level, settings.log_format)
    threads = int(os.environ[THREADS_VARIABLE])
    services = build_services(
        settings, answers=FamilyAnswers(), connections=CONNECTIONS, bank_connections=threads
    )
    app = create_app(services, threads=threads)
    look_for_garbage_seldom()
    return app
