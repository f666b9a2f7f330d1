"""FastMCP's OIDCProxy with one tool, for benches/compare.sh; configured by PEER_… variables.

PEER_STORE is "file" (as shipped) or "redis" (recommended); PEER_CACHED_TLS shares one TLS context between the
calls to the identity provider, where the version as shipped makes one for each. PEER_SESSIONS keeps MCP sessions,
which event streams need.
"""
import os

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth.oidc_proxy import OIDCProxy

port = int(os.environ["PEER_PORT"])
if os.environ.get("PEER_CACHED_TLS"):
    import functools

    import httpx2._config
    import httpx2._transports.default

    cached = functools.lru_cache(httpx2._config.create_ssl_context)
    httpx2._config.create_ssl_context = cached
    httpx2._transports.default.create_ssl_context = cached

storage = None  # as shipped: files, encrypted
if os.environ.get("PEER_STORE") == "redis":
    from key_value.aio.stores.redis import RedisStore

    storage = RedisStore(url=os.environ["PEER_REDIS"])

auth = OIDCProxy(
    config_url=os.environ["PEER_ISSUER"] + "/.well-known/openid-configuration",
    client_id="load",
    client_secret="load-secret-load-secret",
    algorithm="ES256",
    audience="load",
    base_url=f"http://127.0.0.1:{port}",
    jwt_signing_key="a key that is only good for measuring 0123456789",
    client_storage=storage,
)
mcp = FastMCP("load", auth=auth)


@mcp.tool
def ping() -> str:
    return "pong"


if os.environ.get("PEER_SESSIONS"):
    app = mcp.http_app()
else:
    app = mcp.http_app(stateless_http=True, json_response=True)

if __name__ == "__main__":
    uvicorn.run(
        "fastmcp_server:app",
        host="127.0.0.1",
        port=port,
        workers=int(os.environ.get("PEER_WORKERS", "1")),
        log_level="warning",
    )
