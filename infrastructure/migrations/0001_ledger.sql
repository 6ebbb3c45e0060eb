-- The ledger's first schema.
--
-- `shard` leads the key of every table that follows a payment, and nothing here spans shards: no
-- sequence, no foreign key, no unique index. Order slots and idempotency keys have keys of their own.

-- The log. `position` is gapless within a shard; an event's order in its aggregate is its version.
--
-- Aggregates' ids begin with the time at which they were made, so a partition holds the whole
-- histories of the aggregates of one quarter. All but the last are at rest: they are frozen once, their
-- indexes are hardly read, and each can be detached and kept elsewhere when its aggregates are done
-- with. A position is given out only with its shard's head locked, which is why no index over all
-- partitions has to keep two events from having the same one.
CREATE TABLE events (
    shard              smallint    NOT NULL,
    position           bigint      NOT NULL,
    originator_id      uuid        NOT NULL,
    originator_version bigint      NOT NULL,
    event_id           uuid        NOT NULL,
    topic              text        NOT NULL,
    state              bytea       NOT NULL,
    cause              text        NOT NULL,
    recorded_at        timestamptz NOT NULL,
    digest             bytea       NOT NULL,
    chain_hash         bytea       NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (shard, originator_id, originator_version),
    CONSTRAINT events_position_key UNIQUE (shard, position, originator_id)
) PARTITION BY RANGE (originator_id);

-- For ids of no quarter that has a partition: nothing is ever refused for want of one.
CREATE TABLE events_at_other_times PARTITION OF events DEFAULT;

-- The least id that can be made at a moment: its first 48 bits are milliseconds since 1970.
CREATE FUNCTION least_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0')
            || repeat('0', 20))::uuid
$$;

-- How far each shard's log goes, and the hash that chains all of it.
CREATE TABLE shard_heads (
    shard    smallint NOT NULL PRIMARY KEY,
    position bigint   NOT NULL,
    hash     bytea    NOT NULL
) WITH (fillfactor = 20);

INSERT INTO shard_heads (shard, position, hash)
SELECT shard, 0, sha256('') FROM generate_series(0, 63) AS shard;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are never changed or deleted' USING ERRCODE = 'CF002';
END
$$;

