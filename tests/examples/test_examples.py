"""The servers of examples/, protected by a real Portcullis, called by real people's clients.

The configuration is what the READMEs of the examples say, with free ports in place of theirs. People sign
in at npm's oidc-provider, and their client is the official Python SDK's. Run by scripts/test-examples.
"""

import asyncio
import base64
import hashlib
import json
import logging
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"
sys.path.insert(0, str(HERE.parent / "clients"))

import httpx2
from mcp.client import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from mcp.shared.exceptions import MCPError

import mcp_types

import github
import people
from people import free_port, start

logging.disable(logging.CRITICAL)
PORTCULLIS = os.environ["PORTCULLIS"]
DICE = os.environ["DICE"]
REDIRECT_URI = "http://127.0.0.1:53125/callback"
SECRET = "a secret: with / characters + that need % encoding"
INTROSPECTION_SECRET = secrets.token_urlsafe(32)
MCP_SERVER_SECRET = secrets.token_urlsafe(32)
GITHUB_RUST = os.environ["GITHUB_RUST"]


@dataclass
class Server:
    """An example, as it runs."""

    folder: str
    readme_port: int
    command: list[str]
    alg: str
    tools: set[str]
    path: str | None = None  # behind the gateway
    env: dict[str, str] = field(default_factory=dict)
    url: str = ""

    @property
    def name(self) -> str:
        return self.folder + (", behind" if self.path else "")


SERVERS = [
    Server("python-pyjwt", 9001, [sys.executable, "server.py"], "RS256", {"get_time"}),
    Server("python-mcp-auth", 9002, [sys.executable, "server.py"], "ES256", {"create-todo", "get-todos", "delete-todo"}),
    Server("node-mcp-auth", 9003, ["node", "server.mjs"], "EdDSA", {"create-todo", "get-todos", "delete-todo"}),
    Server("python-fastmcp", 9004, [sys.executable, "server.py"], "ES256", {"echo", "add"}),
    Server("python-fastmcp", 9005, [sys.executable, "server.py"], "ES256", {"echo", "add"}, "/echo", {"BEHIND_GATEWAY": "yes"}),
    Server("python-behind-gateway", 9006, [sys.executable, "server.py"], "ES256", {"get_fortune"}, "/fortune"),
    Server("rust-rmcp", 9007, [DICE], "ES256", {"roll", "roll_loaded"}),
    Server("node-express", 9008, ["node", "server.mjs"], "ES256", {"greet", "announce"}),
    Server("go-sdk", 9009, [os.environ["GO_GREETER"]], "ES256", {"greet", "announce"}),
    Server("java-spring-ai", 9010, ["java", "-jar", "target/greeter.jar"], "ES256", {"greet", "announce"}),
    Server("java-quarkus", 9011, ["java", "-jar", "target/quarkus-app/quarkus-run.jar"], "ES256", {"greet", "announce"}),
    Server("github-fastmcp", 9012, [sys.executable, "server.py"], "ES256", {"who_am_i", "my_repositories"}, "/github-fastmcp"),
    Server("github-python", 9013, [sys.executable, "server.py"], "ES256", {"who_am_i", "my_repositories"}, "/github-python"),
    Server("github-node", 9014, ["node", "server.mjs"], "ES256", {"who_am_i", "my_repositories"}, "/github-node"),
    Server("github-rust", 9015, [GITHUB_RUST], "ES256", {"who_am_i", "my_repositories"}, "/github-rust"),
]
CLOCK, TODO_PYTHON, TODO_NODE, ECHO, ECHO_BEHIND, FORTUNE, DICE_SERVER, *GREETERS = SERVERS[:11]
ON_GITHUB = SERVERS[11:]


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

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


def connect(server: Server, name: str, **how) -> tuple[Client, Memory]:
    person, memory = Person(name), Memory()
    auth = OAuthClientProvider(
        server_url=server.url,
        client_metadata=OAuthClientMetadata(client_name="Python SDK", redirect_uris=[REDIRECT_URI]),
        storage=memory,
        redirect_handler=person.open,
        callback_handler=person.callback,
    )
    http = httpx2.AsyncClient(auth=auth, timeout=20)
    return Client(streamable_http_client(server.url, http_client=http), **how), memory


