-- Disputes: how far the bank's notices were read, those that were not taken in yet, and what the bank is to
-- be told. And clocks that tests move, with the customers who live by them.

CREATE TABLE dispute_feed (
    only_one boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_one),
    position bigint  NOT NULL
);
INSERT INTO dispute_feed (position) VALUES (0);

CREATE TABLE dispute_notices (
    position bigint      NOT NULL PRIMARY KEY,
    notice   jsonb       NOT NULL,
    tries    integer     NOT NULL DEFAULT 0,
    due_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dispute_notices_due ON dispute_notices (due_at);

CREATE TABLE dispute_responses (
    shard           smallint    NOT NULL,
    dispute_id      uuid        NOT NULL,
    kind            text        NOT NULL,
    bank_dispute_id text        NOT NULL,
    tries           integer     NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT dispute_responses_pkey PRIMARY KEY (shard, dispute_id, kind)
);
CREATE INDEX dispute_responses_due ON dispute_responses (due_at);

CREATE TABLE test_clocks (
    id          uuid        NOT NULL PRIMARY KEY,
    merchant_id text        NOT NULL,
    mode        text        NOT NULL CHECK (mode = 'test'),
    name        text,
    frozen_time timestamptz NOT NULL,
    target_time timestamptz NOT NULL,
    advancing   boolean     NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at  timestamptz,
    CONSTRAINT test_clocks_forwards CHECK (target_time >= frozen_time)
);
CREATE INDEX test_clocks_newest ON test_clocks (merchant_id, mode, id) WHERE deleted_at IS NULL;
CREATE INDEX test_clocks_advancing ON test_clocks (id) WHERE advancing;

CREATE TABLE test_clock_customers (
    merchant_id text NOT NULL,
    mode        text NOT NULL,
    customer_id text NOT NULL,
    clock_id    uuid NOT NULL,
    CONSTRAINT test_clock_customers_pkey PRIMARY KEY (merchant_id, mode, customer_id)
);
CREATE INDEX test_clock_customers_of_clock ON test_clock_customers (clock_id);

-- Where there are balances already, what is disputed is an account of theirs from now on.
DO $$
DECLARE
    place text;
BEGIN
    FOR place IN
        SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('public', 'beside') AND tablename IN ('balances', 'entries')
    LOOP
        EXECUTE 'ALTER TABLE ' || place || ' ADD COLUMN IF NOT EXISTS disputed bigint NOT NULL DEFAULT 0';
    END LOOP;
    FOR place IN
        SELECT format('%I.%I|%I', schemaname, tablename, tablename || '_sum') FROM pg_tables
        WHERE schemaname IN ('public', 'beside') AND tablename IN ('balances', 'entries')
    LOOP
        EXECUTE format(
            'ALTER TABLE %s DROP CONSTRAINT IF EXISTS %s, ADD CONSTRAINT %2$s '
            'CHECK (held + captured + refunded + disputed + cardholder = 0)',
            split_part(place, '|', 1), split_part(place, '|', 2)
        );
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE
            ON dispute_feed, dispute_notices, dispute_responses, test_clocks, test_clock_customers
            TO counterfoil_serving;
    END IF;
END
$$;
