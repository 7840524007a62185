// node-oidc-provider with the device flow, and a user who does what standard input says: `approve CODE` or `deny CODE`.
// It prints its issuer when it listens, and one line for each decision. It ends with its standard input.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import Provider from 'oidc-provider';

const USER = 'ada';
const CLIENT = 'client_cli';

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT,
        client_name: 'The example client',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
        response_types: [],
        redirect_uris: [],
      },
    ],
    claims: { openid: ['sub'], profile: ['name'], email: ['email'] },
    conformIdTokenClaims: false, // the name is in the ID token, as other servers have it
    features: {
      deviceFlow: { enabled: true },
      devInteractions: { enabled: false },
      revocation: { enabled: true },
    },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: 'Ada Lovelace', email: 'ada@example.com' }),
    }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  });
  const answer = provider.callback();
  server.on('request', (request, response) => {
    const answered = request.url.startsWith('/interaction/')
      ? interact(provider, request, response)
      : answer(request, response);
    Promise.resolve(answered).catch((error) => {
      console.error(error);
      response.statusCode = 500;
      response.end();
    });
  });
  console.log(issuer);

  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    const [decision, code] = line.split(' ');
    decide(issuer, code, decision === 'deny').then(
      (text) => console.log(`${decision}: ${text}`),
      (error) => console.log(`failed: ${error}`),
    );
  });
  lines.on('close', () => process.exit(0));
});

// The page where a user signs in and consents: this one always does.
async function interact(provider, request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    return provider.interactionFinished(request, response, { login: { accountId: USER } });
  }
  const accountId = session.accountId;
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const consent = { grantId: await grant.save() };
  return provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
}

// What a browser does when its user enters the code: pages, cookies, redirects.
async function decide(issuer, code, denies) {
  const cookies = new Map();
  const open = async (url, form) => {
    for (let hops = 0; hops < 10; hops += 1) {
      const response = await fetch(url, {
        method: form ? 'POST' : 'GET',
        body: form && new URLSearchParams(form),
        headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
        redirect: 'manual',
      });
      for (const line of response.headers.getSetCookie()) {
        const [name, value] = line.split(';')[0].split('=');
        cookies.set(name, value);
      }
      if (response.status < 300 || response.status > 399) return response.text();
      url = new URL(response.headers.get('location'), url);
      form = undefined;
    }
    throw new Error('too many redirects');
  };
  const page = await open(`${issuer}/device`);
  const [, xsrf] = /name="xsrf" value="([^"]+)"/.exec(page);
  const choice = denies ? { abort: 'yes' } : { confirm: 'yes' };
  const last = await open(`${issuer}/device`, { xsrf, user_code: code, ...choice });
  return /<h1>([^<]*)</.exec(last)?.[1] ?? 'no title';
}
