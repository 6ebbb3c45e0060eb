"""What a request costs at the least: a bare Flask route that makes one pooled insert.

The same server as the gateway's, the same database, JSON in and out, and nothing else.
"""

import os

import click
import psycopg
from flask import Flask, Response, jsonify, request
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server
from psycopg_pool import ConnectionPool

DATABASE_VARIABLE = "BASELINE_DATABASE_URL"
CONNECTIONS = 16
MAKE_TABLE = """
    CREATE TABLE IF NOT EXISTS bench_inserts (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        reference text NOT NULL, amount bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
INSERT = "INSERT INTO bench_inserts (reference, amount) VALUES (%s, %s) RETURNING id, created_at"


def create() -> Flask:
    """The application, with a pool of its own in each of the server's processes."""
    app = Flask(__name__, static_folder=None)
    pool = ConnectionPool(
        os.environ[DATABASE_VARIABLE],
        min_size=2,
        max_size=CONNECTIONS,
        kwargs={"autocommit": True},
        open=True,
    )

    @app.post("/inserts")
    def insert() -> tuple[Response, int]:
        body = request.get_json()
        with pool.connection() as connection:
            row = connection.execute(INSERT, (body["reference"], body["amount"])).fetchone()
        assert row is not None
        return jsonify(id=row[0], created_at=row[1].isoformat(), **body), 201

    return app


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--workers", type=int, required=True)
@click.option("--threads", type=int, required=True)
def main(port: int, workers: int, threads: int) -> None:
    """Serve the baseline until SIGTERM."""
    with psycopg.connect(os.environ[DATABASE_VARIABLE], autocommit=True) as connection:
        connection.execute(MAKE_TABLE)
    Server(
        "scripts.bench.baseline:create",
        factory=True,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        blocking_threads=threads,
        http=HTTPModes.http1,
        websockets=False,
        log_level=LogLevels.error,
    ).serve()


if __name__ == "__main__":
    main()
