-- A call that waits for its shopper can be given up: another takes its place, and both commands' keys have
-- the one outcome.
ALTER TABLE bank_calls ADD COLUMN superseded_key text;
