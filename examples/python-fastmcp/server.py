"""Echo and add, with FastMCP: behind the gateway without token code, or beside it with JWTVerifier."""

import os
from urllib.parse import urlsplit

import jwt
from fastmcp import FastMCP
from fastmcp.server.auth import AccessToken, JWTVerifier, RemoteAuthProvider, require_scopes

PORT = int(os.environ.get("PORT", "9004"))
MCP_URL = os.environ.get("MCP_URL", f"http://127.0.0.1:{PORT}/mcp")  # `id` of the resource, byte for byte
ISSUER = os.environ.get("ISSUER", "http://127.0.0.1:8000")  # `public_url` of Portcullis, byte for byte
SCOPES = ["use:echo", "use:add"]
BEHIND_GATEWAY = os.environ.get("BEHIND_GATEWAY") == "yes"


class AccessTokenVerifier(JWTVerifier):
    """What FastMCP checks, and the type, which it does not look at."""

    async def load_access_token(self, token: str) -> AccessToken | None:
        try:
            typ = jwt.get_unverified_header(token).get("typ")
        except jwt.PyJWTError:
            typ = None
        return await super().load_access_token(token) if typ == "at+jwt" else None


def beside_the_gateway() -> RemoteAuthProvider:
    verifier = AccessTokenVerifier(
        jwks_uri=f"{ISSUER}/.well-known/jwks.json",
        issuer=ISSUER,
        audience=MCP_URL,
        algorithm="ES256",
    )
    provider = RemoteAuthProvider(
        token_verifier=verifier,
        # As a text: AnyHttpUrl(…) would put a slash at the end, and clients compare issuers byte for byte.
        authorization_servers=[ISSUER],
        base_url="{0.scheme}://{0.netloc}".format(urlsplit(MCP_URL)),
        scopes_supported=SCOPES,
        challenge_scopes=SCOPES,  # all at once: not every client comes back for more later
    )
    # Said to the verifier, this would make a token without the scope no token at all (401 in place of 403).
    provider.required_scopes = ["use:echo"]
    return provider


server = FastMCP("echo and add", auth=None if BEHIND_GATEWAY else beside_the_gateway())


@server.tool
def echo(text: str) -> str:
    """Says what you said."""
    return text


# Behind the gateway, `[resource.tools]` has decided before the call arrives.
@server.tool(auth=None if BEHIND_GATEWAY else require_scopes("use:add"))
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


if __name__ == "__main__":
    server.run("http", host="127.0.0.1", port=PORT, path=urlsplit(MCP_URL).path, show_banner=False)
