"""Authlib's client against `portcullis demo`, proving itself with a signature (private_key_jwt).

Run by scripts/test-clients.
"""

import asyncio
import json
import os
import tempfile
import uuid

import httpx2
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc.jwk import ECKey

from people import Person, free_port, start

PORTCULLIS = os.environ["PORTCULLIS"]
REDIRECT_URI = "http://127.0.0.1:53130/callback"


class Client:
    """A client as somebody builds it from Authlib's documentation."""

    def __init__(self, issuer: str) -> None:
        found = requests.get(f"{issuer}/.well-known/oauth-authorization-server").json()
        self.issuer, self.token_endpoint = issuer, found["token_endpoint"]
        self.authorization_endpoint = found["authorization_endpoint"]
        self.key = ECKey.generate_key("P-256", auto_kid=True)
        self.registered = requests.post(found["registration_endpoint"], json={
            "client_name": "Authlib", "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [self.key.as_dict(private=False)]},
        }).json()
        self.session = self.signing(PrivateKeyJWT(issuer, alg="ES256", headers={"kid": self.key.kid}))

    def signing(self, method: PrivateKeyJWT) -> OAuth2Session:
        session = OAuth2Session(
            self.registered["client_id"], self.key, token_endpoint_auth_method=method.name,
            redirect_uri=REDIRECT_URI, code_challenge_method="S256", token_endpoint=self.token_endpoint)
        session.register_client_auth_method(method)
        return session

    async def authorized(self, person: Person, resource: str, decision: str = "approve") -> str:
        """Asks a person, who comes back with an answer; the code verifier."""
        verifier = uuid.uuid4().hex * 2
        url, _ = self.session.create_authorization_url(
            self.authorization_endpoint, code_verifier=verifier, resource=resource)
        await person.open(url, decision)
        return verifier

    def fetch(self, person: Person, verifier: str, session: OAuth2Session | None = None) -> dict:
        return (session or self.session).fetch_token(
            self.token_endpoint, authorization_response=person.arrived_at, code_verifier=verifier)


def call(session: OAuth2Session, mcp_url: str, tool: str, **arguments) -> dict:
    answer = session.post(mcp_url, json={
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
        headers={"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28",
                 "mcp-method": "tools/call", "mcp-name": tool})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def refused(action) -> OAuthError:
    try:
        action()
    except OAuthError as error:
        return error
    raise AssertionError("it was not refused")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        listen = f"127.0.0.1:{free_port()}"
        os.environ["PORTCULLIS_LOG"] = "warn"
        demo = start([PORTCULLIS, "demo", "--listen", listen], "Ctrl-C", folder)
        issuer, mcp_url = f"http://{listen}", f"http://{listen}/mcp"
        try:
            # Authlib's validator insists on https, which the demo does not have.
            document = requests.get(f"{issuer}/.well-known/openid-configuration").text
            OpenIDProviderMetadata(json.loads(document.replace("http://", "https://"))).validate()
            print("ok Authlib takes the document for an OpenID provider's")

            client, bob = Client(issuer), Person("bob", REDIRECT_URI)
            verifier = await client.authorized(bob, mcp_url)
            # Authlib signs for an hour, with the token endpoint as audience unless told.
            endpoint = client.signing(PrivateKeyJWT(alg="ES256", headers={"kid": client.key.kid}))
            error = refused(lambda: client.fetch(bob, verifier, endpoint))
            assert error.error == "invalid_client" and "aud" in error.description, error
            print("ok Authlib reads why its signature is refused:", error)

            bob = Person("bob", REDIRECT_URI)
            tokens = client.fetch(bob, await client.authorized(bob, mcp_url))
            made = call(client.session, mcp_url, "create-todo", content="Tea")
            assert not made["isError"], made
            fresh = client.session.refresh_token(client.token_endpoint)
            assert fresh["refresh_token"] != tokens["refresh_token"]
            assert not call(client.session, mcp_url, "get-todos")["isError"]
            print("ok Authlib signs bob in with private_key_jwt, calls tools, and refreshes")

            may_not = call(client.session, mcp_url, "purge-todos")
            assert may_not["isError"] and "administrator" in may_not["content"][0]["text"], may_not
            print("ok Authlib: bob reads that he may not purge:", may_not["content"][0]["text"])

            # The sentence is the same for every cause.
            error = refused(lambda: client.session.refresh_token(client.token_endpoint, refresh_token="unknown"))
            assert error.error == "invalid_grant" and error.description, error
            print("ok Authlib reads of a token that is not good:", error)

            # Authlib's session leaves the answer to its user: without a code it would ask for client credentials.
            for name, decision in (("bob", "deny"), ("mallory", "approve")):
                person = Person(name, REDIRECT_URI)
                verifier = await client.authorized(person, mcp_url, decision)
                assert person.answer["error"] == "access_denied" and person.answer["error_description"], person.answer
                error = refused(lambda: client.fetch(person, verifier))
                assert error.error == "unsupported_grant_type", error
                print(f"ok Authlib's user learns of {name} ({decision}): {person.answer['error_description']}")
        finally:
            demo.terminate()
            demo.wait()


asyncio.run(main())
print("Authlib passed")
