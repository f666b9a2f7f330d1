"""People in front of browsers, and the processes around them: for the runs with real clients."""

import contextlib
import html.parser
import random
import socket
import subprocess
import threading
from urllib.parse import parse_qs, urljoin, urlparse

import httpx2


class Form(html.parser.HTMLParser):
    """The first form of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, list[str]] = {}
        self.done = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = attrs.get("action", "")
        elif tag == "input" and self.action is not None and not self.done and "name" in attrs:
            # Boxes share a name: all of them are ticked on the consent page.
            self.fields.setdefault(attrs["name"], []).append(attrs.get("value") or "")

    def handle_endtag(self, tag):
        if tag == "form":
            self.done = True


class Person:
    """Somebody in front of a browser: a cookie jar, and the answers they type."""

    def __init__(self, name: str, client: str) -> None:
        """`client` is where the client waits for its answer: the beginning of its redirect URI."""
        self.name = name
        self.client = client
        self.arrived_at = ""
        self.answer: dict[str, str] = {}
        self.asked = 0

    async def open(self, url: str, decision: str = "approve") -> None:
        """Follows the flow until the browser is sent to the client; `decision` is approve or deny."""
        self.asked += 1
        async with httpx2.AsyncClient() as browser:
            response = await browser.get(url)
            for _ in range(20):
                if location := response.headers.get("location"):
                    location = urljoin(str(response.url), location)
                    if location.startswith(self.client):
                        self.arrived_at = location
                        self.answer = {k: v[0] for k, v in parse_qs(urlparse(location).query).items()}
                        return
                    response = await browser.get(location)
                    continue
                # A page that says why there is no access has a link back to the client.
                if 'class="button return"' in response.text:
                    link = response.text.split('class="button return"')[1].split('href="')[1].split('"')[0]
                    link = html.unescape(link)
                    self.arrived_at = link
                    self.answer = {k: v[0] for k, v in parse_qs(urlparse(link).query).items()}
                    return
                form = Form(response.text)
                assert form.action is not None, response.text
                action = urljoin(str(response.url), form.action)
                fields = form.fields
                if "request" in fields and "/consent" in action:
                    fields["decision"] = [decision]
                for field in ("username", "login", "password"):
                    if field in fields:
                        fields[field] = [self.name]
                origin = "{0.scheme}://{0.netloc}".format(urlparse(str(response.url)))
                response = await browser.post(action, data=fields, headers={"origin": origin})
        raise AssertionError("the browser never came back")

    async def connect_service(self, url: str) -> str:
        """Follows the link of a tool, signs in, allows everything at the service; returns the page at the end."""
        finished = False
        async with httpx2.AsyncClient() as browser:
            response = await browser.get(url)
            for _ in range(20):
                if location := response.headers.get("location"):
                    location = urljoin(str(response.url), location)
                    finished = finished or "/auth/connect/" in location
                    response = await browser.get(location)
                    continue
                if finished:
                    return response.text
                form = Form(response.text)
                assert form.action is not None, response.text
                action = urljoin(str(response.url), form.action)
                fields = form.fields | {"action": ["connect"], "decision": ["allow"]}
                for field in ("username", "password"):
                    if field in fields:
                        fields[field] = [self.name]
                origin = "{0.scheme}://{0.netloc}".format(urlparse(str(response.url)))
                response = await browser.post(action, data=fields, headers={"origin": origin})
        raise AssertionError("the service was never connected")


def free_port() -> int:
    """Not one that the system gives to outgoing connections, which could have it before the process does."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port


def start(command: list[str], until: str, cwd: str, stream: str = "stdout") -> subprocess.Popen:
    """Starts a process and returns once it has said `until`."""
    pipes = {stream: subprocess.PIPE}
    process = subprocess.Popen(command, cwd=cwd, text=True, **pipes)
    pipe = getattr(process, stream)
    said = ""
    while until not in said:
        line = pipe.readline()
        assert line, f"{command} ended: {said}"
        said += line
    threading.Thread(target=pipe.read, daemon=True).start()
    return process
