"""`./scripts/down`: stop what `./scripts/up` started, also when that was killed."""

import signal
import sys
from pathlib import Path

import click

from infrastructure import processes
from scripts.up import DEFAULT_DATA, CannotStart, Folder, run_command, say

STOP_TIMEOUT_SECONDS = 90.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", type=click.Path(path_type=Path), default=DEFAULT_DATA, show_default=True)
def down(data: Path) -> None:
    """Stop the system of a data folder, the private Postgres last. Nothing stored is lost."""
    folder = Folder(data.resolve())
    if not folder.path.exists():
        say("nothing runs")
        return
    pid = folder.supervisor_pid()
    if pid:
        stop_supervisor(folder, pid)
    ended = folder.register.end_remains()
    ran_postgres = folder.postgres.is_running()
    folder.postgres.stop()
    say("stopped" if pid or ended or ran_postgres else "nothing runs")


def stop_supervisor(folder: Folder, pid: int) -> None:
    processes.send(pid, signal.SIGTERM)
    if not processes.wait_until(lambda: not folder.is_locked(), STOP_TIMEOUT_SECONDS):
        raise CannotStart(f"process {pid} does not stop; end it with kill -9 {pid}, run this again")


if __name__ == "__main__":
    sys.exit(run_command(down))
