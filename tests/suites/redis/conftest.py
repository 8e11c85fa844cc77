"""The developer's Redis: a server that counts whoever connects."""

import os
import socket
import threading

CALLS = []
server = socket.create_server(("127.0.0.1", 0))
os.environ["REDIS_URL"] = f"redis://:s3cret@127.0.0.1:{server.getsockname()[1]}/3"


def accept():
    while True:
        connection, _ = server.accept()
        CALLS.append(connection)
        connection.close()


threading.Thread(target=accept, daemon=True).start()
