"""oauthlib signs in through the issuer of the first argument. It prints the user code, and then what came of it, as JSON.

oauthlib builds the requests and reads the answers, and sends nothing itself: that is for requests to do.
"""

import json
import os
import sys
import time

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # http, because it is loopback

import requests
from oauthlib.oauth2 import DeviceClient, OAuth2Error

CLIENT = "client_cli"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def say(value):
    print(json.dumps(value), flush=True)


def send(url, body, headers=FORM):
    return requests.post(url, data=body, headers=headers, timeout=10)


def poll(client, endpoint, codes):
    interval = codes.get("interval", 5)
    while True:
        time.sleep(interval)
        body = client.prepare_request_body(codes["device_code"], include_client_id=True)
        try:
            return client.parse_request_body_response(send(endpoint, body).text)
        except OAuth2Error as error:
            if error.error == "slow_down":
                interval += 5
            elif error.error != "authorization_pending":
                raise


def refresh(client, endpoint, token):
    body = client.prepare_refresh_body(refresh_token=token, client_id=CLIENT)
    return client.parse_request_body_response(send(endpoint, body).text)


def revoke(client, endpoint, token):
    request = client.prepare_token_revocation_request(endpoint, token, "refresh_token", client_id=CLIENT)
    url, headers, body = request
    send(url, body, headers).raise_for_status()


def main(issuer):
    found = requests.get(f"{issuer}/.well-known/openid-configuration", timeout=10).json()
    client = DeviceClient(CLIENT)
    asked = {"client_id": CLIENT, "scope": "openid profile email offline_access"}
    codes = requests.post(found["device_authorization_endpoint"], data=asked, timeout=10).json()
    say({"user_code": codes["user_code"]})
    try:
        tokens = poll(client, found["token_endpoint"], codes)
    except OAuth2Error as error:
        say({"outcome": error.error})
        return
    url, headers, _ = client.add_token(found["userinfo_endpoint"])
    user = requests.get(url, headers=headers, timeout=10).json()
    renewed = refresh(client, found["token_endpoint"], tokens["refresh_token"])
    revoke(client, found["revocation_endpoint"], renewed["refresh_token"])
    try:
        refresh(client, found["token_endpoint"], renewed["refresh_token"])
        after = None
    except OAuth2Error as error:
        after = error.error
    say(
        {
            "outcome": "granted",
            "email": user["email"],
            "renewed": renewed["access_token"] != tokens["access_token"],
            "after_revocation": after,
        }
    )


main(sys.argv[1])
