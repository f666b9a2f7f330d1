"""The official conformance suite for authorization servers, against `portcullis demo`.

It opens the authorization page like a client would and waits for somebody to press the buttons; that is
done here. Run by scripts/test-clients.
"""

import asyncio
import os
import re
import subprocess
import tempfile
import time

import httpx2

from people import Person, free_port, start

PORTCULLIS = os.environ["PORTCULLIS"]
SUITE = os.environ["CONFORMANCE"].split()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PORTCULLIS_LOG"] = "warn"
        listen, port = f"127.0.0.1:{free_port()}", free_port()
        demo = start([PORTCULLIS, "demo", "--listen", listen], "Ctrl-C", folder)
        try:
            async with httpx2.AsyncClient() as http:
                redirect_uri = f"http://127.0.0.1:{port}/callback"
                registration = {"redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"}
                answer = await http.post(f"http://{listen}/register", json=registration)
                client_id = answer.json()["client_id"]
                suite = subprocess.Popen(
                    [*SUITE, "authorization", "--url", f"http://{listen}", "--client-id", client_id,
                     "--resource", f"http://{listen}/mcp", "--port", str(port)],
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                said = ""
                while "Callback server started" not in said:
                    line = suite.stdout.readline()
                    assert line, said
                    said += line
                url = re.search(r"http://\S+/authorize\?\S+", said).group(0)
                bob = Person("bob", redirect_uri)
                await bob.open(url)
                await http.get(bob.arrived_at)
            said += suite.communicate(timeout=60)[0]
            print(said)
            assert suite.returncode == 0, "the suite failed"
            assert re.search(r"Total: [2-9]\d* passed, 0 failed", said), "not every check passed"
            assert "WARNING" not in said
        finally:
            demo.terminate()
            demo.wait()


begun = time.monotonic()
asyncio.run(main())
print(f"conformance suite passed in {time.monotonic() - begun:.0f} s")
