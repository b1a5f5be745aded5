"""Answer ping as echo.py does, in an asyncio program: python examples/echo_asyncio.py [NAME [ADDRESS ...]]"""

import asyncio
import contextlib
import sys

from echo import ADDRESSES, answers

import threepipe


async def main(name: str = "echo%d", *addresses: str) -> None:
    with threepipe.Adapter.create(name, addresses=addresses or ADDRESSES) as adapter:
        own = adapter.addresses
        with adapter.start_session() as session:
            print(f"{adapter.name} answers ping in", *[address.network for address in own], flush=True)
            async for bundle in session:
                with bundle:
                    await session.send_async(answers(bundle, own))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
