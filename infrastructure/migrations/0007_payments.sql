-- A token's card is kept for an hour, and the token is used once.
ALTER TABLE stored_cards ADD COLUMN kept_until timestamptz;
CREATE INDEX stored_cards_kept_until ON stored_cards (kept_until) WHERE kept_until IS NOT NULL;

CREATE TABLE used_tokens (
    shard    smallint    NOT NULL,
    token_id uuid        NOT NULL,
    used_at  timestamptz NOT NULL,
    CONSTRAINT used_tokens_pkey PRIMARY KEY (shard, token_id)
);

-- Payments are listed by what they say of themselves; where receipts are yet to be made, they come with it.
DO $$
BEGIN
    IF to_regclass('public.receipts') IS NOT NULL THEN
        CREATE INDEX receipts_by_payment_status ON public.receipts (merchant_id, mode, (
            CASE
                WHEN status IN ('captured', 'refunded') THEN 'succeeded'
                WHEN status = 'declined' THEN 'failed'
                WHEN status IN ('voided', 'expired') THEN
                    CASE WHEN document ? 'is_paid_at_once' THEN 'failed' ELSE 'canceled' END
                WHEN status = 'pending' AND document ? 'action_url' THEN 'requires_action'
                ELSE status
            END
        ), payment_id);
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON used_tokens TO counterfoil_serving;
    END IF;
END
$$;
