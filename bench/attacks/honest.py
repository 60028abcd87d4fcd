"""The honest client: 200 checks a second on one connection, each at its time, whether the one before was answered or not.

What is measured runs from the time at which a check was due to its answer, so that a node that stops for a moment is not measured
once but as often as somebody waits for it.
"""

import gc
import socket
import struct
import time

import wire

EVERY = 1 / 200
PATIENCE = 5.0


class Lost(Exception):
    """The node ended the connection, or said something else than an answer."""


class Client:
    """One connection. `ask` writes a check and reads its answer."""

    def __init__(self, port, source, token):
        self.port, self.source, self.token = port, source, token
        self.socket, self.number, self.rest = None, 0, b""

    def connect(self):
        self.close()
        self.socket = socket.create_connection(("127.0.0.1", self.port), PATIENCE, (self.source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        self.greet()

    def close(self):
        if self.socket:
            self.socket.close()
            self.socket = None

    def read(self):
        got = self.socket.recv(65536)
        if not got:
            raise Lost("closed")
        self.rest += got

    def ask(self):
        self.number += 1
        key = b"honest-%d" % (self.number % 1000)
        self.socket.sendall(self.question(key))
        return self.answered()

    def greet(self):
        pass


class Http(Client):
    offset = 0

    def question(self, key):
        extra = [b"authorization: Bearer " + self.token] if self.token else []
        return wire.get(b"/v1/check?user=" + key, *extra)

    def answered(self):
        while (end := self.rest.find(b"\r\n\r\n")) < 0:
            self.read()
        head = self.rest[:end].lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(self.rest) < end + 4 + length:
            self.read()
        self.rest = self.rest[end + 4 + length:]
        return head.startswith(b"http/1.1 200")


class Grpc(Client):
    offset = 1

    def greet(self):
        self.stream = 1
        extra = [(b"authorization", b"Bearer " + self.token)] if self.token else []
        self.head = wire.grpc_headers(wire.ENVOY, extra)
        self.socket.sendall(wire.GREETING)

    def question(self, key):
        asked = wire.frame(wire.HEADERS, wire.END_HEADERS, self.stream, self.head)
        return asked + wire.frame(wire.DATA, wire.END_STREAM, self.stream, wire.envoy_question(b"user", key))

    def answered(self):
        allowed = False
        while True:
            while len(self.rest) < 9 or len(self.rest) < 9 + int.from_bytes(self.rest[:3], "big"):
                self.read()
            length = int.from_bytes(self.rest[:3], "big")
            kind, flags, stream = self.rest[3], self.rest[4], struct.unpack(">I", self.rest[5:9])[0]
            payload, self.rest = self.rest[9:9 + length], self.rest[9 + length:]
            if kind == wire.PING and not flags & wire.ACK:
                self.socket.sendall(wire.frame(wire.PING, wire.ACK, 0, payload))
            elif kind == wire.SETTINGS and not flags & wire.ACK:
                self.socket.sendall(wire.frame(wire.SETTINGS, wire.ACK, 0))
            elif kind == wire.GOAWAY or kind == wire.RST_STREAM:
                raise Lost("given up")
            elif kind == wire.DATA and stream == self.stream:
                # overall_code: OK
                allowed = payload[5:7] == b"\x08\x01"
            elif kind == wire.HEADERS and stream == self.stream and flags & wire.END_STREAM:
                self.stream += 2
                return allowed


class Resp(Client):
    offset = 2

    def greet(self):
        if self.token:
            self.socket.sendall(wire.command(b"AUTH", self.token))
            while not self.rest.endswith(b"\r\n"):
                self.read()
            if self.rest != b"+OK\r\n":
                raise Lost(self.rest)
            self.rest = b""

    def question(self, key):
        return wire.command(b"CL.THROTTLE", key, b"1000000", b"1000000", b"1")

    def answered(self):
        while self.rest.count(b"\r\n") < (6 if self.rest.startswith(b"*") else 1):
            self.read()
        allowed, self.rest = self.rest.startswith(b"*5\r\n:0\r\n"), b""
        return allowed


KINDS = {"HTTP": Http, "gRPC": Grpc, "Redis": Resp}


def ask_for(client, seconds):
    """Milliseconds that each check took, and how many were not answered, or denied. After a while no more are asked: the rest counts
    as not answered."""
    took, errors = [], 0
    gc.collect()
    gc.disable()
    start = time.perf_counter() + 0.01
    for number in range(round(seconds / EVERY)):
        due = start + number * EVERY
        if (early := due - time.perf_counter()) > 0:
            time.sleep(early)
        elif -early > seconds + 2 * PATIENCE:
            errors += 1
            took.append(-early * 1000)
            continue
        try:
            if client.socket is None:
                client.connect()
            if not client.ask():
                errors += 1
        except (OSError, Lost, ValueError, IndexError):
            errors += 1
            client.close()
        took.append((time.perf_counter() - due) * 1000)
    gc.enable()
    return took, errors
