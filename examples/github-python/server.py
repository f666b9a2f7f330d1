"""What you have on GitHub, with the official SDK: the token by header, by exchange, and a link where it is missing."""

import os
import secrets

import httpx2
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp_types import ElicitRequest, ElicitRequestURLParams, InputRequiredResult

PORT = int(os.environ.get("PORT", "9013"))
ISSUER = os.environ.get("ISSUER", "http://127.0.0.1:8000")  # `public_url` of Portcullis
MCP_URL = os.environ.get("MCP_URL", f"{ISSUER}/github-python")  # `public_url` and the resource's `path`
SECRET = os.environ["MCP_SERVER_SECRET"]  # `introspection_secret` of the resource
GITHUB = os.environ.get("GITHUB_API", "https://api.github.com")

server = MCPServer("github")


class NotConnected(Exception):
    """The person has to open a page of Portcullis first."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


async def token_from_exchange(ctx: Context) -> str:
    """Exchanges the gateway's assertion about this call for the caller's token of GitHub (RFC 8693)."""
    async with httpx2.AsyncClient(auth=(MCP_URL, SECRET), timeout=30) as http:
        answer = await http.post(f"{ISSUER}/token", data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": ctx.headers["x-portcullis-assertion"],
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "audience": "github",  # the name of the connection
        })
    if answer.status_code == 503:
        raise ToolError("GitHub does not answer now. Try again in a moment.")
    body = answer.json()
    if url := body.get("connect_url"):
        raise NotConnected(url)
    answer.raise_for_status()
    return body["access_token"]


def ask_to_connect(ctx: Context, url: str) -> InputRequiredResult:
    """Asks the person to open the link, in the way that their client understands."""
    message = "Connect your GitHub account, then continue."
    capabilities = ctx.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if elicitation is None or elicitation.url is None:
        raise ToolError(f"Connect your GitHub account here, then try again: {url}")
    if ctx.protocol_version < "2026-07-28":
        params = ElicitRequestURLParams(message=message, url=url, elicitation_id=secrets.token_urlsafe(16))
        raise UrlElicitationRequiredError([params])  # -32042
    params = ElicitRequestURLParams(message=message, url=url)
    return InputRequiredResult(input_requests={"connect": ElicitRequest(params=params)})


async def ask_github(token: str, path: str):
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=30) as http:
        answer = await http.get(f"{GITHUB}{path}")
    answer.raise_for_status()
    return answer.json()


@server.tool()
async def who_am_i(ctx: Context) -> str:
    """Says which GitHub account you use."""
    # By header: the gateway set it. Nobody but the gateway reaches this port, and clients cannot send it.
    return (await ask_github(ctx.headers["x-github-token"], "/user"))["login"]


@server.tool()
async def my_repositories(ctx: Context) -> list[str] | InputRequiredResult:
    """Lists your repositories on GitHub."""
    # By exchange: this tool asks for the token itself, only when it needs one.
    try:
        token = await token_from_exchange(ctx)
    except NotConnected as missing:
        return ask_to_connect(ctx, missing.url)
    return [found["full_name"] for found in await ask_github(token, "/user/repos")]


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=PORT)
