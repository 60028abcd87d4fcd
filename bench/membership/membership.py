#!/usr/bin/env python3
"""What it costs that nodes come, go, move and are replaced: two tables in Markdown.

The first one says after each step of each plan how many nodes run, how many vote, and how many more may be lost, beside what
the size allows. The second one has numbers. Parts:

  plans   1 -> 3 -> 5 -> 3 -> 1, and three nodes replaced one by one under new names: the old one first, and the new one first
  moves   all nodes stop or are killed and start again at other addresses: from the last start to the first decision of an owner
  votes   from SIGTERM to the moment when all that stay vote without the node: of five that become three, and of three with one that
          waits for a vote
  stops   requests lost of 12 HTTP and 12 Redis clients that keep their connections, in 20 planned restarts
  logs    bytes a minute that all nodes log when one of three is down, or two; and that a node with a full disk logs (needs leave to
          mount)
  idle    processor and memory of a node when nothing is asked, of 3 and of 9

Needs Python 3.9, the program, and loopback addresses 127.44.x.y (Linux has them all). Exit code 1: a step did not come to what its
size allows, or a request was lost.
"""

import argparse
import http.client
import json
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

RULES = """rules:
  - { name: strict, key: [user], limit: 1000/1d, consistency: strict, on_owner_loss: deny }
  - { name: often, key: [caller], limit: 100000000/1m }
"""
PORT = 21800
KEY = "the key of a benchmark of members"
# Longer than anything that is measured may take.
PATIENCE = 60
CLIENTS = 12
RESTARTS = 20