async def call(client: Client, tool: str, **arguments):
    """What a tool answers: a value, or the words with which it refuses."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        return PermissionError(result.content[0].text)
    value = result.structured_content
    if value is None:
        return result.content[0].text
    return value["result"] if set(value) == {"result"} else value


def header_and_claims(token: str) -> tuple[dict, dict]:
    return tuple(json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])


def check_token(server: Server, memory: Memory) -> None:
    header, claims = header_and_claims(memory.tokens.access_token)
    assert header["typ"] == "at+jwt" and header["alg"] == server.alg, header
    assert claims["aud"] == server.url, claims


async def token_for(issuer: str, server: Server, name: str, scope: str | None = None) -> str:
    """A token as a client gets it that asks for `scope`, whatever the server would like."""
    verifier = secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    person = Person(name)
    async with httpx2.AsyncClient() as http:
        registration = {"redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none"}
        client_id = (await http.post(f"{issuer}/register", json=registration)).json()["client_id"]
        asked = {"response_type": "code", "client_id": client_id, "redirect_uri": REDIRECT_URI, "state": "s",
                 "code_challenge": challenge, "code_challenge_method": "S256", "resource": server.url}
        await person.open(f"{issuer}/authorize?" + urlencode(asked | ({"scope": scope} if scope else {})))
        redeemed = {"grant_type": "authorization_code", "client_id": client_id, "redirect_uri": REDIRECT_URI,
                    "code": person.answer["code"], "code_verifier": verifier, "resource": server.url}
        answer = await http.post(f"{issuer}/token", data=redeemed)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]


async def ask(server: Server, token: str | None, tool: str | None = None, **arguments):
    """One plain request, as it comes before any session."""
    meta = {f"io.modelcontextprotocol/{name}": value for name, value in {
        "protocolVersion": "2026-07-28", "clientCapabilities": {}, "clientInfo": {"name": "test", "version": "1"}}.items()}
    params = {"name": tool, "arguments": arguments, "_meta": meta} if tool else {"_meta": meta}
    method = "tools/call" if tool else "tools/list"
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28", "mcp-method": method}
    if tool:
        headers["mcp-name"] = tool
    if token:
        headers["authorization"] = f"Bearer {token}"
    async with httpx2.AsyncClient() as http:
        return await http.post(server.url, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


async def without_a_token(issuer: str, server: Server) -> None:
    answer = await ask(server, None)
    assert answer.status_code == 401, (server.name, answer.status_code, answer.text)
    challenge = answer.headers["www-authenticate"]
    metadata_url = re.search(r'resource_metadata="([^"]+)"', challenge).group(1)
    async with httpx2.AsyncClient() as http:
        metadata = (await http.get(metadata_url)).json()
        assert metadata["resource"] == server.url, metadata
        assert metadata["authorization_servers"] == [issuer], metadata
        found = (await http.get(f"{issuer}/.well-known/oauth-authorization-server")).json()
        assert found["issuer"] == issuer
    print(f"ok {server.name}: no token, 401, and the metadata leads to Portcullis")


def forged(token: str) -> dict[str, str]:
    """The same token, not quite."""
    header, payload, signature = token.split(".")
    encode = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    head, claims = header_and_claims(token)
    return {
        "no token at all": "nonsense",
        "another signature": f"{header}.{payload}.{signature[:-8]}{'A' * 8}",
        "other claims": f"{header}.{encode(claims | {'scope': 'everything'})}.{signature}",
        "alg none": f"{encode(head | {'alg': 'none'})}.{payload}.",
        "an unknown key": f"{encode(head | {'kid': 'unknown'})}.{payload}.{signature}",
    }


async def answer_about(issuer: str, server: Server, token: str) -> str:
    """A JWT that Portcullis signs with the same key, for the same server, and that is no access token (RFC 9701)."""
    async with httpx2.AsyncClient(auth=(server.url, INTROSPECTION_SECRET)) as http:
        headers = {"accept": "application/token-introspection+jwt"}
        answer = await http.post(f"{issuer}/introspect", data={"token": token}, headers=headers)
    header, claims = header_and_claims(answer.text)
    assert header["alg"] == server.alg and claims["aud"] == server.url, (header, claims)
    assert claims["token_introspection"]["active"] is True
    return answer.text


async def refused_elsewhere(issuer: str, tokens: dict[str, str]) -> None:
    for server in SERVERS:
        good = await ask(server, tokens[server.name])
        assert good.status_code < 401, (server.name, good.status_code, good.text)
        for other in SERVERS:
            if other is not server:
                answer = await ask(server, tokens[other.name])
                assert answer.status_code == 401, (server.name, other.name, answer.status_code, answer.text)
        wrong = forged(tokens[server.name])
        if not server.path:
            wrong["an answer of introspection"] = await answer_about(issuer, server, tokens[server.name])
        for what, token in wrong.items():
            answer = await ask(server, token)
            assert answer.status_code == 401, (server.name, what, answer.status_code, answer.text)
        again = await ask(server, tokens[server.name])
        assert again.status_code == good.status_code, (server.name, again.status_code, again.text)
        print(f"ok {server.name}: the tokens of the {len(SERVERS) - 1} others and {len(wrong)} things that are no tokens are refused")


def insufficient(answer) -> None:
    assert answer.status_code == 403, (answer.status_code, answer.text)
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"], answer.headers


def failure_inside(error: BaseException, kind: type) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(failure_inside(inner, kind) for inner in error.exceptions)
    return isinstance(error, kind) or (error.__cause__ is not None and failure_inside(error.__cause__, kind))


async def is_sent_away(server: Server, name: str) -> None:
    """Portcullis itself says no, and the client learns it."""
    try:
        async with connect(server, name)[0] as client:
            await client.list_tools()
        raise AssertionError(f"{name} got in")
    except BaseException as error:
        if not failure_inside(error, PermissionError):
            raise


async def clock(issuer: str) -> str:
    client, memory = connect(CLOCK, "admin")
    async with client:
        assert {tool.name for tool in (await client.list_tools()).tools} == CLOCK.tools
        told = await call(client, "get_time", timezone="Europe/Vienna")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0[12]:00", told), told
    check_token(CLOCK, memory)
    only_connect = await token_for(issuer, CLOCK, "bob")
    assert header_and_claims(only_connect)[1]["scope"] == "connect"
    insufficient(await ask(CLOCK, only_connect))
    await is_sent_away(CLOCK, "bob")
    print("ok python-pyjwt: an Admin learns the time; a person without access:mcp gets 403")
    return memory.tokens.access_token


async def to_dos(server: Server) -> str:
    client, bobs = connect(server, "bob")
    async with client:
        assert {tool.name for tool in (await client.list_tools()).tools} == server.tools
        tea = await call(client, "create-todo", content="Tea")
        assert (tea["owner"], tea["content"]) == ("oidc:bob", "Tea"), tea
    check_token(server, bobs)
    assert bobs.tokens.scope == "create:todos"
    admin, memory = connect(server, "admin")
    async with admin:
        coffee = await call(admin, "create-todo", content="Coffee")
        assert len((await call(admin, "get-todos"))["todos"]) == 2, "an Admin sees everybody's"
        bob, _ = connect(server, "bob")
        async with bob:
            assert (await call(bob, "get-todos"))["todos"] == [tea], "a User sees their own"
            refused = await call(bob, "delete-todo", id=coffee["id"])
            assert isinstance(refused, PermissionError) and "delete:todos" in str(refused), refused
            assert (await call(bob, "delete-todo", id=tea["id"])) == tea
        assert (await call(admin, "delete-todo", id=coffee["id"])) == coffee
    check_token(server, memory)
    print(f"ok {server.name}: a User keeps to their own to-dos, an Admin reads and deletes everybody's")
    return memory.tokens.access_token


async def echo_and_add(issuer: str, server: Server) -> str:
    admin, memory = connect(server, "admin")
    async with admin:
        assert {tool.name for tool in (await admin.list_tools()).tools} == server.tools
        assert await call(admin, "echo", text="hello") == "hello"
        assert await call(admin, "add", a=2, b=3) == 5
    check_token(server, memory)
    bob, bobs = connect(server, "bob")
    async with bob:
        assert await call(bob, "echo", text="hello") == "hello"
        if not server.path:
            assert {tool.name for tool in (await bob.list_tools()).tools} == {"echo"}, "add is hidden"
    assert bobs.tokens.scope == "use:echo"
    refused = await ask(server, bobs.tokens.access_token, "add", a=2, b=3)
    if server.path:
        # The rules never allow it: no challenge, which would send bob to sign in again for nothing.
        assert refused.status_code == 200 and "www-authenticate" not in refused.headers, refused.headers
        result = refused.json()["result"]
        assert result["isError"] and "use:add" in result["content"][0]["text"], result
    else:
        assert "Unknown tool" in refused.text, refused.text
        insufficient(await ask(server, await token_for(issuer, server, "admin", "use:add")))
    print(f"ok {server.name}: everybody echoes, an Admin adds, a User does not")
    return memory.tokens.access_token


async def fortunes() -> str:
    told, memory = {}, None
    for name in ("admin", "bob"):
        client, memory = connect(FORTUNE, name)
        async with client:
            told[name] = await call(client, "get_fortune")
            assert told[name] == await call(client, "get_fortune")
        check_token(FORTUNE, memory)
    assert all(text.endswith(".") for text in told.values()), told
    print("ok python-behind-gateway: two people are told fortunes")
    return memory.tokens.access_token


async def dice(issuer: str) -> str:
    client, memory = connect(DICE_SERVER, "admin")
    async with client:
        assert {tool.name for tool in (await client.list_tools()).tools} == DICE_SERVER.tools
        assert 1 <= int(await call(client, "roll", sides=6)) <= 6
        assert await call(client, "roll_loaded", sides=6) == "6, oidc:admin"
    check_token(DICE_SERVER, memory)
    bob, _ = connect(DICE_SERVER, "bob")
    async with bob:
        assert 1 <= int(await call(bob, "roll", sides=6)) <= 6
        refused = await call(bob, "roll_loaded", sides=6)
        assert isinstance(refused, PermissionError) and "load:dice" in str(refused), refused
    insufficient(await ask(DICE_SERVER, await token_for(issuer, DICE_SERVER, "admin", "load:dice")))
    print("ok rust-rmcp: everybody rolls, only an Admin has loaded dice, a token without roll:dice gets 403")
    return memory.tokens.access_token


async def greeter(issuer: str, server: Server) -> str:
    client, memory = connect(server, "admin")
    async with client:
        assert {tool.name for tool in (await client.list_tools()).tools} == server.tools
        assert await call(client, "greet") == "Hello, oidc:admin."
        told = await call(client, "announce", text="tea is ready")
        assert told == "Everybody hears: tea is ready", (server.name, told)
    check_token(server, memory)
    bob, _ = connect(server, "bob")
    async with bob:
        assert await call(bob, "greet") == "Hello, oidc:bob."
        refused = await call(bob, "announce", text="no tea")
        assert isinstance(refused, PermissionError) and "permission announce" in str(refused), refused
    # Without the permission for what everybody may do: a challenge, or the tool says so.
    only_announce = await token_for(issuer, server, "admin", "announce")
    if server.folder in ("node-express", "java-spring-ai"):
        insufficient(await ask(server, only_announce, "greet"))
    else:
        http = httpx2.AsyncClient(headers={"authorization": f"Bearer {only_announce}"})
        async with Client(streamable_http_client(server.url, http_client=http)) as client:
            refused = await call(client, "greet")
            assert isinstance(refused, PermissionError) and "permission greet" in str(refused), refused
    print(f"ok {server.name}: everybody is greeted, an Admin announces, a token without greet is refused")
    return memory.tokens.access_token


async def connect_github(name: str, link: str) -> None:
    """Opens the link in the person's browser, signs in, and connects GitHub, until the page says that it is done."""
    async with httpx2.AsyncClient(timeout=20) as browser:
        answer = await browser.get(link)
        for _ in range(30):
            if location := answer.headers.get("location"):
                answer = await browser.get(urljoin(str(answer.url), location))
                continue
            if "Go back to your application" in answer.text:
                return
            forms = re.findall(r"<form.*?</form>", answer.text, re.S)
            chosen = next((form for form in forms if 'value="connect"' in form), forms[0])
            form = people.Form(chosen)
            if 'value="connect"' in chosen:
                form.fields["action"] = ["connect"]
            for typed in {"username", "login", "password"} & form.fields.keys():
                form.fields[typed] = [name]
            origin = "{0.scheme}://{0.netloc}".format(urlsplit(str(answer.url)))
            action = urljoin(str(answer.url), form.action)
            answer = await browser.post(action, data=form.fields, headers={"origin": origin})
    raise AssertionError(f"{name} could not connect GitHub: {answer.text}")