CREATE TRIGGER events_are_for_ever BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_are_never_truncated BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_are_never_truncated BEFORE TRUNCATE ON events_at_other_times
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Makes the partitions of the quarters from now up to `upto`; how many. A quarter of which events are
-- already kept with those of other times stays with them.
CREATE FUNCTION extend_events(upto timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    quarter timestamptz;
    name    text;
    made    integer := 0;
BEGIN
    FOR quarter IN
        SELECT generate_series(date_trunc('quarter', clock_timestamp(), 'UTC'), upto, '3 months')
    LOOP
        name := to_char(quarter AT TIME ZONE 'UTC', '"events_"YYYY"_q"Q');
        CONTINUE WHEN to_regclass('public.' || name) IS NOT NULL;
        BEGIN
            EXECUTE format(
                'CREATE TABLE public.%I PARTITION OF public.events FOR VALUES FROM (%L) TO (%L)',
                name, least_id_at(quarter), least_id_at(quarter + interval '3 months')
            );
            EXECUTE format(
                'CREATE TRIGGER events_are_never_truncated BEFORE TRUNCATE ON public.%I '
                'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name
            );
            PERFORM refuse_rights(name);
            made := made + 1;
        EXCEPTION WHEN check_violation THEN
            NULL;
        END;
    END LOOP;
    RETURN made;
END
$$;

-- Whoever serves reads and appends the log by its parent's rights, and has none on a partition.
CREATE FUNCTION refuse_rights(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        EXECUTE format('REVOKE ALL ON public.%I FROM counterfoil_serving', name);
    END IF;
END
$$;

-- What the bank was asked and has not been recorded to have answered.
CREATE TABLE bank_calls (
    shard           smallint    NOT NULL,
    payment_id      uuid        NOT NULL,
    merchant_id     text        NOT NULL,
    mode            text        NOT NULL,
    operation       text        NOT NULL,
    bank_key        text        NOT NULL,
    request_id      text,
    idempotency_key text,
    actor           text        NOT NULL,
    family          text        NOT NULL,
    dialect         text        NOT NULL,
    sealed_card     bytea,
    attempts        integer     NOT NULL,
    unanswered      integer     NOT NULL,
    contradictions  integer     NOT NULL,
    reached         boolean     NOT NULL,
    in_flight       boolean     NOT NULL,
    parked          boolean     NOT NULL,
    fence           bigint      NOT NULL,
    due_at          timestamptz NOT NULL,
    since           timestamptz NOT NULL,
    reason          text,
    CONSTRAINT bank_calls_pkey PRIMARY KEY (shard, payment_id)
);
CREATE INDEX bank_calls_due ON bank_calls (due_at);

-- Whoever ends a call must hold its lease; fails otherwise, with all that was to be written with it.
CREATE FUNCTION require_lease(ended_calls bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF ended_calls <> 1 THEN
        RAISE EXCEPTION 'the lease was lost' USING ERRCODE = 'CF001';
    END IF;
    RETURN true;
END
$$;

-- One live payment an order.
CREATE TABLE order_slots (
    merchant_id text NOT NULL,
    mode        text NOT NULL,
    order_id    text NOT NULL,
    payment_id  uuid NOT NULL,
    CONSTRAINT order_slots_pkey PRIMARY KEY (merchant_id, mode, order_id)
);

-- Idempotency keys, with what they were used for and what was answered.
CREATE TABLE idempotency_keys (
    merchant_id text        NOT NULL,
    mode        text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    request_id  text        NOT NULL,
    payment_id  uuid        NOT NULL,
    claimed_at  timestamptz NOT NULL,
    status      smallint,
    headers     jsonb,
    body        bytea,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (merchant_id, mode, key)
);
CREATE INDEX idempotency_keys_claimed_at ON idempotency_keys (claimed_at);

-- Read models have their tables in the files that define them. Of each there is one generation that is
-- live, in the schema that everyone reads, and at most one more, in the schema beside: on its way to
-- take its place, or the one that did.
CREATE SCHEMA IF NOT EXISTS beside;
CREATE SCHEMA IF NOT EXISTS swapping;

CREATE TABLE projection_generations (
    name         text        NOT NULL,
    generation   integer     NOT NULL,
    slot         text        NOT NULL,
    status       text        NOT NULL,
    code_version integer     NOT NULL,
    paused       boolean     NOT NULL DEFAULT false,
    owner        uuid,
    owned_until  timestamptz,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    built_at     timestamptz,
    promoted_at  timestamptz,
    CONSTRAINT projection_generations_pkey PRIMARY KEY (name, generation),
    CONSTRAINT projection_generations_slot UNIQUE (name, slot) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT projection_generations_slots CHECK (slot IN ('live', 'beside')),
    CONSTRAINT projection_generations_statuses CHECK (
        status IN ('live', 'building', 'ready', 'previous')
    )
);

-- How far each generation has read each shard. None: as the log itself, or not yet built.
CREATE TABLE projection_positions (
    name       text        NOT NULL,
    generation integer     NOT NULL,
    shard      smallint    NOT NULL,
    position   bigint      NOT NULL,
    CONSTRAINT projection_positions_pkey PRIMARY KEY (name, generation, shard)
) WITH (fillfactor = 20);

-- Payments that a generation could not take in, from which version on, and why.
CREATE TABLE projection_quarantine (
    name            text        NOT NULL,
    generation      integer     NOT NULL,
    shard           smallint    NOT NULL,
    originator_id   uuid        NOT NULL,
    applied_version bigint      NOT NULL,
    error           text        NOT NULL,
    attempts        integer     NOT NULL,
    since           timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT projection_quarantine_pkey PRIMARY KEY (name, generation, shard, originator_id)
);

-- Who may ask.
CREATE TABLE merchants (
    merchant_id  text        NOT NULL PRIMARY KEY,
    name         text        NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL,
    suspended_at timestamptz
);

CREATE TABLE api_keys (
    key_id       text        NOT NULL PRIMARY KEY,
    digest       bytea       NOT NULL UNIQUE,
    prefix       text        NOT NULL,
    merchant_id  text        NOT NULL,
    mode         text        NOT NULL,
    type         text        NOT NULL,
    scopes       text[]      NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);

-- Rate limits: lost in a crash, and no harm done.
CREATE UNLOGGED TABLE rate_limit_windows (
    name       text        NOT NULL PRIMARY KEY,
    hits       bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);

-- The role that the API and the workers take on, wherever whoever migrates may make one: it appends to
-- the log and reads it, and has no right to change or delete anything in it, nor to change the schema.
DO $$
BEGIN
    CREATE ROLE counterfoil_serving NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END
$$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        RETURN;
    END IF;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        BEGIN
            EXECUTE format('GRANT counterfoil_serving TO %I', current_user);
        EXCEPTION WHEN insufficient_privilege THEN
            -- It was made by somebody else, for another database of this server.
            IF NOT pg_has_role(current_user, 'counterfoil_serving', 'MEMBER') THEN
                RETURN;
            END IF;
        END;
    END IF;
    GRANT USAGE ON SCHEMA public, beside TO counterfoil_serving;
    GRANT SELECT, INSERT, UPDATE, DELETE ON
        bank_calls, order_slots, idempotency_keys, merchants, api_keys, rate_limit_windows,
        projection_generations, projection_positions, projection_quarantine
    TO counterfoil_serving;
    GRANT SELECT, UPDATE ON shard_heads TO counterfoil_serving;
    GRANT SELECT, INSERT ON events TO counterfoil_serving;
    GRANT SELECT ON schema_migrations TO counterfoil_serving;
    -- For the tables of read models, which come later.
    ALTER DEFAULT PRIVILEGES IN SCHEMA public, beside
        GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO counterfoil_serving;
END
$$;
