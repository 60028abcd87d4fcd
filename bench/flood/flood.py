#!/usr/bin/env python3
"""What a flood of keys does to everybody else: false denials, and the memory of the node.

Starts a node for each kind of flood and each memory, sends distinct keys to it, and asks after each number of them about keys that
were never seen, each once. All of these have a full bucket, so each denial is a false one. Kinds of floods:

  same    the rule `1000/1d` is flooded, and keys of that rule are asked about
  strict  the same, of a rule with `on_memory_full: strict`
  other   the rule `1000/1d` is flooded, and keys of the rule `10/1s` are asked about
  log     a sliding log `10/1m` is flooded, and keys of the rule `10/1s` are asked about
  inline  limits that come with the check (CL.THROTTLE, one unit in 31 days) flood, and keys of `10/1s` are asked about

Needs nothing but Python 3.9 and the program. Versions before `on_memory_full` are asked with --old (no `strict`).
"""

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

RULES = """rules:
  - { name: per-caller, key: [caller], limit: 10/1s }
  - { name: per-account-day, key: [account], limit: 1000/1d }
  - { name: log-per-client, key: [client], limit: 10/1m, algorithm: sliding_log }
"""
STRICT = "  - { name: strict-day, key: [strict], limit: 1000/1d, on_memory_full: strict }\n"
# Kind: the attribute that floods (none: RESP), the attribute that is asked about.
KINDS = {
    "same": ("account", "account"),
    "strict": ("strict", "strict"),
    "other": ("account", "caller"),
    "log": ("client", "caller"),
    "inline": (None, "caller"),
}
BATCH = 500


class Node:
    def __init__(self, program, port, memory, rules):
        self.port = port
        self.directory = tempfile.TemporaryDirectory()
        path = os.path.join(self.directory.name, "rules.yaml")
        with open(path, "w") as file:
            file.write(rules)
        self.log = open(os.path.join(self.directory.name, "log"), "w+b")
        command = [program, "serve", "--name", "a", "--base-port", str(port), "--max-memory", memory, "--rules", path]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 30
        while True:
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.log.seek(0)
                sys.exit("the node is not ready:\n" + self.log.read().decode(errors="replace"))
            time.sleep(0.05)

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def metric(self, name):
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.split(" ")[0] == name]
        return float(lines[0].split(" ")[1]) if lines else 0.0

    def memory(self):
        """Resident now and at most, in MB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        return [int(fields[name].split()[0]) / 1000 for name in ("VmRSS", "VmHWM")]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.directory.cleanup()


def pipeline(port, first, last, request, mark):
    """Sends the requests in batches on one connection; how many answers have the mark."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=60)
    count, marked = 0, 0
    for begin in range(first, last, BATCH):
        end = min(begin + BATCH, last)
        stream.sendall(b"".join(request(number) for number in range(begin, end)))
        got, answers = b"", 0
        while answers < end - begin:
            part = stream.recv(1 << 18)
            if not part:
                sys.exit("the node has closed the connection")
            got += part
            answers = got.count(mark[0])
        # The body of the last answer may still be on its way.
        while not got.endswith(mark[2]):
            got += stream.recv(1 << 18)
        count, marked = count + answers, marked + got.count(mark[1])
    stream.close()
    return count, marked


def check(attribute, prefix=b""):
    head = b"GET /v1/check?" + attribute.encode() + b"=" + prefix
    return lambda number: head + b"%d HTTP/1.1\r\nhost: a\r\n\r\n" % number


def throttle(number):
    key = b"%012d" % number
    return b"*5\r\n$11\r\nCL.THROTTLE\r\n$12\r\n" + key + b"\r\n$1\r\n0\r\n$1\r\n1\r\n$7\r\n2678400\r\n"


HTTP = (b"HTTP/1.1 ", b"HTTP/1.1 429", b"}")
RESP = (b"*5\r\n", b"*5\r\n:1\r\n", b"\r\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/tidegate", help="the node's program (%(default)s)")
    parser.add_argument("--memory", default="16MiB,256MiB", help="values for --max-memory (%(default)s)")
    parser.add_argument("--keys", default="0.25,0.5,1,4,8,12", help="how many keys, in millions (%(default)s)")
    parser.add_argument("--kinds", default="same,strict,other,log,inline", help="kinds of floods (%(default)s)")
    parser.add_argument("--strangers", type=int, default=1000, help="keys that are asked about (%(default)s)")
    parser.add_argument("--base-port", type=int, default=27800, help="four ports from this one (%(default)s)")
    parser.add_argument("--old", action="store_true", help="the program does not know `on_memory_full`")
    options = parser.parse_args()
    steps = [round(float(keys) * 1e6) for keys in options.keys.split(",")]
    kinds = [kind for kind in options.kinds.split(",") if not (options.old and kind == "strict")]

    print("| flood | memory | keys | seconds | false denials | let go | buckets, MB | resident, MB | at most |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    worst = 0.0
    for kind in kinds:
        flooding, asked = KINDS[kind]
        for memory in options.memory.split(","):
            node = Node(options.program, options.base_port, memory, RULES + ("" if options.old else STRICT))
            try:
                sent, took = 0, 0.0
                for place, keys in enumerate(steps):
                    start = time.monotonic()
                    if flooding:
                        pipeline(node.port, sent, keys, check(flooding), HTTP)
                    else:
                        pipeline(node.port + 2, sent, keys, throttle, RESP)
                    sent, took = keys, took + time.monotonic() - start
                    begin = (place + 1) * 10_000_000
                    strangers = check(asked, b"new-")
                    _, denied = pipeline(node.port, begin, begin + options.strangers, strangers, HTTP)
                    share = 100 * denied / options.strangers
                    worst = max(worst, share)
                    let_go = sum(node.metric(f"tidegate_buckets_{how}_total") for how in ("folded", "forgotten"))
                    held, (now, most) = node.metric("tidegate_bucket_bytes") / 1e6, node.memory()
                    print(
                        f"| {kind} | {memory} | {keys:,} | {took:.1f} | {share:.1f} % | {let_go:,.0f} | {held:.0f} "
                        f"| {now:.0f} | {most:.0f} |",
                        flush=True,
                    )
            finally:
                node.stop()
    print(f"\nworst false-denial rate: {worst:.1f} %")


if __name__ == "__main__":
    main()
