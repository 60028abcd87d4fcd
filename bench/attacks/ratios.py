"""What the locks cost: TLS, tokens and encrypted peers, each beside the same without, in turns in one run."""

import json
import os
import pathlib
import re
import shutil
import ssl
import statistics
import subprocess
import tempfile
import time

import kit

RULES = "rules: [{ name: per-user, key: [user], limit: 1000000/1s }]\n"
CONNECTIONS, KEYS = 32, 1000
SCRIPT = """
local requests, at, headers = {}, 0, {}
if os.getenv("TOKEN") ~= "" then headers["authorization"] = "Bearer " .. os.getenv("TOKEN") end
init = function()
  for path in io.lines(os.getenv("PATHS")) do requests[#requests + 1] = wrk.format("GET", path, headers) end
end
request = function() at = at % #requests + 1; return requests[at] end
"""


class Case:
    """One side of a ratio: what it does in a second, and what one of it costs the nodes."""

    def __init__(self, nodes, run):
        self.nodes, self.run, self.rates, self.micros = nodes, run, [], []

    def measure(self, seconds):
        before = sum(node.cpu_seconds() for node in self.nodes)
        rate, count = self.run(seconds)
        self.rates.append(rate)
        self.micros.append((sum(node.cpu_seconds() for node in self.nodes) - before) * 1e6 / max(count, 1))


class Ratio:
    """Two sides, and the least that the second may be of the first; none: it is only told."""

    def __init__(self, name, unit, one, other, target):
        self.name, self.unit, self.one, self.other, self.target = name, unit, one, other, target

    def measure(self, seconds, number):
        # Whoever is second meets a warmer machine, so they change places.
        for case in (self.one, self.other) if number % 2 == 0 else (self.other, self.one):
            case.measure(seconds)

    def row(self):
        ratios = sorted(other / one for one, other in zip(self.one.rates, self.other.rates))
        costs = statistics.median(one / other for one, other in zip(self.one.micros, self.other.micros))
        median = statistics.median(ratios)
        self.holds = self.target is None or median >= self.target
        middle = statistics.median
        target = "" if self.target is None else f"{self.target:g}"
        return (f"| {self.name} | {middle(self.one.rates):,.0f} | {middle(self.other.rates):,.0f} {self.unit} "
                f"| {median:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) | {middle(self.one.micros):.1f} | {middle(self.other.micros):.1f} | {costs:.3f} "
                f"| {target} | {'holds' if self.holds else 'too little'} |")


def wrk(port, paths, directory, scheme="http", token=""):
    """Checks on connections that are kept, one behind the other."""
    script, listed = directory / "wrk.lua", directory / f"paths-{port}"
    script.write_text(SCRIPT)
    listed.write_text("\n".join(paths) + "\n")

    def run(seconds):
        output = subprocess.run(
            ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{max(1, round(seconds))}s", "-s", str(script), f"{scheme}://127.0.0.1:{port}"],
            env={**os.environ, "PATHS": str(listed), "TOKEN": token}, check=True, capture_output=True, text=True).stdout
        if "Non-2xx" in output or "Socket errors" in output:
            raise SystemExit(output)
        return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]), int(re.search(r"(\d+) requests in", output)[1])
    return run


def handshakes(port, authority, resumes):
    """New connections, one behind the other, each with one check."""
    import socket
    context = ssl.create_default_context(cafile=authority)
    question = b"GET /v1/check?user=a HTTP/1.1\r\nhost: a\r\n\r\n"

    def run(seconds):
        end, start, count, session = time.perf_counter() + seconds, time.perf_counter(), 0, None
        while time.perf_counter() < end:
            with socket.create_connection(("127.0.0.1", port), 5) as tcp:
                tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with context.wrap_socket(tcp, server_hostname="localhost", session=session if resumes else None) as stream:
                    if resumes and session is not None and not stream.session_reused:
                        raise SystemExit("a session was not resumed")
                    stream.sendall(question)
                    # The tickets come before the answer.
                    stream.recv(4096)
                    session = stream.session
            count += 1
        return count / (time.perf_counter() - start), count
    return run


def certificates(binary, directory, names):
    def cert(*words):
        subprocess.run([str(binary), "cert", *words, "--dir", str(directory)], check=True, stdout=subprocess.DEVNULL)
    cert("ca")
    for name in names:
        cert("node", "--name", name)
    return directory / "ca.crt"


