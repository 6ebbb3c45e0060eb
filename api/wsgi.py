"""What the server loads in each of its processes."""

import gc
import os
from typing import Final

from flask import Flask

from api.answers import FamilyAnswers
from api.app import create_app
from infrastructure.logs import configure_logs
from infrastructure.services import build_services
from infrastructure.settings import read_settings

# A connection is held for a statement or two, never while the bank is asked: few serve many.
CONNECTIONS: Final = 16
# Allocations between two collections: a request makes thousands, and few cycles.
GARBAGE_THRESHOLD: Final = 50_000
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
    gc.collect()
    gc.freeze()  # what is there now stays; no need to look at it again and again
    gc.set_threshold(GARBAGE_THRESHOLD)
    return app
