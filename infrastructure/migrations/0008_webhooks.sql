-- Where merchants want to be told of events.
CREATE TABLE webhook_endpoints (
    id              uuid        NOT NULL PRIMARY KEY,
    merchant_id     text        NOT NULL,
    mode            text        NOT NULL,
    url             text        NOT NULL,
    enabled_events  text[]      NOT NULL,
    api_version     text,
    description     text,
    metadata        jsonb       NOT NULL,
    is_enabled      boolean     NOT NULL,
    disabled_reason text,
    disabled_at     timestamptz,
    failing_since   timestamptz,
    -- How far each shard of the log went when it was enabled: it is told of what came after.
    enabled_at      bigint[]    NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);
CREATE INDEX webhook_endpoints_newest ON webhook_endpoints (merchant_id, mode, id);

-- What deliveries are signed with, encrypted with the vault's keys. Several while a rotation lasts.
CREATE TABLE webhook_secrets (
    id          uuid        NOT NULL PRIMARY KEY,
    endpoint_id uuid        NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    sealed      bytea       NOT NULL,
    expires_at  timestamptz
);
CREATE INDEX webhook_secrets_of_endpoint ON webhook_secrets (endpoint_id);

-- How many deliveries each merchant was sent in a minute, which is its number: lost in a crash, and no
-- harm done.
CREATE UNLOGGED TABLE webhook_minutes (
    merchant_id text   NOT NULL PRIMARY KEY,
    minute      bigint NOT NULL,
    sent        bigint NOT NULL
);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON
            webhook_endpoints, webhook_secrets, webhook_minutes TO counterfoil_serving;
    END IF;
END
$$;