def cluster(binary, processor, flags_of, nodes):
    """Three nodes that found a cluster, and paths of keys that the first one does not own."""
    ports = [kit.free_ports() for _ in range(3)]
    started = []
    for number, port in enumerate(ports):
        name = f"n{number + 1}"
        others = ",".join(f"127.0.0.1:{other + 3}" for other in ports if other != port)
        flags = ["--join", others, "--bootstrap-expect", "3", "--log-level", "warn", *flags_of(name)]
        node = kit.Node(binary, RULES, processor, flags, {"TIDEGATE_CLUSTER_KEY": "5e" * 32}, port, name)
        nodes.append(node)
        started.append(node)
    for node in started:
        node.wait_until_ready()
    paths = []

    def owners_are_known():
        paths.clear()
        for number in range(3 * KEYS):
            path = f"/v1/check?user=f{number}"
            if json.loads(started[0].get(path + "&cost=0")[1])["decided_by"] == "forwarded":
                paths.append(path)
        return len(paths) >= KEYS
    kit.wait_for("the slots are shared out", owners_are_known, 60)
    return started, paths[:KEYS]


def table(options):
    """Prints it. Whether all reach their targets."""
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing (package wrk)")
    for_node, for_clients = kit.processors()
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    kit.pin(for_clients)
    paths = [f"/v1/check?user=u{number}" for number in range(KEYS)]
    nodes = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        authority = certificates(options.binary, scratch, ["n1", "n2", "n3"])
        quiet = ["--log-level", "warn"]
        try:
            plain = kit.Node(options.binary, RULES, for_node, quiet)
            nodes.append(plain)
            guarded = kit.Node(options.binary, RULES, for_node, quiet,
                               {"TIDEGATE_ADMIN_TOKEN": kit.ADMIN_TOKEN, "TIDEGATE_REQUIRE_TOKEN": "all"})
            nodes.append(guarded)
            secure = kit.Node(options.binary, RULES, for_node, [*quiet, "--tls-cert", scratch / "n1.crt", "--tls-key", scratch / "n1.key"])
            nodes.append(secure)
            plain.wait_until_ready()
            guarded.wait_until_ready()
            secure.wait_until_ready(scheme="https", context=ssl.create_default_context(cafile=authority))
            sealed, sealed_paths = cluster(options.binary, for_node, lambda name: [], nodes)
            encrypted, encrypted_paths = cluster(options.binary, for_node, lambda name: [
                "--peer-tls-cert", scratch / f"{name}.crt", "--peer-tls-key", scratch / f"{name}.key", "--peer-tls-ca", authority], nodes)
            ratios = [
                Ratio("HTTP keep-alive, plain; with TLS", "checks/s", Case([plain], wrk(plain.port, paths, scratch)),
                      Case([secure], wrk(secure.port, paths, scratch, "https")), 0.85),
                Ratio("open check; with a token", "checks/s", Case([plain], wrk(plain.port, paths, scratch)),
                      Case([guarded], wrk(guarded.port, paths, scratch, token=guarded.token())), 0.98),
                Ratio("three nodes, forwarded, sealed peers; mutual TLS", "checks/s", Case(sealed, wrk(sealed[0].port, sealed_paths, scratch)),
                      Case(encrypted, wrk(encrypted[0].port, encrypted_paths, scratch)), 0.9),
                Ratio("new TLS connections, full handshake; resumed", "connections/s",
                      Case([secure], handshakes(secure.port, authority, False)), Case([secure], handshakes(secure.port, authority, True)), None),
            ]
            ratios = [ratio for ratio in ratios if not options.ratios or any(one in ratio.name for one in options.ratios)]
            rounds = max(options.rounds, options.ratio_rounds)
            for ratio in ratios:
                ratio.measure(0.5, 0)
                for case in (ratio.one, ratio.other):
                    case.rates.clear()
                    case.micros.clear()
            for number in range(rounds):
                for ratio in ratios:
                    ratio.measure(options.ratio_seconds, number)
        finally:
            for node in nodes:
                node.stop()
    print(f"{kit.machine()}; nodes on processor {for_node}, clients on {for_clients}; medians of {rounds} rounds of {options.ratio_seconds:g} s "
          "for each side, in turns\n")
    print("| | without | with | ratio, in a round (least to most) | CPU µs, without | with | ratio | target | |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for ratio in ratios:
        print(ratio.row())
    return all(ratio.holds for ratio in ratios)
