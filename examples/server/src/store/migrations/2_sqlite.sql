-- The second edition: one record for a login, from its first code to its last refresh. What the first edition wrote cannot be
-- read any more. Its codes lived for five minutes; its refresh tokens are refused from now on.

DROP TABLE refresh_tokens;
DROP TABLE families;
DROP TABLE sessions;
DELETE FROM quotas;
DELETE FROM secrets WHERE name = 'user-code-key';

-- A session whose code was redeemed has no user key: the code is then free.
CREATE TABLE sessions (
    key      BLOB    NOT NULL PRIMARY KEY,
    user_key BLOB    UNIQUE,
    version  INTEGER NOT NULL,
    purge_at INTEGER NOT NULL,
    body     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_purge_at ON sessions (purge_at);
