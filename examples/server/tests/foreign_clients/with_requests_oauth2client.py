"""requests_oauth2client signs in through the issuer of the first argument. It prints the user code, and then what came of it, as
JSON."""

import json
import sys

import requests
from requests_oauth2client import DeviceAuthorizationPollingJob, EndpointError, OAuth2Client, PublicApp

CLIENT = "client_cli"


def say(value):
    print(json.dumps(value), flush=True)


def main(issuer):
    found = requests.get(f"{issuer}/.well-known/openid-configuration", timeout=10).json()
    client = OAuth2Client.from_discovery_document(
        found,
        issuer=issuer,
        auth=PublicApp(CLIENT),
        device_authorization_endpoint=found["device_authorization_endpoint"],  # it does not look for this one
        testing=True,  # http, because it is loopback
    )
    client.update_authorization_server_public_keys()
    codes = client.authorize_device(scope="openid profile email offline_access")
    say({"user_code": codes.user_code})
    job = DeviceAuthorizationPollingJob(client, codes)
    try:
        tokens = None
        while tokens is None:
            tokens = job()
    except EndpointError as error:
        say({"outcome": error.error})
        return
    claims = tokens.id_token
    assert claims.verify_signature(client.authorization_server_jwks, alg="RS256")
    assert claims.iss == issuer and claims.aud in (CLIENT, [CLIENT])
    user = client.userinfo(tokens)
    assert user["email"] == claims.email
    renewed = client.refresh_token(tokens)
    assert client.revoke_refresh_token(renewed)
    try:
        client.refresh_token(renewed)
        after = None
    except EndpointError as error:
        after = error.error
    say(
        {
            "outcome": "granted",
            "email": claims.email,
            "renewed": str(renewed) != str(tokens),
            "after_revocation": after,
        }
    )


main(sys.argv[1])
