"""What you have on GitHub, with FastMCP: two ways to the person's token. The client sees it in neither."""

import os

import httpx2
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_http_headers
from mcp_types import ElicitRequest, ElicitRequestURLParams, InputRequiredResult

PORT = int(os.environ.get("PORT", "9012"))
ISSUER = os.environ.get("ISSUER", "http://127.0.0.1:8000")  # `public_url` of Portcullis
MCP_URL = os.environ.get("MCP_URL", f"{ISSUER}/github-fastmcp")  # `public_url` and the resource's `path`
SECRET = os.environ["MCP_SERVER_SECRET"]  # `introspection_secret` of the resource
GITHUB = os.environ.get("GITHUB_API", "https://api.github.com")

server = FastMCP("github")


class NotConnected(Exception):
    """The person has to open a page of Portcullis first."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


async def token_from_exchange() -> str:
    """Exchanges the gateway's assertion about this call for the caller's token of GitHub (RFC 8693)."""
    async with httpx2.AsyncClient(auth=(MCP_URL, SECRET), timeout=30) as http:
        answer = await http.post(f"{ISSUER}/token", data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": get_http_headers()["x-portcullis-assertion"],
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
    """Asks the person to open the link: with MCP 2026-07-28 if their client can show it, and in words otherwise."""
    request = ctx.request_context
    capabilities = request.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    if request.protocol_version < "2026-07-28" or elicitation is None or elicitation.url is None:
        raise ToolError(f"Connect your GitHub account here, then try again: {url}")
    params = ElicitRequestURLParams(message="Connect your GitHub account, then continue.", url=url)
    return InputRequiredResult(input_requests={"connect": ElicitRequest(params=params)})


async def ask_github(token: str, path: str):
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=30) as http:
        answer = await http.get(f"{GITHUB}{path}")
    answer.raise_for_status()
    return answer.json()


@server.tool
async def who_am_i() -> str:
    """Says which GitHub account you use."""
    # By header: the gateway set it. Nobody but the gateway reaches this port, and clients cannot send it.
    return (await ask_github(get_http_headers()["x-github-token"], "/user"))["login"]


@server.tool
async def my_repositories(ctx: Context) -> list[str] | InputRequiredResult:
    """Lists your repositories on GitHub."""
    # By exchange: this tool asks for the token itself, only when it needs one.
    try:
        token = await token_from_exchange()
    except NotConnected as missing:
        return ask_to_connect(ctx, missing.url)
    return [found["full_name"] for found in await ask_github(token, "/user/repos")]


if __name__ == "__main__":
    server.run("http", host="127.0.0.1", port=PORT, path="/mcp", show_banner=False)
