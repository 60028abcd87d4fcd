"""The table of attacks: an honest client, undisturbed and under each attack, and the memory of the node."""

import os
import statistics
import time

import attackers
import honest
import kit
import wire

HONEST = "127.0.0.2"
RULES = """rules:
  - { name: per-user, key: [user], limit: 1000000/1s }
  - { name: per-account-day, key: [account], limit: 1000/1d }
"""
MAX_MEMORY = 64 * kit.MIB
# docs/http.md, "Memory": beside max-memory, for the program and for each connection; bodies of one client that come in parts.
PROGRAM, EACH_CONNECTION, BODIES = 64 * kit.MIB, 32 << 10, 8 * kit.MIB
# How often the undisturbed p99 an attack may make of it.
TIMES = 3.0
SETTLE = 1.0


def percentile(sorted_values, share):
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * share))]


class Line:
    """What was measured of one attack."""

    def __init__(self, attack):
        self.attack = attack
        self.rate = self.opens = 0.0
        self.quiet, self.under, self.errors, self.asked, self.ratios = [], [], 0, 0, []
        self.resident = self.budget = 0
        self.lived = True

    def failures(self):
        found = []
        if self.ratio() > TIMES:
            found.append("slow")
        if self.errors:
            found.append("errors")
        if self.resident > self.budget:
            found.append("memory")
        if not self.lived:
            found.append("node ended")
        return found

    def ratio(self):
        return statistics.median(self.ratios)

    def row(self):
        quiet, under = ([statistics.median(one[place] for one in measured) for place in (0, 1)] for measured in (self.quiet, self.under))
        return (f"| {self.attack.name} | {self.attack.front} | {self.rate:,.0f} {self.attack.unit} | {quiet[0]:.2f} / {quiet[1]:.2f} "
                f"| {under[0]:.2f} / {under[1]:.2f} | {self.ratio():.1f} ({min(self.ratios):.1f} to {max(self.ratios):.1f}) "
                f"| {self.errors} of {self.asked} | {self.resident / kit.MIB:.0f} of {self.budget / kit.MIB:.0f} "
                f"| {', '.join(self.failures()) or 'holds'} |")


def measure(client, seconds, line):
    took, errors = honest.ask_for(client, seconds)
    line.errors += errors
    line.asked += len(took)
    took.sort()
    return percentile(took, 0.5), percentile(took, 0.99)


def run_attack(attack, options, for_node, for_clients):
    line = Line(attack)
    environment = {"TIDEGATE_ADMIN_TOKEN": kit.ADMIN_TOKEN, "TIDEGATE_REQUIRE_TOKEN": "all"} if attack.guarded else {}
    node = kit.Node(options.binary, RULES, for_node, ["--max-memory", f"{MAX_MEMORY // kit.MIB}MiB", "--log-level", "warn"], environment)
    try:
        node.wait_until_ready()
        token = node.token().encode() if attack.guarded else None
        source = attackers.SOURCE if options.same_address else HONEST
        kind = honest.KINDS[attack.front]
        client = kind(node.port + kind.offset, source, token)
        client.connect()
        honest.ask_for(client, 0.5)
        most_open, rates, opens = 0, [], []
        for _ in range(options.rounds):
            line.quiet.append(measure(client, options.seconds, line))
            running = attackers.Run(attack, node.port, attackers.SOURCE, for_clients)
            try:
                time.sleep(SETTLE)
                start, before = time.monotonic(), running.counts()
                line.under.append(measure(client, options.seconds, line))
                took, after = time.monotonic() - start, running.counts()
                most_open = max(most_open, node.open_files())
            finally:
                running.end()
            rates.append((after[0] - before[0]) / took)
            opens.append((after[1] - before[1]) / took)
            line.ratios.append(line.under[-1][1] / line.quiet[-1][1])
            time.sleep(SETTLE)
        line.lived = node.lives()
        line.rate, line.opens = statistics.median(rates), statistics.median(opens)
        line.resident = node.resident_at_most() if line.lived else 0
        line.budget = MAX_MEMORY + PROGRAM + BODIES + most_open * EACH_CONNECTION
    finally:
        node.stop()
    if options.verbose:
        kit.say(f"  {attack.name} ({attack.front}): {line.opens:,.0f} connections a second, {most_open} files open")
    return line


def table(options):
    """Prints it. Whether all lines hold."""
    for_node, for_clients = kit.processors()
    kit.pin(for_clients)
    alone = kit.real_time()
    chosen = [attack for attack in attackers.ATTACKS if not options.attacks
              or any(one in f"{attack.name} {attack.front}" for one in options.attacks)]
    if not chosen:
        raise SystemExit("no attack has such a name: " + ", ".join(sorted({attack.name for attack in attackers.ATTACKS})))
    print(f"{kit.machine()}; node on processor {for_node}, honest client (200 checks/s{'' if alone else ', not ahead of the attacker'}) and "
          f"attacker on {for_clients}, {'one address' if options.same_address else 'two addresses'}; medians of {options.rounds} rounds of "
          f"{options.seconds:g} s undisturbed and {options.seconds:g} s under attack\n")
    print("| attack | port | attacker, a second | undisturbed, p50 / p99 ms | under attack | p99, times | errors of the honest "
          "| resident, MiB | |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    lines = []
    for attack in chosen:
        line = run_attack(attack, options, for_node, for_clients)
        lines.append(line)
        print(line.row(), flush=True)
    failed = [line for line in lines if line.failures()]
    print(f"\n{len(lines) - len(failed)} of {len(lines)} hold: p99 within {TIMES:g} times the undisturbed one, no error of the honest client, "
          "memory within the budget")
    return not failed
