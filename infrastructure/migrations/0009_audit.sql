-- The log as evidence: one order over all shards, the tree over it, and what was signed of it. All of it
-- is made from the log by a worker, apart from the write path, and holds no lock that a writer waits for.

-- How far the tree goes, and who is at it. One row.
CREATE TABLE audit_tree (
    is_it       boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (is_it),
    size        bigint      NOT NULL,
    origin      text,
    owner       uuid,
    owned_until timestamptz
) WITH (fillfactor = 20);
INSERT INTO audit_tree (size) VALUES (0);

-- How far each shard is sealed.
CREATE TABLE audit_cursors (
    shard    smallint NOT NULL PRIMARY KEY,
    position bigint   NOT NULL
) WITH (fillfactor = 20);
INSERT INTO audit_cursors (shard, position) SELECT shard, 0 FROM shard_heads;

-- Which events are where in the one order: `events` of them, one after the other, from
-- `shard_position` in their shard and from `position`, which counts from 0, in the whole log.
CREATE TABLE audit_runs (
    position       bigint   NOT NULL PRIMARY KEY,
    shard          smallint NOT NULL,
    shard_position bigint   NOT NULL,
    events         integer  NOT NULL CHECK (events > 0),
    CONSTRAINT audit_runs_of_a_shard UNIQUE (shard, shard_position)
);

-- The tree's nodes, of every eighth level from the leaves up: a tile has 256 of them, 32 bytes each, the
-- last of a level those that there are. The levels between follow from these.
CREATE TABLE audit_tiles (
    level  smallint NOT NULL,
    tile   bigint   NOT NULL,
    hashes bytea    NOT NULL CHECK (length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0),
    CONSTRAINT audit_tiles_pkey PRIMARY KEY (level, tile)
);
ALTER TABLE audit_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- What was signed, for ever. `keys`: of the keys that signed it, as audit_keys has them.
CREATE TABLE audit_checkpoints (
    number     bigint      NOT NULL PRIMARY KEY,
    size       bigint      NOT NULL,
    root       bytea       NOT NULL,
    note       text        NOT NULL,
    keys       text[]      NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX audit_checkpoints_by_size ON audit_checkpoints (size);

-- What witnesses said of a checkpoint, each at last.
CREATE TABLE audit_cosignatures (
    number     bigint NOT NULL,
    witness    text   NOT NULL,
    timestamp  bigint NOT NULL,
    line       text   NOT NULL,
    CONSTRAINT audit_cosignatures_pkey PRIMARY KEY (number, witness)
);

-- Every public key that checkpoints were ever signed with.
CREATE TABLE audit_keys (
    vkey       text        NOT NULL PRIMARY KEY,
    first_used timestamptz NOT NULL,
    last_used  timestamptz NOT NULL
);

-- How far each outside place has been told; `target` is a hash of where it is.
CREATE TABLE audit_pushes (
    target   text        NOT NULL PRIMARY KEY,
    number   bigint      NOT NULL,
    failures integer     NOT NULL,
    due_at   timestamptz NOT NULL
);

CREATE FUNCTION refuse_change_of_evidence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was sealed is never changed or deleted' USING ERRCODE = 'CF003';
END
$$;
-- A tile only ever gets longer.
CREATE FUNCTION refuse_other_tile() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.level, NEW.tile) <> (OLD.level, OLD.tile)
       OR substr(NEW.hashes, 1, length(OLD.hashes)) <> OLD.hashes
    THEN
        RAISE EXCEPTION 'what was sealed is never changed or deleted' USING ERRCODE = 'CF003';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER tiles_only_grow BEFORE UPDATE ON audit_tiles
    FOR EACH ROW EXECUTE FUNCTION refuse_other_tile();
CREATE TRIGGER tiles_are_for_ever BEFORE DELETE ON audit_tiles
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_evidence();
CREATE TRIGGER tiles_are_never_truncated BEFORE TRUNCATE ON audit_tiles
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_evidence();
CREATE TRIGGER runs_are_for_ever BEFORE UPDATE OR DELETE ON audit_runs
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_evidence();
CREATE TRIGGER runs_are_never_truncated BEFORE TRUNCATE ON audit_runs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_evidence();
CREATE TRIGGER checkpoints_are_for_ever BEFORE UPDATE OR DELETE ON audit_checkpoints
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_evidence();
CREATE TRIGGER checkpoints_are_never_truncated BEFORE TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_evidence();

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_serving') THEN
        REVOKE ALL ON audit_runs, audit_tiles, audit_checkpoints, audit_keys, audit_tree,
            audit_cursors, audit_cosignatures, audit_pushes FROM counterfoil_serving;
        GRANT SELECT, INSERT ON audit_runs, audit_checkpoints TO counterfoil_serving;
        GRANT SELECT, INSERT, UPDATE ON audit_tiles, audit_keys, audit_cosignatures, audit_pushes
            TO counterfoil_serving;
        GRANT SELECT, UPDATE ON audit_tree, audit_cursors TO counterfoil_serving;
    END IF;
END
$$;
