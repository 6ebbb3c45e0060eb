-- Comparing receipts with the bank's records: each run, how far it is, and what it found.

-- One row a run, and at most one that is not finished. Whoever holds it is at it until `held_until`.
CREATE TABLE reconciliations (
    run_id      uuid        NOT NULL PRIMARY KEY,
    since       timestamptz,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    is_whole    boolean     NOT NULL,
    holder      uuid        NOT NULL,
    held_until  timestamptz NOT NULL
);
CREATE UNIQUE INDEX reconciliations_unfinished ON reconciliations ((finished_at IS NULL))
    WHERE finished_at IS NULL;

-- How far a run is in each shard: all payments up to `after` are done.
CREATE TABLE reconciliation_cursors (
    shard      smallint NOT NULL,
    run_id     uuid     NOT NULL,
    after      uuid     NOT NULL,
    checked    bigint   NOT NULL,
    skipped    bigint   NOT NULL,
    unanswered bigint   NOT NULL,
    CONSTRAINT reconciliation_cursors_pkey PRIMARY KEY (shard, run_id)
);

CREATE TABLE reconciliation_findings (
    shard      smallint NOT NULL,
    run_id     uuid     NOT NULL,
    payment_id uuid     NOT NULL,
    kind       text     NOT NULL,
    ours       text     NOT NULL,
    bank       text     NOT NULL,
    CONSTRAINT reconciliation_findings_pkey PRIMARY KEY (shard, run_id, payment_id, kind, ours, bank)
);
