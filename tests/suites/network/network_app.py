"""An app that calls another machine in each way, and continues without it."""

import asyncio
import os
import smtplib
import socket
import threading
import urllib.request
from contextlib import suppress

import aiohttp
import httpx
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])
app = FastAPI()


def outer_address():
    """Return an address of this machine that is not its loopback, "" without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return ""
        return probe.getsockname()[0]


class Machine:
    """Counts the calls that arrive."""

    def __init__(self):
        self.calls = 0
        self.port = 9
        self.address = outer_address()
        if self.address:
            server = socket.create_server((self.address, 0))
            self.port = server.getsockname()[1]
            threading.Thread(target=self.accept, args=[server], daemon=True).start()

    def accept(self, server):
        while True:
            connection, _ = server.accept()
            self.calls += 1
            connection.close()


machine = Machine()


async def by_aiohttp(host):
    async with aiohttp.ClientSession() as session:
        await session.get(f"http://{host}:{machine.port}")


async def by_httpx(host):
    async with httpx.AsyncClient() as client:
        await client.get(f"http://{host}:{machine.port}")


async def by_streams(host):
    await asyncio.open_connection(host, machine.port)


async def in_thread(host):
    await asyncio.to_thread(smtplib.SMTP, host, machine.port)


async def in_urllib(host):
    await asyncio.to_thread(urllib.request.urlopen, f"http://{host}:{machine.port}")


async def by_datagram(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", (host, machine.port))


async def by_datagram_of_parts(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendmsg([b""], [], 0, (host, machine.port))


WAYS = {
    way.__name__: way
    for way in (
        by_aiohttp,
        by_httpx,
        by_streams,
        by_datagram,
        by_datagram_of_parts,
        in_thread,
        in_urllib,
    )
}
TASKS = set()


@app.post("/payments/{way}")
async def pay(way: str, host: str):
    try:
        await WAYS[way](host)
    except Exception:
        return "later"


@app.post("/mails")
async def mail(host: str):
    async def send():
        with suppress(Exception):
            await by_streams(host)

    task = asyncio.create_task(send())
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)
