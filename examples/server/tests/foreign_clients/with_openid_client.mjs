// openid-client signs in through the issuer of the first argument. It prints the user code, and then what came of it, as JSON.
import * as client from 'openid-client';

const say = (value) => console.log(JSON.stringify(value));
const reason = (error) => error.error ?? String(error.cause ?? error);

const config = await client.discovery(new URL(process.argv[2]), 'client_cli', undefined, client.None(), {
  // http, because it is loopback; and the ID token's signature, which the library leaves to TLS unless told.
  execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks],
});
const codes = await client.initiateDeviceAuthorization(config, { scope: 'openid profile email offline_access' });
say({ user_code: codes.user_code });
try {
  // By itself it stops when the code expires. Here the server is to say that it has.
  const signal = AbortSignal.timeout((codes.expires_in + 10) * 1000);
  const tokens = await client.pollDeviceAuthorizationGrant(config, codes, undefined, { signal });
  const claims = tokens.claims();
  const user = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
  const renewed = await client.refreshTokenGrant(config, tokens.refresh_token);
  await client.tokenRevocation(config, renewed.refresh_token, { token_type_hint: 'refresh_token' });
  const again = await client.refreshTokenGrant(config, renewed.refresh_token).catch(reason);
  say({
    outcome: 'granted',
    email: claims.email === user.email && user.email,
    renewed: renewed.access_token !== tokens.access_token,
    after_revocation: again,
  });
} catch (error) {
  say({ outcome: reason(error) });
}
