-- Authorizations that wait for a shopper to approve them at a page of the bank's.

ALTER TABLE bank_calls ADD COLUMN return_url text;
ALTER TABLE bank_calls ADD COLUMN waits_for_shopper boolean NOT NULL DEFAULT false;
