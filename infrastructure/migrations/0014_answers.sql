-- What a command is answered with, once its outcome is known, in order of the requests. In the row of the
-- key it left a dead row each time, and so room for one key in a page of the past: in a large store each
-- new key went into another old page. Who is answered at once is so in the row of the key, and what was
-- answered before this stays there until it is forgotten.
CREATE TABLE idempotency_answers (
    request_id      text     NOT NULL,
    merchant_id     text     NOT NULL,
    mode            text     NOT NULL,
    key             text     NOT NULL,
    payment_id      uuid     NOT NULL,
    status          smallint NOT NULL,
    headers         jsonb    NOT NULL,
    body            bytea    NOT NULL,
    tells_of_people boolean  NOT NULL,
    CONSTRAINT idempotency_answers_pkey PRIMARY KEY (request_id, merchant_id, mode, key)
);
CREATE INDEX idempotency_answers_that_tell_of_people ON idempotency_answers (payment_id)
    WHERE tells_of_people;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_answers TO counterfoil_serving;
    END IF;
END
$$;
