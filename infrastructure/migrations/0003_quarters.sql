-- Quarters are of UTC, whatever the time zone of whoever makes their partitions: three months after the
-- first moment of one is not the first moment of the next elsewhere. A quarter that overlaps a partition
-- that was made so is kept where events of no quarter are.
CREATE OR REPLACE FUNCTION extend_events(upto timestamptz) RETURNS integer
LANGUAGE plpgsql SET timezone TO 'UTC' AS $$
DECLARE
    quarter timestamptz;
    name    text;
    made    integer := 0;
BEGIN
    FOR quarter IN
        SELECT generate_series(date_trunc('quarter', clock_timestamp()), upto, '3 months')
    LOOP
        name := to_char(quarter, '"events_"YYYY"_q"Q');
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
        EXCEPTION WHEN check_violation OR invalid_object_definition THEN
            NULL;
        END;
    END LOOP;
    RETURN made;
END
$$;
