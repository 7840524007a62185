// oauth4webapi signs in through the issuer of the first argument. It prints the user code, and then what came of it, as JSON.
import * as oauth from 'oauth4webapi';

const say = (value) => console.log(JSON.stringify(value));
const issuer = new URL(process.argv[2]);
const client = { client_id: 'client_cli' };
const none = oauth.None();
const options = { [oauth.allowInsecureRequests]: true }; // http, because it is loopback

const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, options));

async function authorize() {
  const asked = { scope: 'openid profile email offline_access' };
  const response = await oauth.deviceAuthorizationRequest(as, client, none, asked, options);
  return oauth.processDeviceAuthorizationResponse(as, client, response);
}

// The library leaves the loop to its user.
async function poll(codes) {
  let interval = codes.interval ?? 5;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, interval * 1000));
    const response = await oauth.deviceCodeGrantRequest(as, client, none, codes.device_code, options);
    try {
      const tokens = await oauth.processDeviceCodeResponse(as, client, response);
      await oauth.validateApplicationLevelSignature(as, response, options);
      return tokens;
    } catch (error) {
      if (error.error === 'slow_down') {
        interval += 5;
      } else if (error.error !== 'authorization_pending') {
        throw error;
      }
    }
  }
}

async function refresh(token) {
  const response = await oauth.refreshTokenGrantRequest(as, client, none, token, options);
  return oauth.processRefreshTokenResponse(as, client, response);
}

async function revoke(token) {
  const hint = { additionalParameters: { token_type_hint: 'refresh_token' } };
  const response = await oauth.revocationRequest(as, client, none, token, { ...options, ...hint });
  await oauth.processRevocationResponse(response);
}

const codes = await authorize();
say({ user_code: codes.user_code });
try {
  const tokens = await poll(codes);
  const claims = oauth.getValidatedIdTokenClaims(tokens);
  const response = await oauth.userInfoRequest(as, client, tokens.access_token, options);
  const user = await oauth.processUserInfoResponse(as, client, claims.sub, response);
  const renewed = await refresh(tokens.refresh_token);
  await revoke(renewed.refresh_token);
  say({
    outcome: 'granted',
    email: claims.email === user.email && user.email,
    renewed: renewed.access_token !== tokens.access_token,
    after_revocation: await refresh(renewed.refresh_token).catch((error) => error.error),
  });
} catch (error) {
  say({ outcome: error.error ?? String(error.cause ?? error) });
}
