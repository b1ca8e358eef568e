-- Several registries: each has its own entries, revision and compacted revision.
CREATE TABLE registries (
    name      TEXT    NOT NULL PRIMARY KEY,
    revision  INTEGER NOT NULL,
    compacted INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO registries (name, revision, compacted)
SELECT 'default', CAST(value AS INTEGER),
       COALESCE((SELECT CAST(value AS INTEGER) FROM facts WHERE key = 'compacted'), 0)
FROM facts WHERE key = 'revision';

DELETE FROM facts WHERE key IN ('revision', 'compacted');

CREATE TABLE served (
    registry          TEXT    NOT NULL,
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
    PRIMARY KEY (registry, name, version)
) WITHOUT ROWID;

INSERT INTO served
SELECT 'default', name, version, server, status, status_changed_at, status_message, published_at,
       updated_at, is_latest, stale, revision
FROM entries;

DROP TABLE entries;
