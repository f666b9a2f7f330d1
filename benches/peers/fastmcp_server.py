"""FastMCP's OIDCProxy with one tool, for benches/compare.sh.

Arguments: the port, the store (redis or file), and "cached-tls" to share one TLS context between the calls
to the identity provider, which as shipped makes one for each (its authorization header of the cost).
"""
import os
import ssl
import sys

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth.oidc_proxy import OIDCProxy

port = int(os.environ["PEER_PORT"])
store = os.environ.get("PEER_STORE", "file")
if os.environ.get("PEER_CACHED_TLS"):
    import httpx

    context = ssl.create_default_context()
    create = httpx.create_ssl_context
    for module in list(sys.modules.values()):
        if getattr(module, "create_ssl_context", None) is create:
            module.create_ssl_context = lambda *_, **__: context

storage = None  # as shipped: files, encrypted
if store == "redis":
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


app = mcp.http_app(stateless_http=True, json_response=True)

if __name__ == "__main__":
    uvicorn.run(
        "fastmcp_server:app",
        host="127.0.0.1",
        port=port,
        workers=int(os.environ.get("PEER_WORKERS", "1")),
        log_level="warning",
    )
