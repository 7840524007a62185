-- Sign-ins to the page that have ended before their time.
CREATE TABLE sign_outs (
    id    TEXT    NOT NULL PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_outs_until ON sign_outs (until);

-- Whose login it is, from the approval to the end.
ALTER TABLE sessions ADD COLUMN subject TEXT;
UPDATE sessions SET subject = coalesce(
    body ->> '$.state.active.approval.subject',
    body ->> '$.state.approved.subject'
);
CREATE INDEX sessions_subject ON sessions (subject) WHERE subject IS NOT NULL;
