"""The official Python SDK's own OAuth client against Portcullis, as its users run it.

Twice: against `portcullis demo`, and against `portcullis serve` with an identity provider (npm
oidc-provider) and an MCP server (the SDK's) that are not ours. Run by scripts/test-clients.
"""

import asyncio
import base64
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

import httpx2
import jwt
from mcp.client import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.auth import OAuthClientMetadata
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from mcp_types import ElicitResult

import people
from people import free_port, start

PORTCULLIS = os.environ["PORTCULLIS"]
HERE = Path(__file__).parent
logging.disable(logging.CRITICAL)
REDIRECT_URI = "http://127.0.0.1:53124/callback"


class Person(people.Person):
    """Somebody whose client is the SDK."""

    def __init__(self, name: str) -> None:
        super().__init__(name, REDIRECT_URI)

    async def callback(self) -> AuthorizationCodeResult:
        if error := self.answer.get("error"):
            raise PermissionError(error)
        return AuthorizationCodeResult(code=self.answer["code"], state=self.answer["state"], iss=self.answer.get("iss"))


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


def connect(mcp_url: str, person: Person, memory: Memory, mode: str, **options):
    auth = OAuthClientProvider(
        server_url=mcp_url,
        client_metadata=OAuthClientMetadata(client_name="Python SDK", redirect_uris=[REDIRECT_URI]),
        storage=memory,
        redirect_handler=person.open,
        callback_handler=person.callback,
    )
    http = httpx2.AsyncClient(auth=auth, timeout=20)
    return Client(streamable_http_client(mcp_url, http_client=http), mode=mode, **options), auth


def claims_of(token: str) -> tuple[dict, dict]:
    parts = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]
    return parts[0], parts[1]


def check_token(memory: Memory, mcp_url: str) -> None:
    header, claims = claims_of(memory.tokens.access_token)
    assert header["typ"] == "at+jwt", header
    assert claims["aud"] == mcp_url, claims
    assert claims["client_id"] == memory.client.client_id
    assert claims["jti"] and claims["scope"] == memory.tokens.scope


def failure_inside(error: BaseException, kind: type) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(failure_inside(inner, kind) for inner in error.exceptions)
    return isinstance(error, kind) or (error.__cause__ is not None and failure_inside(error.__cause__, kind))


async def against_demo() -> None:
    with tempfile.TemporaryDirectory() as folder:
        listen = f"127.0.0.1:{free_port()}"
        os.environ["PORTCULLIS_LOG"] = "warn"
        demo = start([PORTCULLIS, "demo", "--listen", listen], "Ctrl-C", folder)
        mcp_url = f"http://{listen}/mcp"
        try:
            for mode in ("auto", "legacy"):
                bob, memory = Person("bob"), Memory()
                connection, auth = connect(mcp_url, bob, memory, mode)
                async with connection as client:
                    tools = {tool.name for tool in (await client.list_tools()).tools}
                    assert tools == {"create-todo", "get-todos", "delete-todo", "purge-todos", "agenda"}, tools
                    made = await client.call_tool("create-todo", {"content": f"Tea ({mode})"})
                    assert not made.is_error, made
                    check_token(memory, mcp_url)
                    todos = (await client.call_tool("get-todos", {})).structured_content["todos"]
                    assert [todo["content"] for todo in todos][-1] == f"Tea ({mode})"
                    assert memory.tokens.scope == "create:todos"

                    # When its access token has expired, the SDK refreshes, and nobody is asked again.
                    before = memory.tokens
                    auth.context.token_expiry_time = 1
                    await client.call_tool("get-todos", {})
                    assert memory.tokens.refresh_token != before.refresh_token
                    assert bob.asked == 1
                print(f"ok demo, {mode}: bob connects, lists, creates, reads, and is refreshed")

            alice, memory = Person("alice"), Memory()
            async with connect(mcp_url, alice, memory, "auto")[0] as client:
                todos = (await client.call_tool("get-todos", {})).structured_content["todos"]
                assert len(todos) == 2, "alice sees everybody's"
                purged = await client.call_tool("purge-todos", {})
                assert purged.structured_content["deleted"] == 2, purged
            print("ok demo: alice sees everybody's and purges")

            # What bob may never do, the tool says; he is not sent to sign in again.
            bob, memory = Person("bob"), Memory()
            async with connect(mcp_url, bob, memory, "auto")[0] as client:
                refused = await client.call_tool("purge-todos", {})
                assert refused.is_error and "administrator" in refused.content[0].text, refused
            assert bob.asked == 1, bob.asked
            print("ok demo: bob reads that he may not purge:", refused.content[0].text)

            await with_calendar(mcp_url)

            mallory, memory = Person("mallory"), Memory()
            try:
                async with connect(mcp_url, mallory, memory, "auto")[0] as client:
                    await client.list_tools()
                raise AssertionError("mallory got in")
            except BaseException as error:
                if not failure_inside(error, PermissionError):
                    raise
            assert mallory.answer["error"] == "access_denied", mallory.answer
            assert memory.tokens is None
            print("ok demo: mallory's client learns access_denied")
        finally:
            demo.terminate()
            demo.wait()


