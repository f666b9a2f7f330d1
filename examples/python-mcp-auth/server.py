"""The to-do manager, with the MCP Auth SDK (mcpauth) as the verifier of Portcullis' tokens."""

import contextlib
import itertools
import os
from urllib.parse import urlsplit

import jwt
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcpauth import MCPAuth
from mcpauth.config import AuthServerType
from mcpauth.exceptions import MCPAuthTokenVerificationException, MCPAuthTokenVerificationExceptionCode
from mcpauth.types import AuthInfo
from mcpauth.utils import create_verify_jwt, fetch_server_config
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

PORT = int(os.environ.get("PORT", "9002"))
MCP_URL = os.environ.get("MCP_URL", f"http://127.0.0.1:{PORT}/mcp")  # `id` of the resource, byte for byte
ISSUER = os.environ.get("ISSUER", "http://127.0.0.1:8000")  # `public_url` of Portcullis, byte for byte

SCOPES = ["create:todos", "read:todos", "delete:todos"]
METADATA_PATH = "/.well-known/oauth-protected-resource" + urlsplit(MCP_URL).path
METADATA_URL = "{0.scheme}://{0.netloc}{1}".format(urlsplit(MCP_URL), METADATA_PATH)

auth = MCPAuth(server=fetch_server_config(ISSUER, AuthServerType.OAUTH))
verify_jwt = create_verify_jwt(auth.server.metadata.jwks_uri, algorithms=["ES256"], leeway=5)


def verify(token: str) -> AuthInfo:
    """What mcpauth checks, and the type, which it does not look at."""
    try:
        typ = jwt.get_unverified_header(token).get("typ")
    except jwt.PyJWTError:
        typ = None
    if typ != "at+jwt":
        raise MCPAuthTokenVerificationException(MCPAuthTokenVerificationExceptionCode.INVALID_TOKEN)
    return verify_jwt(token)


class Challenge:
    """Adds to a 401 where a token comes from; mcpauth 0.1 leaves that out (RFC 9728 §5.1)."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def challenge(message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                words = f'Bearer resource_metadata="{METADATA_URL}", scope="{" ".join(SCOPES)}"'
                MutableHeaders(scope=message)["WWW-Authenticate"] = words
            await send(message)

        await self.app(scope, receive, challenge)


server = MCPServer("to-do manager")
todos: dict[str, dict[str, str]] = {}
ids = itertools.count(1)


def caller(scope: str | None = None) -> AuthInfo:
    """Who calls this tool; they must have `scope`."""
    info = auth.auth_info
    if scope and scope not in info.scopes:
        raise ToolError(f"This needs the permission {scope}.")
    return info


@server.tool(name="create-todo")
def create_todo(content: str) -> dict[str, str]:
    """Adds a to-do for yourself."""
    todo = {"id": str(next(ids)), "owner": caller("create:todos").subject, "content": content}
    todos[todo["id"]] = todo
    return todo


@server.tool(name="get-todos")
def get_todos() -> dict[str, list[dict[str, str]]]:
    """Lists to-dos: everybody's with read:todos, otherwise your own."""
    info = caller()
    everybody = "read:todos" in info.scopes
    return {"todos": [todo for todo in todos.values() if everybody or todo["owner"] == info.subject]}


@server.tool(name="delete-todo")
def delete_todo(id: str) -> dict[str, str]:
    """Deletes a to-do: anybody's with delete:todos, otherwise your own."""
    todo = todos.get(id)
    if todo is None or todo["owner"] != caller().subject:
        caller("delete:todos")
    if todo is None:
        raise ToolError(f"There is no to-do {id}.")
    del todos[id]
    return todo


async def metadata(_request) -> JSONResponse:
    """Where tokens for this server come from (RFC 9728); mcpauth 0.1 does not publish it."""
    document = {"resource": MCP_URL, "authorization_servers": [ISSUER], "scopes_supported": SCOPES}
    return JSONResponse(document, headers={"Access-Control-Allow-Origin": "*"})


# Without sessions a tool runs in the context of its own request, where mcpauth keeps who calls.
mcp = server.streamable_http_app(streamable_http_path=urlsplit(MCP_URL).path, stateless_http=True)


@contextlib.asynccontextmanager
async def lifespan(_app):
    async with server.session_manager.run():
        yield


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route(METADATA_PATH, metadata),
        Mount(
            "/",
            app=mcp,
            middleware=[Middleware(Challenge), Middleware(auth.bearer_auth_middleware(verify, audience=MCP_URL))],
        ),
    ],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
