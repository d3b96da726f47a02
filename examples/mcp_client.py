"""What a host of agents does with the MCP server: it starts it, lists its tools and calls them.

pip install 'agentcube-kernel[mcp]'
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from mcp import Client, StdioServerParameters


async def main() -> None:
    """Call the stateful tool twice; the second call uses what the first has left."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "agentcube_kernel.cli.main", "mcp"], env=dict(os.environ)
    )
    async with Client(server) as client:
        tools = await client.list_tools()
        print(", ".join(sorted(tool.name for tool in tools.tools)))
        await client.call_tool("run_cell", {"code": "x = 20"})
        result = await client.call_tool("run_cell", {"code": "x + 1"})
        print(json.loads(result.content[0].text)["result"])


if __name__ == "__main__":
    asyncio.run(main())