def events(result) -> list[str]:
    assert not result.is_error, result
    return [event["what"] for event in result.structured_content["events"]]


async def with_calendar(mcp_url: str) -> None:
    """A tool that needs a service: each client gets the link in the way that it can show."""
    # It states nothing: a text, which the model shows.
    alice, memory = Person("alice"), Memory()
    async with connect(mcp_url, alice, memory, "auto")[0] as client:
        refused = await client.call_tool("agenda", {})
        assert refused.is_error and "/connect/calendar?for=" in refused.content[0].text, refused
    print("ok demo: alice reads a link to connect her calendar:", refused.content[0].text)

    # 2026-07-28: the SDK opens the link and repeats the call by itself.
    opened: list[str] = []

    async def open_link(_context, params) -> ElicitResult:
        opened.append(params.url)
        await alice.connect_service(params.url)
        return ElicitResult(action="accept")

    alice, memory = Person("alice"), Memory()
    async with connect(mcp_url, alice, memory, "auto", elicitation_callback=open_link)[0] as client:
        assert events(await client.call_tool("agenda", {})) == ["Stand-up", "Access review with Bob"]
        assert len(opened) == 1 and "/connect/calendar?for=" in opened[0], opened
        assert events(await client.call_tool("agenda", {})) == ["Stand-up", "Access review with Bob"]
        assert len(opened) == 1, opened
    print("ok demo: the SDK hears input_required, alice connects, and the repeated call has her agenda")

    # 2025-11-25: an error with the link. The application opens it, and calls again.
    bob, memory = Person("bob"), Memory()
    async with connect(mcp_url, bob, memory, "legacy", elicitation_callback=open_link)[0] as client:
        try:
            raise AssertionError(await client.call_tool("agenda", {}))
        except MCPError as error:
            links = [asked.url for asked in UrlElicitationRequiredError.from_error(error.error).elicitations]
        assert len(links) == 1 and "/connect/calendar?for=" in links[0], links
        await bob.connect_service(links[0])
        assert events(await client.call_tool("agenda", {})) == ["Dentist", "Access review with Alice"]
    print("ok demo: the SDK hears -32042, bob connects, and the second call has his agenda")


def mcp_server(seen: list[dict[str, str]]) -> MCPServer:
    server = MCPServer("behind")

    @server.tool()
    async def whoami(ctx: Context) -> dict[str, str]:
        """Says who calls."""
        headers = {name.lower(): value for name, value in dict(ctx.request_context.request.headers).items()}
        seen.append(headers)
        return {"subject": headers["x-portcullis-subject"], "scopes": headers["x-portcullis-scopes"]}

    return server


async def against_serve() -> None:
    portcullis, provider_port, mcp_port = free_port(), free_port(), free_port()
    public_url = f"http://127.0.0.1:{portcullis}"
    seen: list[dict[str, str]] = []
    server = mcp_server(seen)
    serving = asyncio.create_task(server.run_streamable_http_async(host="127.0.0.1", port=mcp_port))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "portcullis.toml").write_text(f"""
public_url = "{public_url}"
listen     = "127.0.0.1:{portcullis}"
[upstream]
provider      = "oidc"
issuer        = "http://127.0.0.1:{provider_port}"
client_id     = "portcullis"
client_secret = {{ env = "UPSTREAM_SECRET" }}
[[resource]]
path   = "/mcp"
target = "http://127.0.0.1:{mcp_port}/mcp"
scopes = ["admin", "use"]
rule   = [{{ roles = ["Admin"], allow = ["admin", "use"] }}, {{ roles = ["User"], allow = ["use"] }}]
""")
        os.environ["UPSTREAM_SECRET"] = "a secret: with / characters + that need % encoding"
        os.environ["PORTCULLIS_LOG"] = "info"
        node = ["node", str(HERE / "provider.mjs"), str(provider_port), f"{public_url}/auth/callback"]
        provider = start(node, "listening", folder)
        process = start([PORTCULLIS, "serve"], "serving", folder, "stderr")
        try:
            for name, scopes in (("admin", "admin use"), ("somebody", "use")):
                for mode in ("auto", "legacy"):
                    person, memory = Person(name), Memory()
                    async with connect(f"{public_url}/mcp", person, memory, mode)[0] as client:
                        answer = await client.call_tool("whoami", {})
                        assert not answer.is_error, answer
                        told = answer.structured_content
                        told = told.get("result", told)
                        assert told == {"subject": f"oidc:{name}", "scopes": scopes}, told
                        check_token(memory, f"{public_url}/mcp")
                        assert memory.tokens.access_token not in json.dumps(seen)
                        assert all("authorization" not in headers for headers in seen)
                    print(f"ok serve, {mode}: {name} signs in at a foreign provider and calls a foreign MCP server")
        finally:
            for child in (process, provider):
                child.terminate()
                child.wait()
            serving.cancel()


