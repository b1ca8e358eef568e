-- Facts about the whole: epoch (identity of this history), sequence (of the last commit; its row is
-- locked by who writes), pruned (commits up to this one cannot be caught up with).
CREATE TABLE facts (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO facts (key, value) VALUES ('sequence', '0'), ('pruned', '0');

-- What sources contributed. One that is gone stays for a while without its entry, for replicas to
-- hear of it. `sequence` is that of the commit that wrote the row, here and below.
CREATE TABLE contributions (
    source   TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    entry    BYTEA,
    sequence BIGINT NOT NULL,
    PRIMARY KEY (source, id)
);
CREATE INDEX contributions_by_sequence ON contributions (sequence);

CREATE TABLE registries (
    name      TEXT   NOT NULL PRIMARY KEY,
    revision  BIGINT NOT NULL,
    compacted BIGINT NOT NULL,
    sequence  BIGINT NOT NULL
);

-- What is served. Times in microseconds since 1970.
CREATE TABLE served (
    registry          TEXT    NOT NULL,
    name              TEXT    NOT NULL,
    version           TEXT    NOT NULL,
    server            TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    status_changed_at BIGINT  NOT NULL,
    status_message    TEXT,
    published_at      BIGINT  NOT NULL,
    updated_at        BIGINT  NOT NULL,
    is_latest         BOOLEAN NOT NULL,
    stale             BOOLEAN NOT NULL,
    revision          BIGINT  NOT NULL,
    sequence          BIGINT  NOT NULL,
    PRIMARY KEY (registry, name, version)
);
CREATE INDEX served_by_sequence ON served (sequence);

-- Which replica has the session of a publisher, and when it was last seen, in microseconds.
CREATE TABLE publishers (
    source   TEXT   NOT NULL PRIMARY KEY,
    owner    TEXT   NOT NULL,
    seen     BIGINT NOT NULL,
    sequence BIGINT NOT NULL
);
