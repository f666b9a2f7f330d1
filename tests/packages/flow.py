#!/usr/bin/env python3
"""Everything a client and a person do, from nothing to a tool call, with nothing but Python.

Usage: flow.py MCP-URL USER TOOL ARGUMENTS [--ca FILE] [--seconds N]

Registers a client, approves, signs in as USER (whose password is the name) at the login page that comes, redeems the
code, and calls TOOL with ARGUMENTS (JSON). Names below .localhost are this machine, as in browsers. With --seconds it
waits so long for the servers to answer at all. Prints one line of what the tool answered.
"""

import base64
import hashlib
import html
import http.client
import json
import re
import secrets
import socket
import ssl
import sys
import time
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

CALLBACK = "http://127.0.0.1:39571/callback"
lookup = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: lookup(
    "127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **more
)


class Answer:
    def __init__(self, url, response):
        self.url, self.status, self.headers = url, response.status, response.headers
        self.text = response.read().decode()

    def json(self):
        text = self.text
        if self.headers.get_content_type() == "text/event-stream":
            text = re.findall(r"^data: ?(.*)$", text, re.M)[-1]
        return json.loads(text)

    def must(self, *statuses):
        if self.status not in statuses:
            sys.exit(f"{self.url} answered {self.status}, not {statuses}:\n{self.text[:2000]}")
        return self


class Browser:
    """Follows no redirect by itself, and keeps cookies by host, as browsers do: ports do not count."""

    def __init__(self, tls):
        self.tls, self.cookies = tls, {}

    def send(self, method, url, body=None, headers=None):
        at = urlsplit(url)
        jar = self.cookies.setdefault(at.hostname, {})
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        more = {"context": self.tls} if at.scheme == "https" else {}
        connection = kind(at.hostname, at.port, timeout=60, **more)
        sent = {"User-Agent": "portcullis-flow", **(headers or {})}
        if jar:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        target = (at.path or "/") + (f"?{at.query}" if at.query else "")
        connection.request(method, target, body, sent)
        answer = Answer(url, connection.getresponse())
        connection.close()
        for line in answer.headers.get_all("Set-Cookie") or []:
            name, value = line.split(";")[0].split("=", 1)
            jar[name] = value
        return answer

    def page(self, answer, until=None):
        """Follows redirects to a page, or to a URL that begins so."""
        for _ in range(20):
            if answer.status not in (301, 302, 303, 307):
                return answer
            url = urljoin(answer.url, answer.headers["Location"])
            if until and url.startswith(until):
                return url
            answer = self.send("GET", url, headers={"Accept": "text/html"})
        sys.exit(f"{answer.url} redirects without end")

    def submit(self, page, **fields):
        """Sends the form of a page with these fields."""
        form = re.search(r"<form[^>]*method=.post.[^>]*>.*?</form>", page.must(200).text, re.S | re.I)
        if not form:
            sys.exit(f"{page.url} has no form:\n{page.text[:2000]}")
        action = re.search(r'<form[^>]*action="([^"]*)"', form[0])
        url = urljoin(page.url, html.unescape(action[1])) if action else page.url
        inputs = re.findall(r"<input[^>]*>", form[0])
        named = ((re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag), tag) for tag in inputs)
        sent = [
            (name[1], html.unescape(value[1]) if value else "")
            for name, value, tag in named
            if name and name[1] not in fields and ("checkbox" not in tag or "checked" in tag)
        ]
        at = urlsplit(url)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html",
            "Origin": f"{at.scheme}://{at.netloc}", "Sec-Fetch-Site": "same-origin",
        }
        return self.send("POST", url, urlencode([*sent, *fields.items()]), headers)


def wait(browser, url, seconds):
    end = time.monotonic() + seconds
    while True:
        try:
            answer = browser.send("POST", url, "{}", {"Content-Type": "application/json"})
            if answer.status < 500 or time.monotonic() > end:
                return answer
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > end:
                sys.exit(f"{url}: {error}")
        time.sleep(0.2)


def main():
    arguments = sys.argv[1:]
    options = {}
    for name in ("--ca", "--seconds"):
        if name in arguments:
            at = arguments.index(name)
            options[name] = arguments[at + 1]
            del arguments[at : at + 2]
    url, user, tool, parameters = arguments
    browser = Browser(ssl.create_default_context(cafile=options.get("--ca")))

    challenge = wait(browser, url, float(options.get("--seconds", 0))).must(401)
    metadata_url = re.search(r'resource_metadata="([^"]*)"', challenge.headers["WWW-Authenticate"])[1]
    resource = browser.send("GET", metadata_url).must(200).json()
    issuer = resource["authorization_servers"][0].rstrip("/")
    at = urlsplit(issuer)
    server = browser.send("GET", f"{at.scheme}://{at.netloc}/.well-known/oauth-authorization-server{at.path}")
    server = server.must(200).json()

    registration = {
        "client_name": "Flow", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
    }
    as_json = {"Content-Type": "application/json"}
    client = browser.send("POST", server["registration_endpoint"], json.dumps(registration), as_json).must(201).json()

    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code", "client_id": client["client_id"], "redirect_uri": CALLBACK, "state": state,
        "code_challenge": challenge, "code_challenge_method": "S256", "resource": resource["resource"],
    }
    consent = browser.page(browser.send("GET", f"{server['authorization_endpoint']}?{urlencode(query)}"))
    login = browser.page(browser.submit(consent, decision="approve"))
    back = browser.page(browser.submit(login, username=user, password=user), until=CALLBACK)
    if not isinstance(back, str):
        sys.exit(f"nobody was sent back to the client: {back.url} {back.status}\n{back.text[:3000]}")
    answered = parse_qs(urlsplit(back).query)
    if answered.get("state") != [state] or "code" not in answered:
        sys.exit(f"the answer is {answered}")

    form = {
        "grant_type": "authorization_code", "code": answered["code"][0], "redirect_uri": CALLBACK,
        "client_id": client["client_id"], "code_verifier": verifier, "resource": resource["resource"],
    }
    as_form = {"Content-Type": "application/x-www-form-urlencoded"}
    token = browser.send("POST", server["token_endpoint"], urlencode(form), as_form).must(200).json()

    headers = {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
        "Authorization": f"Bearer {token['access_token']}",
    }

    def call(number, method, params):
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        if number is None:
            del message["id"]
        return browser.send("POST", url, json.dumps(message), headers).must(200, 202)

    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "flow", "version": "1"}}
    started = call(1, "initialize", hello)
    started.json()["result"]
    if "Mcp-Session-Id" in started.headers:
        headers["Mcp-Session-Id"] = started.headers["Mcp-Session-Id"]
    headers["MCP-Protocol-Version"] = "2025-06-18"
    call(None, "notifications/initialized", {})
    answer = call(2, "tools/call", {"name": tool, "arguments": json.loads(parameters)}).json()
    if "result" not in answer or answer["result"].get("isError"):
        sys.exit(f"{tool} answered {answer}")
    print(f"{tool}, as {user}: {answer['result']['content'][0]['text']}")


main()
