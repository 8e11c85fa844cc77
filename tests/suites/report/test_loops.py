"""A global client of the app belongs to the loop of the test that used it first."""

import asyncio

import pytest


class Socket:
    """Keeps what belongs to a loop, as the clients of Redis, HTTP and Kafka do."""

    loop = None

    async def connect(self):
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
            self.answer = self.loop.create_future()
        return self

    def write(self):
        self.loop.call_soon(print)


socket = Socket()


async def test_the_first_loop():
    await socket.connect()


@pytest.mark.expect("RuntimeError", at="await socket.answer")
async def test_a_future_of_another_loop():
    await socket.connect()
    await socket.answer


@pytest.mark.expect("RuntimeError")
async def test_a_closed_loop():
    await socket.connect()
    socket.write()
