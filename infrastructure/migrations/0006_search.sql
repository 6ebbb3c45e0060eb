-- Customers are searched by email, in whatever case.
CREATE INDEX personal_data_by_folded_email
    ON personal_data (merchant_id, mode, (lower(document ->> 'email')), owner)
    WHERE document ->> 'email' IS NOT NULL;
