"""Prints where the faces of pictures are: `python examples/client_async.py HOST:PORT PICTURE...`."""

import asyncio
import sys

from faceblur import AsyncFaceBlurClient, Options, Profile


async def main(server: str, pictures: list[str]) -> None:
    """Ask for all pictures and print what was found."""
    async with AsyncFaceBlurClient(server, timeout=30) as client:
        options = Options(profile=Profile.BALANCED)
        receipts = await asyncio.gather(*(client.detect(picture, options) for picture in pictures))
    for picture, receipt in zip(pictures, receipts, strict=True):
        for face in receipt.faces:
            box = face.box
            print(f"{picture}: {box.w:.0f}x{box.h:.0f} at {box.x:.0f},{box.y:.0f}, score {face.score:.2f}")


asyncio.run(main(sys.argv[1], sys.argv[2:]))
