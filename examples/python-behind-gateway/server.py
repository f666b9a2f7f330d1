"""A fortune for the day, behind the gateway: not a line about tokens."""

import datetime
import hashlib
import os

from mcp.server.mcpserver import Context, MCPServer

PORT = int(os.environ.get("PORT", "9006"))

FORTUNES = [
    "A door that was shut for a year opens if you knock today.",
    "Somebody will thank you for a test that you write this week.",
    "Read the log before you restart it.",
    "What you postpone today will be smaller tomorrow, for once.",
    "An old friend remembers the name of the thing you were looking for.",
    "Beware of the second cup; welcome the third.",
]

server = MCPServer("fortunes")


@server.tool()
def get_fortune(ctx: Context) -> str:
    """Tells your fortune for today; asking again does not change it."""
    # Portcullis says who calls. Only Portcullis can reach this port, so nobody else can say it.
    person = ctx.request_context.request.headers["x-portcullis-subject"]
    today = f"{person} {datetime.date.today()}"
    return FORTUNES[hashlib.sha256(today.encode()).digest()[0] % len(FORTUNES)]


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=PORT)
