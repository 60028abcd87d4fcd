#!/usr/bin/env python3
"""Whether the front door holds, and what its locks cost: real nodes, attacked and measured.

    python3 bench/attacks                          both tables
    python3 bench/attacks --only attacks           an honest client under each attack
    python3 bench/attacks --only ratios            TLS, tokens and encrypted peers, each beside the same without
    python3 bench/attacks --attacks "key flood"    some of them: by name, or by name and port as in "malformed gRPC"

The node has a processor for itself, and all clients share another one: else the system's scheduler is measured, which lets one of two
busy processes wait for milliseconds. For the same reason the honest client has real-time priority over the attacker if the
system grants it (root). Exits with 1 when a line fails. Needs Python 3.9 and taskset; wrk and openssl for the ratios.
"""

import argparse
import pathlib
import sys

# Beside the sources nothing is written.
sys.dont_write_bytecode = True

import front_door
import kit
import ratios

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def main():
    parser = argparse.ArgumentParser(prog="python3 bench/attacks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/tidegate", help="the node's program (%(default)s)")
    parser.add_argument("--only", choices=["attacks", "ratios"], help="one of the two tables")
    parser.add_argument("--attacks", nargs="+", metavar="NAME", help="these attacks only")
    parser.add_argument("--ratios", nargs="+", metavar="NAME", help="these ratios only")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (%(default)s)")
    parser.add_argument("--ratio-seconds", type=float, default=2, help="the same of each side of a ratio (%(default)s)")
    parser.add_argument("--ratio-rounds", type=int, default=9, help="medians of so many (%(default)s)")
    parser.add_argument("--same-address", action="store_true", help="the honest client comes from the attacker's address")
    parser.add_argument("--verbose", action="store_true", help="tell more while it runs")
    options = parser.parse_args()
    if not options.binary.exists():
        raise SystemExit(f"{options.binary} is missing: cargo build --release, or --binary")
    kit.raise_open_file_limit()
    holds = True
    if options.only != "ratios":
        holds &= front_door.table(options)
    if options.only is None:
        print()
    if options.only != "attacks" and not options.attacks:
        holds &= ratios.table(options)
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
