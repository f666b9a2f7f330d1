"""What time is it? A server that verifies Portcullis' tokens itself, with PyJWT.

The MCP SDK asks the verifier below about every token; it answers 401 with the resource metadata when the
verifier says no, and 403 when the permission `access:mcp` is missing.
"""

import os
from datetime import datetime
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import anyio
import jwt
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer

PORT = int(os.environ.get("PORT", "9001"))
MCP_URL = os.environ.get("MCP_URL", f"http://127.0.0.1:{PORT}/mcp")  # `id` of the resource, byte for byte
ISSUER = os.environ.get("ISSUER", "http://127.0.0.1:8000")  # `public_url` of Portcullis, byte for byte


class PortcullisTokens(TokenVerifier):
    """Access tokens that Portcullis issued for this server, and nothing else."""

    def __init__(self) -> None:
        self.keys = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json")

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            claims = await anyio.to_thread.run_sync(self.claims_of, token)
        except jwt.PyJWKClientConnectionError:
            raise  # the keys cannot be fetched: our trouble (500), and no reason to log anybody out (401)
        except jwt.PyJWTError:
            return None
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims["scope"].split(),
            expires_at=claims["exp"],
            resource=claims["aud"],
            subject=claims["sub"],
            claims=claims,
        )

    def claims_of(self, token: str) -> dict:
        if jwt.get_unverified_header(token).get("typ") != "at+jwt":
            raise jwt.InvalidTokenError("not an access token")
        return jwt.decode(
            token,
            self.keys.get_signing_key_from_jwt(token),
            algorithms=["RS256"],  # never taken from the token
            issuer=ISSUER,
            audience=MCP_URL,
            options={"strict_aud": True, "require": ["iss", "aud", "sub", "client_id", "scope", "iat", "exp"]},
        )


server = MCPServer(
    "clock",
    token_verifier=PortcullisTokens(),
    auth=AuthSettings(
        issuer_url=ISSUER,
        resource_server_url=MCP_URL,
        required_scopes=["access:mcp"],
        validate_token_resource=True,
    ),
)


@server.tool()
def get_time(timezone: str = "UTC") -> str:
    """Says what time it is, in a time zone such as Europe/Vienna."""
    try:
        return datetime.now(ZoneInfo(timezone)).isoformat(timespec="seconds")
    except (ZoneInfoNotFoundError, ValueError):
        return f"There is no time zone {timezone!r}."


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=PORT, streamable_http_path=urlsplit(MCP_URL).path)
