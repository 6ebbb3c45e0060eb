-- Customers whose data is erased: at once, and once more when nobody can be at work any more who had read
-- it before.
CREATE TABLE erasures (
    shard       smallint    NOT NULL,
    customer_id uuid        NOT NULL,
    merchant_id text        NOT NULL,
    mode        text        NOT NULL,
    due_at      timestamptz NOT NULL,
    CONSTRAINT erasures_pkey PRIMARY KEY (shard, customer_id)
);
CREATE INDEX erasures_due ON erasures (due_at);

-- Answers that are kept for replays, and tell who somebody is. Of those that were kept before, any may.
ALTER TABLE idempotency_keys ADD COLUMN tells_of_people boolean NOT NULL DEFAULT true;
CREATE INDEX idempotency_keys_that_tell_of_people ON idempotency_keys (payment_id)
    WHERE tells_of_people;

-- Who was deleted before is erased as thoroughly as who is from now on.
DO $$
BEGIN
    IF to_regclass('customer_records') IS NOT NULL THEN
        INSERT INTO erasures (shard, customer_id, merchant_id, mode, due_at)
        SELECT shard, id, merchant_id, mode, clock_timestamp() FROM customer_records
        WHERE (document ->> 'is_deleted')::boolean;
    END IF;
END
$$;

-- Lists by status find what is rare. New tables of these read models bring the index along.
DO $$
BEGIN
    IF to_regclass('receipts') IS NOT NULL THEN
        CREATE INDEX receipts_by_status ON receipts (merchant_id, mode, status, payment_id);
    END IF;
    IF to_regclass('refunds') IS NOT NULL THEN
        CREATE INDEX refunds_by_status ON refunds (merchant_id, mode, status, refund_id);
    END IF;
END
$$;

-- Rate limits, by the second of the last minute: lost in a crash, and no harm done. `hits`: in second n, at
-- n modulo 60; `newest`: the last second that was counted; `counted`: all of them, and `oldest` the first
-- second that has any; `refused`: whether the last one was.
DROP TABLE rate_limit_windows;
CREATE UNLOGGED TABLE rate_limits (
    name    text      NOT NULL PRIMARY KEY,
    newest  bigint    NOT NULL,
    oldest  bigint    NOT NULL,
    counted integer   NOT NULL,
    refused boolean   NOT NULL,
    hits    integer[] NOT NULL
) WITH (fillfactor = 30);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON erasures, rate_limits TO counterfoil_serving;
    END IF;
END
$$;