async def on_github(issuer: str, server: Server) -> str:
    """Who has not connected gets the link, as words and as their client understands; then both ways work."""
    link = f"{issuer}/connect/github?" + urlencode({"for": server.url})
    opened = []

    def opens(name: str):
        async def elicit(_, params: mcp_types.ElicitRequestURLParams) -> mcp_types.ElicitResult:
            opened.append(params.url)
            await connect_github(name, params.url)
            return mcp_types.ElicitResult(action="accept")
        return elicit

    first, second, third = (f"{server.folder}-{number}" for number in ("first", "second", "third"))
    plain, memory = connect(server, first)
    async with plain:
        assert {tool.name for tool in (await plain.list_tools()).tools} == server.tools
        for tool in sorted(server.tools):
            refused = await call(plain, tool)
            assert isinstance(refused, PermissionError) and link in str(refused), (server.name, tool, refused)
    check_token(server, memory)

    # The gateway asks, for the tool that the configuration names.
    client, _ = connect(server, first, elicitation_callback=opens(first))
    async with client:
        assert await call(client, "who_am_i") == first
        assert f"{first}/hello" in str(await call(client, "my_repositories"))
    assert opened == [link], (server.name, opened)

    # The server asks, where its library can; what one person connected is not the other's.
    client, _ = connect(server, second, elicitation_callback=opens(second))
    async with client:
        found = await call(client, "my_repositories")
        if server.folder != "github-rust":
            assert opened == [link, link], (server.name, opened)
        else:
            assert isinstance(found, PermissionError) and link in str(found), (server.name, found)
            await connect_github(second, link)
            found = await call(client, "my_repositories")
        assert f"{second}/hello" in str(found), (server.name, found)
        assert await call(client, "who_am_i") == second

    # With MCP 2025-11-25 the link is in an error, where there is a session, and otherwise in words.
    client, _ = connect(server, third, mode="legacy", elicitation_callback=opens(third))
    async with client:
        try:
            answer = await call(client, "who_am_i")
            assert isinstance(answer, PermissionError) and link in str(answer), (server.name, answer)
            told = "words"
        except MCPError as error:
            assert error.code == -32042 and error.data["elicitations"][0]["url"] == link, (server.name, error.data)
            told = "error"
        assert told == ("error" if server.folder in ("github-fastmcp", "github-python") else "words"), (server.name, told)
        await connect_github(third, link)
        assert await call(client, "who_am_i") == third
    print(f"ok {server.name}: a link to connect GitHub, and then the person's own account by header and by exchange")
    return memory.tokens.access_token


