"""An MCP server on standard input and output, made with the official Python SDK. Behind `portcullis bridge` in
scripts/test-bridge."""

import asyncio
import os

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("stdio")


@server.tool()
async def whoami() -> dict[str, str]:
    """Says who calls, as the environment of this process has it, and which process this is."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("PORTCULLIS_")}
    return ours | {"pid": str(os.getpid())}


@server.tool()
async def forever(ctx: Context) -> str:
    """Says that it has begun, and never answers."""
    await ctx.report_progress(0)
    await asyncio.Event().wait()
    return "never"


asyncio.run(server.run_stdio_async())
