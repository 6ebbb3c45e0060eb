-- Payment methods' cards, encrypted; and who people are, which the log never says.

CREATE TABLE stored_cards (
    shard         smallint NOT NULL,
    method_id     uuid     NOT NULL,
    sealed_number bytea    NOT NULL,
    sealed_cvc    bytea,
    cvc_until     timestamptz,
    CONSTRAINT stored_cards_pkey PRIMARY KEY (shard, method_id)
);
CREATE INDEX stored_cards_cvc_until ON stored_cards (cvc_until) WHERE sealed_cvc IS NOT NULL;

-- A secret of ours, encrypted with the vault's keys, so that it outlives each of them.
CREATE TABLE vault_secrets (
    name   text  NOT NULL PRIMARY KEY,
    sealed bytea NOT NULL
);

-- Names, emails, addresses: of a customer, or as they were given with something else. Erased on request.
CREATE TABLE personal_data (
    shard       smallint NOT NULL,
    owner       uuid     NOT NULL,
    merchant_id text     NOT NULL,
    mode        text     NOT NULL,
    document    jsonb    NOT NULL,
    CONSTRAINT personal_data_pkey PRIMARY KEY (shard, owner)
);
CREATE INDEX personal_data_by_email ON personal_data (merchant_id, mode, (document ->> 'email'), owner)
    WHERE document ->> 'email' IS NOT NULL;

-- Which references of an answer that is still due are to be answered as the things themselves.
ALTER TABLE bank_calls ADD COLUMN expand text[] NOT NULL DEFAULT '{}';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON stored_cards, vault_secrets, personal_data
            TO counterfoil_serving;
    END IF;
END
$$;