class Node:
    """A process, and where it is."""

    def __init__(self, cluster, name, address):
        self.cluster, self.name, self.address = cluster, name, address
        self.log_path = os.path.join(cluster.directory, name + ".log")
        self.data = os.path.join(cluster.directory, name)
        self.process = None
        self.started = 0.0

    def start(self, join, expect=None):
        command = [self.cluster.program, "serve", "--name", self.name, "--listen", self.address, "--base-port", str(PORT)]
        command += ["--data-dir", self.data, "--rules", self.cluster.rules, "--exit-with-stdin"]
        peers = [f"{address}:{PORT + 3}" for address in join if address != self.address]
        if peers:
            command += ["--join", ",".join(peers)]
        if expect:
            command += ["--bootstrap-expect", str(expect)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        environment["TIDEGATE_CLUSTER_KEY"] = KEY
        with open(self.log_path, "ab") as log:
            self.started = time.monotonic()
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)

    def ask(self, path, timeout=2.0, method="GET", body=None):
        connection = http.client.HTTPConnection(self.address, PORT, timeout=timeout)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def status(self):
        code, body = self.ask("/v1/cluster")
        return json.loads(body) if code == 200 else {}

    def is_ready(self):
        return self.ask("/readyz")[0] == 200

    def stop(self):
        """SIGTERM, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    def await_end(self):
        code = self.process.wait(PATIENCE)
        self.process = None
        if code != 0:
            raise RuntimeError(f"{self.name} ended with {code}: {self.tail()}")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def tail(self):
        with open(self.log_path, "rb") as log:
            return log.read()[-2000:].decode(errors="replace")


class Cluster:
    """Nodes at addresses of their own. All processes end with the `with` block."""

    next_address = 0

    def __init__(self, program):
        self.program = program
        self.nodes = []

    def __enter__(self):
        self.place = tempfile.TemporaryDirectory()
        self.directory = self.place.name
        self.rules = os.path.join(self.directory, "rules.yaml")
        with open(self.rules, "w") as file:
            file.write(RULES)
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            if node.process:
                node.kill()
        self.place.cleanup()

    @classmethod
    def fresh_address(cls):
        cls.next_address += 1
        return f"127.44.{cls.next_address // 200}.{cls.next_address % 200 + 1}"

    def add(self, name=None):
        node = Node(self, name or f"n{len(self.nodes) + 1}", self.fresh_address())
        self.nodes.append(node)
        return node

    def running(self):
        return [node for node in self.nodes if node.process]

    def addresses(self):
        return [node.address for node in self.running()]

    def found(self, count):
        nodes = [self.add() for _ in range(count)]
        for node in nodes:
            node.start([one.address for one in nodes], count if count > 1 else None)
        self.await_ready()
        return nodes

    def join(self, name=None):
        node = self.add(name)
        node.start(self.addresses())
        wait(f"{node.name} is ready", node.is_ready, lambda: node.tail())
        return node

    def await_ready(self):
        for node in self.running():
            wait(f"{node.name} is ready", node.is_ready, lambda node=node: node.tail())
        wait("all slots are where they should be", self.is_settled)

    def is_settled(self):
        for node in self.running():
            status = node.status()
            if not status.get("session") or status["slots_moving"] or status["slots_to_move"]:
                return False
        return True

    def votes(self):
        """What each running node says: who votes, and how many more may be lost."""
        seen = []
        for node in self.running():
            raft = node.status().get("raft", {})
            seen.append((tuple(sorted(raft.get("voters", []))), raft.get("failures_tolerated")))
        return seen


def wait(what, holds, told=lambda: "", every=0.02):
    began = time.monotonic()
    while not holds():
        if time.monotonic() > began + PATIENCE:
            raise RuntimeError(f"not within {PATIENCE} s: {what}\n{told()}")
        time.sleep(every)
    return time.monotonic() - began


def true_tolerance(voters, cluster):
    """How many of those that run may be lost: a node that has just ended may seem alive to the others."""
    live = sum(node.name in voters for node in cluster.running())
    return live - (len(voters) // 2 + 1)


def allowed(size):
    """Votes of so many nodes, and how many of these may be lost."""
    votes = size if size < 3 else 3 if size < 5 else 5
    return (votes - 1) // 2


class Plan:
    """Rows of the first table."""

    def __init__(self, name, rows):
        self.name, self.rows = name, rows

    def step(self, cluster, what):
        size = len(cluster.running())
        wanted = allowed(size)
        began = time.monotonic()
        reached = True
        try:
            wait(
                "the tolerance",
                lambda: all(
                    said == wanted == true_tolerance(voters, cluster) for voters, said in cluster.votes()
                ),
            )
        except RuntimeError:
            reached = False
        took = time.monotonic() - began
        voters, tolerated = cluster.votes()[0]
        # What needs a quorum works at once.
        domain = f"step-{len(self.rows)}"
        code, _ = cluster.running()[0].ask(f"/v1/rules/{domain}?timeout_ms=5000", 10, "PUT", "rules: []\n")
        is_kept = reached and code in (200, 201)
        self.rows.append((self.name, what, size, len(voters), tolerated, wanted, took, is_kept))
        print(f"  {self.name}: {what}: {size} nodes, {len(voters)} vote, {tolerated} may be lost", file=sys.stderr)


def plans(program):
    rows = []
    with Cluster(program) as cluster:
        plan = Plan("1 -> 3 -> 5 -> 3 -> 1", rows)
        cluster.found(1)
        plan.step(cluster, "n1 starts")
        for count in range(2, 6):
            cluster.join()
            plan.step(cluster, f"n{count} joins")
        for count in range(5, 1, -1):
            node = cluster.nodes[count - 1]
            node.stop()
            node.await_end()
            plan.step(cluster, f"n{count} leaves")
    for new_first in (False, True):
        with Cluster(program) as cluster:
            plan = Plan(f"three are replaced, {'new' if new_first else 'old'} one first", rows)
            cluster.found(3)
            plan.step(cluster, "n1, n2, n3 found it")
            for number in range(1, 4):
                old, new = cluster.nodes[number - 1], f"n{number + 3}"
                if new_first:
                    cluster.join(new)
                    plan.step(cluster, f"{new} joins")
                old.stop()
                old.await_end()
                plan.step(cluster, f"{old.name} leaves")
                if not new_first:
                    cluster.join(new)
                    plan.step(cluster, f"{new} joins")
    return rows


def move_all(cluster, kills):
    """All end, and start at other addresses. From the last start until an owner decides about a key that nobody has asked about."""
    nodes = cluster.running()
    for node in nodes:
        node.kill() if kills else node.stop()
    if not kills:
        for node in nodes:
            node.await_end()
    for node in nodes:
        node.address = cluster.fresh_address()
    for node in nodes:
        node.start([one.address for one in nodes])
    last = max(node.started for node in nodes)
    users = iter(range(10**9))

    def is_decided():
        for node in nodes:
            code, body = node.ask(f"/v1/check?user=m{last}-{next(users)}", 0.5)
            if code == 200 and json.loads(body).get("decided_by") in ("owner", "forwarded"):
                return True
        return False

    wait("an owner decides", is_decided, lambda: nodes[0].tail(), 0.01)
    took = time.monotonic() - last
    cluster.await_ready()
    return took, time.monotonic() - last


def moves(program, rounds):
    for count in (3, 5):
        for kills in (False, True):
            with Cluster(program) as cluster:
                cluster.found(count)
                took = [move_all(cluster, kills) for _ in range(rounds)]
            how = "killed" if kills else "stopped"
            yield (
                f"first owner's decision after all of {count} were {how} and moved, s",
                spread([first for first, _ in took], 2),
                "5",
            )
            yield f"the same, all ready and all slots where they should be, s", spread([all_ for _, all_ in took], 2), ""


def votes(program, rounds):
    took = []
    for _ in range(rounds):
        with Cluster(program) as cluster:
            cluster.found(3)
            cluster.join()
            cluster.join()
            wait("all vote", lambda: all(len(voters) == 5 for voters, _ in cluster.votes()))
            for number in (5, 4):
                took_now = hand_over(cluster, cluster.nodes[number - 1], 3 if number == 4 else None)
            took.append(took_now)
    yield "vote given back, five nodes become three, s", spread(took, 2), "2"
    took = []
    for _ in range(rounds):
        with Cluster(program) as cluster:
            cluster.found(3)
            cluster.join()
            took.append(hand_over(cluster, cluster.nodes[0], 3))
    yield "vote given to the one that waits for it, three nodes, s", spread(took, 2), "2"


def hand_over(cluster, node, count):
    """From SIGTERM until all that stay say that so many of them vote, and not this node."""
    stays = [one for one in cluster.running() if one is not node]
    began = time.monotonic()
    node.stop()

    def is_done():
        seen = [one.status().get("raft", {}).get("voters", []) for one in stays]
        return all(len(voters) == count and node.name not in voters for voters in seen)

    if count:
        wait("its vote is another's", is_done, lambda: stays[0].tail(), 0.01)
    took = time.monotonic() - began
    node.await_end()
    return took


class Client(threading.Thread):
    """Keeps a connection, follows its protocol, asks another node when it is told to; counts what was lost."""

    def __init__(self, nodes, first, port, ask, over):
        super().__init__(daemon=True)
        self.nodes, self.at, self.port, self.ask, self.over = nodes, first, port, ask, over
        self.answered, self.lost = 0, []

    def run(self):
        stream, asked = None, 0.0
        while not self.over.is_set():
            if stream and select.select([stream], [], [], 0)[0]:
                # Closed while nothing was being asked.
                stream.close()
                stream = None
            if stream is None:
                try:
                    stream = socket.create_connection((self.nodes[self.at % len(self.nodes)], self.port), 2)
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    stream.settimeout(5)
                except OSError:
                    self.at += 1
                    continue
            before, asked = asked, time.monotonic()
            try:
                is_last = self.ask(stream)
                self.answered += 1
            except OSError as error:
                node = f"{self.nodes[self.at % len(self.nodes)]}:{self.port}"
                self.lost.append(f"{node}: {error}; the client had asked {asked - before:.2f} s before")
                is_last = True
            if is_last:
                stream.close()
                stream = None
                self.at += 1
            time.sleep(0.01)


def read_until(stream, is_whole):
    answer = b""
    while not is_whole(answer):
        part = stream.recv(4096)
        if not part:
            raise OSError("the connection ended before the answer")
        answer += part
    return answer


def over_http(stream):
    body = b'{"attributes":{"caller":"ada"}}'
    head = f"POST /v1/check HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    stream.sendall(head.encode() + body)

    def is_whole(answer):
        head, found, body = answer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[16:]) for line in lines if line.startswith(b"content-length: ")), 0)
        return bool(found) and len(body) >= length

    answer = read_until(stream, is_whole)
    if b" 200 " not in answer[:16] and b" 503 " not in answer[:16]:
        raise OSError(answer[:200].decode(errors="replace"))
    # A node that has just started may not be ready: another one is asked, and nothing is lost.
    return b"connection: close" in answer.lower() or b" 503 " in answer[:16]


def over_redis(stream):
    stream.sendall(b"*5\r\n$11\r\nCL.THROTTLE\r\n$3\r\nada\r\n$6\r\n100000\r\n$6\r\n100000\r\n$2\r\n60\r\n")
    answer = read_until(stream, lambda answer: answer.startswith(b"-") and b"\n" in answer or answer.count(b"\n") >= 6)
    if answer.startswith(b"-") and (b"leav" in answer or b"left" in answer):
        raise OSError(answer.decode(errors="replace"))
    return answer.startswith(b"-")


def stops(program):
    with Cluster(program) as cluster:
        nodes = cluster.found(3)
        addresses = [node.address for node in nodes]
        over = threading.Event()
        clients = [Client(addresses, first, PORT, over_http, over) for first in range(CLIENTS)]
        clients += [Client(addresses, first, PORT + 2, over_redis, over) for first in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(1)
        for number in range(RESTARTS):
            node = nodes[number % len(nodes)]
            node.stop()
            node.await_end()
            node.start(addresses)
            cluster.await_ready()
            time.sleep(0.3)
        over.set()
        for client in clients:
            client.join()
    lost = [one for client in clients for one in client.lost]
    for one in lost[:10]:
        print(f"  lost: {one}", file=sys.stderr)
    answered = sum(client.answered for client in clients)
    yield f"requests lost of {answered:,} in {RESTARTS} planned restarts, {len(clients)} clients", str(len(lost)), "0"


def logged(nodes):
    return sum(os.path.getsize(node.log_path) for node in nodes)


def minute_of_logs(nodes, settle, meanwhile=lambda: None):
    end = time.monotonic() + settle
    while time.monotonic() < end:
        meanwhile()
        time.sleep(1)
    before, began = logged(nodes), time.monotonic()
    while time.monotonic() < began + 60:
        meanwhile()
        time.sleep(1)
    return str(round((logged(nodes) - before) * 60 / (time.monotonic() - began)))


def logs(program):
    with Cluster(program) as cluster:
        nodes = cluster.found(3)
        nodes[2].kill()
        yield "log of all nodes, one of three is down, bytes a minute", minute_of_logs(nodes, 20), "0"
        nodes[1].kill()
        yield "the same, two of three are down (no quorum)", minute_of_logs(nodes, 20), "806"
    with Cluster(program) as cluster:
        disk = os.path.join(cluster.directory, "n3")
        os.mkdir(disk, 0o700)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tidegate-bench", disk], capture_output=True)
        if mounted.returncode:
            print(f"  not measured: a small disk cannot be mounted: {mounted.stderr.decode().strip()}", file=sys.stderr)
            return
        try:
            nodes = cluster.found(3)
            with open(os.path.join(disk, "filler"), "wb", 0) as filler:
                try:
                    while True:
                        filler.write(bytes(1 << 16))
                except OSError:
                    pass
            counts = iter(range(10**9))

            def write():
                text = f"# {next(counts)} {'x' * 5000}\nrules: []\n"
                nodes[0].ask("/v1/rules/large?timeout_ms=1000", 5, "PUT", text)

            what = "log of a node whose disk is full, while rules are written each second, bytes a minute"
            yield what, minute_of_logs(nodes[2:], 20, write), "9,800"
        finally:
            for node in cluster.running():
                node.kill()
            subprocess.run(["umount", "-l", disk], check=False)


def processor_seconds(node):
    with open(f"/proc/{node.process.pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(node):
    with open(f"/proc/{node.process.pid}/status") as file:
        line = next(line for line in file if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1000


def idle(program):
    for count in (3, 9):
        with Cluster(program) as cluster:
            nodes = cluster.found(count)
            time.sleep(10)
            before, began = [processor_seconds(node) for node in nodes], time.monotonic()
            time.sleep(60)
            passed = time.monotonic() - began
            used = [100 * (processor_seconds(node) - first) / passed for node, first in zip(nodes, before)]
            memory = [resident_megabytes(node) for node in nodes]
        yield f"idle processor of a node of {count}, %", spread(used, 2), "1.4"
        yield f"idle memory of a node of {count}, MB", spread(memory, 1), "42"


def spread(values, digits):
    values = sorted(values)
    median = statistics.median(values)
    return f"{median:.{digits}f} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})"


def main():
    parts = {"plans": None, "moves": moves, "votes": votes, "stops": stops, "logs": logs, "idle": idle}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/tidegate", help="the program [default: %(default)s]")
    parser.add_argument("--only", default=",".join(parts), help="some of the parts, separated by commas")
    parser.add_argument("--rounds", type=int, default=5, help="how often moves and votes are measured [default: %(default)s]")
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = [part for part in wanted if part not in parts]
    if unknown:
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(parts)}")
    if not os.access(options.binary, os.X_OK):
        parser.error(f"--binary: there is no program {options.binary}; `cargo build --release` makes one")
    program = os.path.abspath(options.binary)
    fails = False

    if "plans" in wanted:
        rows = plans(program)
        print("| plan | step | nodes | votes | may be lost | as the size allows | after, s | |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
        for name, what, size, voting, tolerated, promised, took, is_kept in rows:
            tolerated = "no quorum" if tolerated is None else tolerated
            print(f"| {name} | {what} | {size} | {voting} | {tolerated} | {promised} | {took:.2f} | {'' if is_kept else 'NOT KEPT'} |")
        print()
        fails = not all(row[-1] for row in rows)
    numbers = [part for part in wanted if parts[part]]
    if numbers:
        print("| what | median (least to most) | at most |")
        print("| --- | ---: | ---: |")
    for part in numbers:
        for what, value, target in parts[part](program, options.rounds) if part in ("moves", "votes") else parts[part](program):
            print(f"| {what} | {value} | {target} |", flush=True)
            fails = fails or part == "stops" and value != "0"
    return 1 if fails else 0


if __name__ == "__main__":
    sys.exit(main())