def verified(assertion: str, public_url: str, audience: str) -> dict:
    """Who calls, as docs/mcp-servers.md tells servers to check it."""
    if jwt.get_unverified_header(assertion).get("typ") != "portcullis-assertion+jwt":
        raise jwt.InvalidTokenError("not an assertion")
    keys = jwt.PyJWKClient(f"{public_url}/.well-known/jwks.json")
    return jwt.decode(
        assertion, keys.get_signing_key_from_jwt(assertion).key, algorithms=["ES256"],
        issuer=public_url, audience=audience, options={"require": ["exp", "iat", "sub"]},
    )


async def against_serve_in_depth() -> None:
    """Step-up, signed assertions, and a server of the old transport; the SDK on both sides of the gateway."""
    portcullis, provider_port, new_port, old_port = (free_port() for _ in range(4))
    public_url = f"http://127.0.0.1:{portcullis}"
    seen: list[dict[str, str]] = []
    new, old = mcp_server(seen), mcp_server(seen)

    @new.tool()
    async def destroy() -> str:
        """Needs a scope of its own."""
        return "done"

    serving = [
        asyncio.create_task(new.run_streamable_http_async(host="127.0.0.1", port=new_port)),
        asyncio.create_task(old.run_sse_async(host="127.0.0.1", port=old_port)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "portcullis.toml").write_text(f"""
public_url = "{public_url}"
listen     = "127.0.0.1:{portcullis}"
[upstream]
provider      = "oidc"
issuer        = "http://127.0.0.1:{provider_port}"
client_id     = "portcullis"
client_secret = {{ env = "UPSTREAM_SECRET" }}
[[resource]]
path           = "/new"
target         = "http://127.0.0.1:{new_port}/mcp"
scopes         = ["admin", "use"]
default_scopes = ["use"]
assertion      = true
tools          = {{ destroy = ["admin"] }}
rule           = [{{ roles = ["Admin"], allow = ["admin", "use"] }}, {{ roles = ["User"], allow = ["use"] }}]
[[resource]]
path      = "/old"
target    = "http://127.0.0.1:{old_port}/sse"
transport = "http+sse"
scopes    = ["use"]
hide_forbidden_tools = true
tools     = {{ whoami = ["use"] }}
rule      = [{{ roles = ["Admin", "User"], allow = ["use"] }}]
""")
        os.environ["UPSTREAM_SECRET"] = "a secret: with / characters + that need % encoding"
        os.environ["PORTCULLIS_LOG"] = "info"
        node = ["node", str(HERE / "provider.mjs"), str(provider_port), f"{public_url}/auth/callback"]
        provider = start(node, "listening", folder)
        process = start([PORTCULLIS, "serve"], "serving", folder, "stderr")
        try:
            admin, memory = Person("admin"), Memory()
            async with connect(f"{public_url}/new", admin, memory, "auto")[0] as client:
                await client.call_tool("whoami", {})
                assert (memory.tokens.scope, admin.asked) == ("use", 1), memory.tokens
                claims = verified(seen[-1]["x-portcullis-assertion"], public_url, f"http://127.0.0.1:{new_port}/mcp")
                assert (claims["sub"], claims["scope"]) == ("oidc:admin", "use"), claims
                done = await client.call_tool("destroy", {})
                assert not done.is_error, done
                assert (memory.tokens.scope, admin.asked) == ("admin use", 2), memory.tokens
            print("ok serve: the SDK steps up to the union of scopes, and the assertion is PyJWT's to verify")

            somebody, memory = Person("somebody"), Memory()
            async with connect(f"{public_url}/new", somebody, memory, "auto")[0] as client:
                refused = await client.call_tool("destroy", {})
                assert refused.is_error and "administrator" in refused.content[0].text, refused
            assert somebody.asked == 1, "a sign-in that helps nobody was asked for"
            print("ok serve: where the rules forbid it the tool says so, and the SDK asks for no other sign-in")

            somebody, memory = Person("somebody"), Memory()
            auth = connect(f"{public_url}/old", somebody, memory, "legacy")[1]
            async with Client(sse_client(f"{public_url}/old", auth=auth), mode="legacy") as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == ["whoami"]
                told = (await client.call_tool("whoami", {})).structured_content
                assert told.get("result", told)["subject"] == "oidc:somebody", told
            print("ok serve: the SDK's old client calls the SDK's old server (HTTP+SSE) through the gateway")
        finally:
            for child in (process, provider):
                child.terminate()
                child.wait()
            for task in serving:
                task.cancel()


asyncio.run(against_demo())
asyncio.run(against_serve())
asyncio.run(against_serve_in_depth())
print("all client tests passed")
sys.exit(0)
