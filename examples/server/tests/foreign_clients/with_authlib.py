"""Authlib signs in through the issuer of the first argument. It prints the user code, and then what came of it, as JSON."""

import json
import sys
import time

import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.jwk import KeySet

CLIENT = "client_cli"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def say(value):
    print(json.dumps(value), flush=True)


def poll(session, endpoint, codes):
    """Authlib leaves the loop to its user."""
    interval = codes.get("interval", 5)
    while True:
        time.sleep(interval)
        try:
            return session.fetch_token(endpoint, grant_type=DEVICE_GRANT, device_code=codes["device_code"])
        except OAuthError as error:
            if error.error == "slow_down":
                interval += 5
            elif error.error != "authorization_pending":
                raise


def main(issuer):
    found = requests.get(f"{issuer}/.well-known/openid-configuration", timeout=10).json()
    session = OAuth2Session(CLIENT, token_endpoint_auth_method="none", revocation_endpoint_auth_method="none")
    asked = {"client_id": CLIENT, "scope": "openid profile email offline_access"}
    codes = requests.post(found["device_authorization_endpoint"], data=asked, timeout=10).json()
    say({"user_code": codes["user_code"]})
    try:
        tokens = poll(session, found["token_endpoint"], codes)
    except OAuthError as error:
        say({"outcome": error.error})
        return
    keys = KeySet.import_key_set(requests.get(found["jwks_uri"], timeout=10).json())
    claims = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"]).claims
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": CLIENT},
        exp={"essential": True},
    ).validate(claims)
    user = session.get(found["userinfo_endpoint"], timeout=10).json()
    assert user["email"] == claims["email"]
    renewed = session.refresh_token(found["token_endpoint"], refresh_token=tokens["refresh_token"])
    token = renewed["refresh_token"]
    session.revoke_token(found["revocation_endpoint"], token, "refresh_token").raise_for_status()
    try:
        session.refresh_token(found["token_endpoint"], refresh_token=token)
        after = None
    except OAuthError as error:
        after = error.error
    say(
        {
            "outcome": "granted",
            "email": claims["email"],
            "renewed": renewed["access_token"] != tokens["access_token"],
            "after_revocation": after,
        }
    )


main(sys.argv[1])
