-- Times are milliseconds since the Unix epoch. A body is a stored form as JSON; the columns beside it are what statements ask for.

CREATE TABLE sessions (
    key      BLOB    NOT NULL PRIMARY KEY,
    user_key BLOB    NOT NULL UNIQUE,
    version  INTEGER NOT NULL,
    purge_at INTEGER NOT NULL,
    body     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_purge_at ON sessions (purge_at);

-- By "value" a quota is also purged: it is the moment from which on it says nothing.
CREATE TABLE quotas (
    key   BLOB    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX quotas_value ON quotas (value);

CREATE TABLE families (
    key        BLOB    NOT NULL PRIMARY KEY,
    newest     BLOB    NOT NULL,
    expires_at INTEGER NOT NULL,
    body       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX families_expires_at ON families (expires_at);

-- Without a reference: a revoked family is gone at once, its tokens when they expire.
CREATE TABLE refresh_tokens (
    digest     BLOB    NOT NULL PRIMARY KEY,
    family     BLOB    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
