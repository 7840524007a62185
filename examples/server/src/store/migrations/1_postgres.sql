-- Times are milliseconds since the Unix epoch. A body is a stored form as JSON; the columns beside it are what statements ask for.

CREATE TABLE sessions (
    key      BYTEA  NOT NULL PRIMARY KEY,
    user_key BYTEA  NOT NULL UNIQUE,
    version  BIGINT NOT NULL,
    purge_at BIGINT NOT NULL,
    body     TEXT   NOT NULL
);
CREATE INDEX sessions_purge_at ON sessions (purge_at);

-- Written with every poll, so not logged: a crash of the database forgets it, which costs a few early polls. Without a
-- reference, for that would lock the session's row.
CREATE UNLOGGED TABLE paces (
    key      BYTEA  NOT NULL PRIMARY KEY,
    purge_at BIGINT NOT NULL,
    body     TEXT   NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX paces_purge_at ON paces (purge_at);

-- By "value" a quota is also purged: it is the moment from which on it says nothing.
CREATE TABLE quotas (
    key   BYTEA  NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
CREATE INDEX quotas_value ON quotas (value);

CREATE TABLE families (
    key        BYTEA  NOT NULL PRIMARY KEY,
    newest     BYTEA  NOT NULL,
    expires_at BIGINT NOT NULL,
    body       TEXT   NOT NULL
);
CREATE INDEX families_expires_at ON families (expires_at);

-- Without a reference: a revoked family is gone at once, its tokens when they expire.
CREATE TABLE refresh_tokens (
    digest     BYTEA  NOT NULL PRIMARY KEY,
    family     BYTEA  NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

CREATE TABLE secrets (
    name  TEXT  NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);
