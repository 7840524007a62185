-- Sign-ins to the page that have ended before their time.
CREATE TABLE sign_outs (
    id    TEXT   NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);
CREATE INDEX sign_outs_until ON sign_outs (until);
