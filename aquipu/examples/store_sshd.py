"""A log of sshd from standard input, with the address and the user of each line as its labels.

``python -m aquipu.examples.store_sshd < tests/data/openssh_40.log``
"""

import asyncio
import re
import sys

from aquipu import Store

ADDRESS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d)")
USER = re.compile(r"(?:[Ii]nvalid user |password for (?!invalid user)|user=)(\S+)")


def relations(line: str) -> set[str]:
    addresses = {f"address:{found}" for found in ADDRESS.findall(line)}
    return addresses | {f"user:{found}" for found in USER.findall(line)}


async def main() -> None:
    async with Store.open("sshd") as store:
        for line in sys.stdin.buffer:
            await store.append(
                line.removesuffix(b"\n"), relations=relations(line.decode(errors="replace"))
            )


if __name__ == "__main__":
    asyncio.run(main())
