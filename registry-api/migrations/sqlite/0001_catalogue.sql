-- Facts about the whole: epoch (identity of this history), revision, compacted.
CREATE TABLE facts (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- What publishers sent, as encoded waymark.registry.v1.Entry.
CREATE TABLE contributions (
    source TEXT NOT NULL,
    id     TEXT NOT NULL,
    entry  BLOB NOT NULL,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;

-- What is served. Times in microseconds since 1970.
CREATE TABLE entries (
    name              TEXT    NOT NULL,
    version           TEXT    NOT NULL,
    server            TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    status_changed_at INTEGER NOT NULL,
    status_message    TEXT,
    published_at      INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    is_latest         INTEGER NOT NULL,
    stale             INTEGER NOT NULL,
    revision          INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
