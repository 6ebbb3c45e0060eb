"""Which WSGI server serves requests that wait: `python -m scripts.bench.servers`.

Most of the gateway's time is waiting for the bank. So each server, with the same processes and
threads, is given clients that wait 200 ms in a thread each, and a few beside them whose requests are
answered at once: these must not feel the others. gunicorn is no dependency of ours; where it cannot
be imported, granian is measured alone.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from infrastructure import processes
from scripts.bench import figures
from scripts.bench.figures import Figures
from scripts.bench.load import Plan
from scripts.bench.system import BenchFailed, Starter, measure
from scripts.up import stopping_on_signals

WAIT_SECONDS = 0.2
WARM_UP_SECONDS = 2.0
READERS = 4
BACKLOG = 2048

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """`/wait` answers after 200 ms in its thread, anything else at once."""
    if environ["PATH_INFO"] == "/wait":
        time.sleep(WAIT_SECONDS)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


@click.group(invoke_without_command=True)
@click.option("--clients", type=click.IntRange(1), default=400, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=512, show_default=True)
@click.option("--seconds", type=float, default=10, show_default=True)
@click.pass_context
def main(context: click.Context, clients: int, workers: int, threads: int, seconds: float) -> None:
    """Measure the servers with requests that wait, and fast ones beside them."""
    if context.invoked_subcommand is not None:
        return
    if not processes.HAS_PROC:
        raise click.ClickException("CPU time is read from Linux's /proc, which is not here")
    ideal = clients / WAIT_SECONDS
    shape = {"clients": clients, "workers": workers, "threads": threads, "ideal": ideal}
    result: Figures = {"options": {**shape, "seconds": seconds}, "servers": {}}
    names = "".join(f"{it:>9}" for it in ("a second", "mean", "p50", "p95", "p99"))
    click.echo(f"{shape}\n  {'milliseconds':<26}{names}", err=True)
    try:
        with stopping_on_signals():
            for name, command in commands(workers, threads).items():
                found = measured(name, command, clients, workers, seconds)
                result["servers"][name] = found
                click.echo(rows(name, found), err=True)
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=2))


def commands(workers: int, threads: int) -> dict[str, tuple[str, ...]]:
    """How each server is started, but for its port."""
    shape = ("--workers", str(workers), "--threads", str(threads))
    found: dict[str, tuple[str, ...]] = {}
    found["granian"] = (sys.executable, "-P", "-m", "scripts.bench.servers", "granian", *shape)
    if importlib.util.find_spec("gunicorn") is None:
        click.echo("gunicorn is not installed here: granian is measured alone", err=True)
        return found
    command = (sys.executable, "-P", "-m", "scripts.bench.servers", "gunicorn", *shape)
    return {**found, "gunicorn gthread": command}


def measured(
    name: str, command: tuple[str, ...], clients: int, workers: int, seconds: float
) -> Figures:
    """One server. Raises BenchFailed."""
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-bench-"))
    with ExitStack() as at_end:
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        served = Starter(folder, at_end).server(name.replace(" ", "-"), command, {})
        plan = Plan(
            work="waits",
            port=served.port,
            workers=workers,
            api_key="",
            name="waits",
            clients=clients,
            readers=READERS,
            warm_up_seconds=WARM_UP_SECONDS,
            seconds=seconds,
            trees={"server": served.pid},
        )
        run = measure(plan)
    found = figures.figures([run], ("wait",))
    found["milliseconds"]["fast"] = figures.shown(sorted(run.milliseconds.get("read", [])))
    return found


def rows(name: str, found: Figures) -> str:
    """The server's part of the table."""
    lines = [
        name,
        figures.row("requests that wait", found, "wait"),
        figures.row("fast ones beside them", found, "fast"),
        figures.cpu_row("CPU ms a waiting request", found),
    ]
    if found["unexpected"]:
        lines.append(f"  NOT AS EXPECTED: {found['unexpected']}")
    return "\n".join(lines)


@main.command()
@click.option("--port", type=int, required=True)
@click.option("--workers", type=int, required=True)
@click.option("--threads", type=int, required=True)
def granian(port: int, workers: int, threads: int) -> None:
    """Serve with granian, as the gateway is served."""
    Server(
        "scripts.bench.servers:app",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        blocking_threads=threads,
        backlog=BACKLOG,
        backpressure=threads * 2,
        http=HTTPModes.http1,
        websockets=False,
        log_level=LogLevels.error,
    ).serve()


@main.command()
@click.option("--port", type=int, required=True)
@click.option("--workers", type=int, required=True)
@click.option("--threads", type=int, required=True)
def gunicorn(port: int, workers: int, threads: int) -> None:
    """Serve with gunicorn, from wherever it was found."""
    own = ("--bind", f"127.0.0.1:{port}", "--workers", str(workers), "--threads", str(threads))
    room = ("--worker-connections", str(2 * threads), "--backlog", str(BACKLOG))
    calm = ("--keep-alive", "60", "--log-level", "error", "scripts.bench.servers:app")
    command = (sys.executable, "-m", "gunicorn", "--worker-class", "gthread", *own, *room, *calm)
    os.execv(sys.executable, command)  # noqa: S606 - this process becomes the server


if __name__ == "__main__":
    main()