async def outage(token: str) -> None:
    """Where the keys cannot be fetched, nobody is told that a token is bad, or their client would drop it."""
    for server, status in ((CLOCK, 500), (DICE_SERVER, 503)):
        port = free_port()
        env = os.environ | {"PORT": str(port), "ISSUER": f"http://127.0.0.1:{free_port()}"}
        process = subprocess.Popen(server.command, cwd=EXAMPLES / server.folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            alone = Server(server.folder, 0, [], server.alg, set(), url=f"http://127.0.0.1:{port}/mcp")
            await answers(alone.url, process)
            assert (answer := await ask(alone, token)).status_code == status, (server.name, answer.status_code)
        finally:
            process.terminate()
            process.wait()
    print("ok python-pyjwt, rust-rmcp: an outage of Portcullis makes no token bad")


def blocks_of(folder: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (EXAMPLES / folder / "README.md").read_text(), re.S)


def configuration(issuer: str, listen: str, provider: str, ports: dict[int, int], hub: github.GitHub) -> str:
    """What the READMEs say, with free ports; and all servers may introspect, for a test of theirs."""
    blocks = [blocks_of(folder)[0] for folder in dict.fromkeys(server.folder for server in SERVERS)]
    # The connection, with a GitHub on this machine.
    blocks.append(f"""{blocks_of(ON_GITHUB[0].folder)[1]}
authorize_url = "{hub.url}/login/oauth/authorize"
token_url     = "{hub.url}/login/oauth/access_token"
revoke_url    = "{hub.url}/applications/token"
userinfo_url  = "{hub.url}/user"
""")
    head = f"""
public_url = "{issuer}"
listen     = "{listen}"
[upstream]
provider      = "oidc"
issuer        = "{provider}"
client_id     = "portcullis"
client_secret = {{ env = "UPSTREAM_SECRET" }}
"""
    text = re.sub(r'(?m)^(id +=.*)$', r'\1\nintrospection_secret = { env = "INTROSPECTION_SECRET" }', "\n".join(blocks))
    return re.sub(r"127\.0\.0\.1:(90\d\d)", lambda found: f"127.0.0.1:{ports[int(found[1])]}", head + text)


async def answers(url: str, process: subprocess.Popen) -> None:
    async with httpx2.AsyncClient() as http:
        for _ in range(300):
            assert process.poll() is None, f"{process.args} ended with {process.returncode}"
            try:
                await http.get(url)
                return
            except httpx2.TransportError:
                await asyncio.sleep(0.1)
    raise AssertionError(f"{url} never answered")


async def main() -> None:
    listen = f"127.0.0.1:{free_port()}"
    issuer = f"http://{listen}"
    provider_port = free_port()
    ports = {server.readme_port: free_port() for server in SERVERS}
    client_id = re.search(r'client_id += "(.+)"', blocks_of(ON_GITHUB[0].folder)[1]).group(1)
    hub = github.GitHub(free_port(), client_id)
    os.environ |= {"GITHUB_API": hub.url, "GITHUB_CLIENT_SECRET": github.CLIENT_SECRET, "MCP_SERVER_SECRET": MCP_SERVER_SECRET}
    os.environ |= {"UPSTREAM_SECRET": SECRET, "INTROSPECTION_SECRET": INTROSPECTION_SECRET, "PORTCULLIS_LOG": "warn,portcullis=info"}
    children: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            provider = f"http://127.0.0.1:{provider_port}"
            Path(folder, "portcullis.toml").write_text(configuration(issuer, listen, provider, ports, hub))
            script = str(HERE.parent / "clients" / "provider.mjs")
            children.append(start(["node", script, str(provider_port), f"{issuer}/auth/callback"], "listening", folder))
            children.append(start([PORTCULLIS, "serve"], "serving", folder, "stderr"))
            log = Path(folder, "servers.log").open("w")
            for server in SERVERS:
                port = ports[server.readme_port]
                env = os.environ | {"PORT": str(port), "ISSUER": issuer} | server.env
                server.url = f"{issuer}{server.path}" if server.path else f"http://127.0.0.1:{port}/mcp"
                process = subprocess.Popen(server.command, cwd=EXAMPLES / server.folder, env=env, stdout=log, stderr=log)
                children.append(process)
            for server, process in zip(SERVERS, children[2:]):
                try:
                    await answers(f"http://127.0.0.1:{ports[server.readme_port]}/", process)
                except AssertionError:
                    print(Path(folder, "servers.log").read_text())
                    raise
            if "--stay" in sys.argv:
                for server in SERVERS:
                    print(f"  {server.name:30} {server.url}")
                input("\nSign in as admin (an Admin) or anybody else (a User). Enter ends it. ")
                return
            for server in SERVERS:
                await without_a_token(issuer, server)
            tokens = {CLOCK.name: await clock(issuer)}
            for server in (TODO_PYTHON, TODO_NODE):
                tokens[server.name] = await to_dos(server)
            for server in (ECHO, ECHO_BEHIND):
                tokens[server.name] = await echo_and_add(issuer, server)
            tokens[FORTUNE.name] = await fortunes()
            tokens[DICE_SERVER.name] = await dice(issuer)
            for server in GREETERS:
                tokens[server.name] = await greeter(issuer, server)
            for server in ON_GITHUB:
                tokens[server.name] = await on_github(issuer, server)
            await refused_elsewhere(issuer, tokens)
            await outage(tokens[CLOCK.name])
        except BaseException:
            if (log := Path(folder, "servers.log")).exists():
                print(log.read_text()[-6000:])
            raise
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait()
            hub.shutdown()


begun = time.monotonic()
asyncio.run(main())
print(f"all examples passed in {time.monotonic() - begun:.0f} s")
