-- What a statement is about holds, or the whole transaction fails: so that several go out together, and
-- none of them waits for what another found.
CREATE FUNCTION require(holds boolean, otherwise text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF holds IS NOT TRUE THEN
        RAISE EXCEPTION '%', otherwise USING ERRCODE = 'CF002';
    END IF;
    RETURN true;
END
$$;
