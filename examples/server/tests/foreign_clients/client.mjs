// openid-client signs in through the issuer of the first argument. It prints the user code, and then what came of it, as JSON.
import * as client from 'openid-client';

const say = (value) => console.log(JSON.stringify(value));

const config = await client.discovery(new URL(process.argv[2]), 'client_cli', undefined, client.None(), {
  // http, for it is loopback; and the ID token's signature, which the library leaves to TLS unless told.
  execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks],
});
const codes = await client.initiateDeviceAuthorization(config, { scope: 'openid profile email offline_access' });
say({ user_code: codes.user_code });
try {
  const tokens = await client.pollDeviceAuthorizationGrant(config, codes);
  const claims = tokens.claims();
  const user = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
  const renewed = await client.refreshTokenGrant(config, tokens.refresh_token);
  say({
    outcome: 'granted',
    email: claims.email,
    same_user: user.email === claims.email,
    renewed: renewed.access_token !== tokens.access_token,
  });
} catch (error) {
  say({ outcome: error.error ?? String(error.cause ?? error) });
}
