"""A small GitHub for the examples: it lets people sign in, issues tokens to Portcullis, and has two addresses of the API.

Everybody has the account of the name that they type, and one repository.
"""

import html
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

CLIENT_SECRET = secrets.token_urlsafe(32)


class GitHub(ThreadingHTTPServer):
    """Runs in a thread of its own until `shutdown`."""

    daemon_threads = True

    def __init__(self, port: int, client_id: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{port}"
        self.client_id = client_id
        self.codes: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: GitHub

    def answer(self, status: int, body: str, **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"content_length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def json(self, status: int, value) -> None:
        self.answer(status, json.dumps(value), content_type="application/json")

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/login/oauth/authorize":
            asked = dict(parse_qsl(url.query))
            assert asked["client_id"] == self.server.client_id and asked["scope"] == "repo", asked
            kept = "".join(f'<input type="hidden" name="{name}" value="{html.escape(asked[name])}">' for name in ("redirect_uri", "state"))
            page = f'<form method="post" action="/login"><input name="login">{kept}<button>Authorize</button></form>'
            return self.answer(200, page, content_type="text/html")
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        login = self.server.tokens.get(token)
        if login is None:
            return self.json(401, {"message": "Bad credentials"})
        if url.path == "/user":
            return self.json(200, {"id": len(login), "login": login})
        if url.path == "/user/repos":
            return self.json(200, [{"full_name": f"{login}/hello"}])
        return self.json(404, {"message": "Not Found"})

    def do_POST(self) -> None:
        form = self.form()
        if self.path == "/login":
            code = secrets.token_urlsafe(16)
            self.server.codes[code] = form["login"]
            back = form["redirect_uri"] + "?" + urlencode({"code": code, "state": form["state"]})
            return self.answer(302, "", location=back)
        login = self.server.codes.pop(form.get("code", ""), None)
        if login is None or form.get("client_secret") != CLIENT_SECRET:
            return self.json(200, {"error": "bad_verification_code"})  # GitHub answers errors with 200
        token = f"gho_{secrets.token_hex(18)}"
        self.server.tokens[token] = login
        return self.json(200, {"access_token": token, "token_type": "bearer", "scope": "repo"})

    def log_message(self, *_) -> None:
        pass
