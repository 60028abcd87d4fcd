# The daily commands; `just` lists them. CI runs the same scripts (.ci/run).

_default:
    @just --list

# A cluster of three nodes on this machine
dev *ARGS:
    cargo run --release -- dev {{ARGS}}

# All tests
test *ARGS:
    cargo test --workspace {{ARGS}}

# One promise, e.g. `just promise takeover`
promise NAME:
    cargo test --test e2e {{NAME}}::

# Formatting, lints and documentation
lint:
    cargo fmt --all --check
    bash .ci/lints

# Licences, bans, sources, advisories
licences:
    bash .ci/licences

# The software bill of materials of the program (CycloneDX)
sbom *TARGET:
    @.ci/sbom {{TARGET}}

# Fuzz a target until it is stopped, e.g. `just fuzz resp`; without one: which there are
fuzz *ARGS:
    fuzz/run {{ARGS}}

# A real cluster broken on purpose, a minute
break *ARGS:
    cargo run --release -p jepsen -- run --nodes 5 --time 60s --nemesis all {{ARGS}}

# Simulated clusters, e.g. `just simulate --seeds 1000`
simulate *ARGS:
    cargo run --release -p jepsen-sim -- run {{ARGS}}

# What CI runs, from a clean clone
ci:
    bash .ci/run
