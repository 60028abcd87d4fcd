"""Nodes of a measurement: started on a processor of their own, with a deadline for everything, ended with the measurement."""

import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ADMIN_TOKEN = "the-admin-token-of-the-measurement-0123456789"
MIB = 1 << 20


def say(text):
    print(text, file=sys.stderr, flush=True)


def processors():
    """One for the nodes, one for all clients."""
    numbers = sorted(os.sched_getaffinity(0))
    if len(numbers) < 2:
        raise SystemExit("two processors are needed: one for the node, one for its clients")
    return numbers[0], numbers[-1]


def pin(number):
    os.sched_setaffinity(0, {number})


def real_time():
    """The honest client goes before the attacker, as on a machine of its own: else its wait for their processor is measured."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        return True
    except (OSError, AttributeError):
        return False


def raise_open_file_limit():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


given = 21000 + os.getpid() % 500 * 8


def free_ports(count=4):
    """The first of so many free ports in a row, none of them given before. Below those that the system gives to clients, which could
    take one before it is used."""
    global given
    for port in range(given, 32000, count):
        given = port + count
        sockets = []
        try:
            for number in range(count):
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", port + number))
            return port
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise SystemExit("no free ports")


def wait_for(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    raise SystemExit(f"{what}: not within {seconds} seconds")


class Node:
    """A real node. `flags` are those of `tidegate serve`; ports are base, + 1 (gRPC), + 2 (Redis protocol), + 3 (peers)."""

    def __init__(self, binary, rules, processor, flags=(), environment=None, port=None, name="n1"):
        self.directory = tempfile.TemporaryDirectory()
        self.port = port or free_ports()
        path = pathlib.Path(self.directory.name) / "rules.yaml"
        path.write_text(rules)
        self.log = open(pathlib.Path(self.directory.name) / "log", "w+b")
        command = ["taskset", "-c", str(processor), str(binary), "serve", "--name", name, "--base-port", str(self.port), "--workers", "1",
                   "--rules", str(path), *map(str, flags)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env={**os.environ, **(environment or {})})

    def wait_until_ready(self, **how):
        def ready():
            if self.process.poll() is not None:
                raise SystemExit("the node has ended:\n" + self.logged())
            return self.get("/readyz", **how)[0] == 200
        wait_for("a node is ready", ready)
        return self

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-4000:]

    def get(self, path, token=None, scheme="http", context=None, body=None):
        request = urllib.request.Request(f"{scheme}://127.0.0.1:{self.port}{path}", data=body)
        if token:
            request.add_header("authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def token(self, name="bench"):
        """A token for checks, made with the admin token of the node."""
        body = json.dumps({"name": name, "roles": ["check"]}).encode()
        status, text = self.get("/v1/tokens", token=ADMIN_TOKEN, body=body)
        if status not in (200, 201):
            raise SystemExit(f"no token was made: {status} {text}")
        return json.loads(text)["token"]

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_at_most(self):
        """In bytes, since the start."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def lives(self):
        return self.process.poll() is None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.directory.cleanup()


def machine():
    model = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = model[0].split(":", 1)[1].strip() if model else "unknown processor"
    return f"{time.strftime('%Y-%m-%d')}, {name}, {os.cpu_count()} processors, load average at the start {os.getloadavg()[0]:.1f}"
