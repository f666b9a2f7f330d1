// oidc-provider with its development pages and its store in memory, for benches/compare.sh.
import { Provider } from "oidc-provider";

const port = Number(process.env.PEER_PORT);
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  cookies: { keys: ["a key that is only good for measuring"] },
  features: { registration: { enabled: true }, devInteractions: { enabled: true } },
  scopes: ["openid", "offline_access"],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});
provider.listen(port, "127.0.0.1");
