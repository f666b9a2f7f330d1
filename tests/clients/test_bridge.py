"""The official Python SDK on both sides of `portcullis bridge` and the gateway, in both eras of the protocol;
and npm's server-everything. Run by scripts/test-bridge."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import httpx2
from mcp.client import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

import people
from people import free_port, start

PORTCULLIS = os.environ["PORTCULLIS"]
HERE = Path(__file__).parent
REDIRECT_URI = "http://127.0.0.1:53130/callback"


class Memory:
    """What the SDK asks its user to keep."""

    def __init__(self) -> None:
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


def connect(mcp_url: str, name: str, mode: str) -> Client:
    person = people.Person(name, REDIRECT_URI)

    async def callback() -> AuthorizationCodeResult:
        answer = person.answer
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer.get("iss"))

    auth = OAuthClientProvider(
        server_url=mcp_url,
        client_metadata=OAuthClientMetadata(client_name="Python SDK", redirect_uris=[REDIRECT_URI]),
        storage=Memory(),
        redirect_handler=person.open,
        callback_handler=callback,
    )
    http = httpx2.AsyncClient(auth=auth, timeout=30)
    return Client(streamable_http_client(mcp_url, http_client=http), mode=mode)


async def whoami(client: Client) -> dict[str, str]:
    answer = await client.call_tool("whoami", {})
    assert not answer.is_error, answer
    return answer.structured_content.get("result", answer.structured_content)


async def run() -> None:
    portcullis, provider_port, python_port, everything_port = (free_port() for _ in range(4))
    public_url = f"http://127.0.0.1:{portcullis}"
    server = HERE / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    commands = {
        python_port: [sys.executable, str(HERE / "stdio_server.py")],
        everything_port: ["node", str(server), "stdio"],
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "portcullis.toml").write_text(f"""
public_url = "{public_url}"
listen     = "127.0.0.1:{portcullis}"
[upstream]
provider      = "oidc"
issuer        = "http://127.0.0.1:{provider_port}"
client_id     = "portcullis"
client_secret = {{ env = "UPSTREAM_SECRET" }}
[client_documents]
enabled = false
[[resource]]
path   = "/python"
target = "http://127.0.0.1:{python_port}/mcp"
scopes = ["use"]
tools  = {{ forever = ["use"] }}
[[resource]]
path   = "/everything"
target = "http://127.0.0.1:{everything_port}/mcp"
scopes = ["use"]
""")
        os.environ["UPSTREAM_SECRET"] = "a secret: with / characters + that need % encoding"
        os.environ["PORTCULLIS_LOG"] = "info"
        node = ["node", str(HERE / "provider.mjs"), str(provider_port), f"{public_url}/auth/callback"]
        processes = [start(node, "listening", folder)]
        for port, command in commands.items():
            bridge = [PORTCULLIS, "bridge", "--listen", f"127.0.0.1:{port}", "--", *command]
            processes.append(start(bridge, "serving", folder, "stderr"))
        processes.append(start([PORTCULLIS, "serve"], "serving", folder, "stderr"))
        try:
            pids = {}
            for mode in ("auto", "legacy"):
                for name in ("somebody", "admin"):
                    async with connect(f"{public_url}/python", name, mode) as client:
                        told = [await whoami(client) for _ in range(3)]
                        assert {one["PORTCULLIS_SUBJECT"] for one in told} == {f"oidc:{name}"}, told
                        pids[mode, name] = told[0]["pid"]
                        version = client.protocol_version
                    print(f"ok {mode}: {name} calls a Python server on stdio, by {version}")
            assert len(set(pids.values())) == 4, pids

            # Without sessions, a person has one process, whatever client they use.
            async with connect(f"{public_url}/python", "somebody", "auto") as client:
                again = (await whoami(client))["pid"]
                modern = client.protocol_version >= "2026-07-28"
            assert (again == pids["auto", "somebody"]) == modern, (again, pids)

            for mode in ("auto", "legacy"):
                async with connect(f"{public_url}/everything", "somebody", mode) as client:
                    tools = {tool.name for tool in (await client.list_tools()).tools}
                    assert {"echo", "get-sum"} <= tools, tools
                    answer = await client.call_tool("get-sum", {"a": 2, "b": 3})
                    assert "5" in answer.content[0].text, answer
                    print(f"ok {mode}: somebody calls server-everything on stdio, by {client.protocol_version}")
        finally:
            for process in processes:
                process.terminate()
                process.wait()


asyncio.run(run())
print("all tests of the bridge with the Python SDK passed")
