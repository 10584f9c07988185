# shellcheck shell=bash
# Sidecars and foreign clients for the runners that need them. Sourced after lib.sh.

# shellcheck disable=SC2034  # read by the runners
SIDECAR=${ODIN_TEST_SIDECAR:-$(target_dir)/release/odin-farm}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/odin_farm
CHILDREN=()
[ -x "$SIDECAR" ] || die "$SIDECAR is not built; run scripts/build."

stop_children() {
    local pid
    for pid in "${CHILDREN[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait "${CHILDREN[@]}" 2>/dev/null || true
    CHILDREN=()
}
trap stop_children EXIT
trap 'exit 130' INT TERM

login_url() { # role database: a URL of the test cluster for the sidecar
    local url
    url=$(url_of "$2")
    printf '%s\n' "${url/postgres@/$1@}"
}

# A port of which no outgoing connection is given the number by chance, as it is with those of the system's own range.
quiet_port() {
    local low=32768
    if [ -r /proc/sys/net/ipv4/ip_local_port_range ]; then read -r low _ </proc/sys/net/ipv4/ip_local_port_range; fi
    # Where that range is nearly everything, no port is better than another.
    [ "$low" -ge 12000 ] || low=32768
    free_port $((10000 + (RANDOM * 32768 + RANDOM) % (low - 10200)))
}

start_sidecar() { # name database [VARIABLE=value...]: sets PORT and waits until it serves
    local name=$1 database=$2 pid
    shift 2
    for _ in 1 2 3; do
        PORT=$(quiet_port)
        env ODIN_LISTEN="127.0.0.1:$PORT" ODIN_GATEWAY_URL="$(login_url odin_gateway "$database")" \
            ODIN_WORKER_URL="$(login_url odin_worker "$database")" "$@" "$SIDECAR" serve >"$OUT/$name.log" 2>&1 &
        pid=$!
        CHILDREN+=("$pid")
        if comes_up "http://127.0.0.1:$PORT/readyz" "$pid"; then return 0; fi
        # Somebody took the port since it was looked at: another one, and nothing else is tried again.
        grep -q 'cannot listen on' "$OUT/$name.log" || break
        unset 'CHILDREN[-1]'
    done
    tail -n 20 "$OUT/$name.log" >&2
    die "the sidecar did not start"
}

comes_up() { # url pid-of-its-server: waits as long as that lives
    local until=$((SECONDS + 180))
    while [ "$SECONDS" -lt "$until" ]; do
        if http_ok "$1"; then return 0; fi
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    return 1
}

wait_for_url() { # url pid-of-its-server log
    comes_up "$1" "$2" || die "nothing answers at $1: $(tail -n 3 "$3")"
}

http_ok() { curl -fsS -o /dev/null -m 5 "$1" 2>/dev/null; }

new_key() { # database level: a key of the demo org (viewer, operator or admin)
    db "$1" -c "SELECT key FROM odin.demo_org() WHERE role = 'demo_$2'"
}

npm_ci() { # folder with package.json and package-lock.json
    (cd "$1" && npm ci --no-audit --no-fund --loglevel=error --fetch-retries=5 --fetch-timeout=120000)
}
pip_venv() { # folder pip-arguments...
    local folder=$1
    shift
    python3 -m venv --clear "$folder" && "$folder/bin/pip" install -q --disable-pip-version-check --retries 10 --timeout 60 "$@"
}

# Node packages of tests/clients/package-lock.json, in a cache outside the checkout. Sets NODE and NODE_MODULES.
need_node_packages() {
    local lock=$ROOT/tests/clients/package-lock.json folder work
    have npm || die "npm is missing: run scripts/packages --dev"
    folder=$CACHE/node-$(sha256sum "$lock" | cut -c1-16)
    if [ ! -d "$folder" ]; then
        mkdir -p "$CACHE"
        work=$(mktemp -d "$CACHE/node-XXXXXX")
        cp "$lock" "$ROOT/tests/clients/package.json" "$work/"
        again npm_ci "$work" || die "the node packages cannot be installed"
        mv -T "$work" "$folder" 2>/dev/null || rm -rf "$work"
    fi
    NODE_MODULES=$folder/node_modules
    NODE=$NODE_MODULES/node/bin/node
    # What the packages start by name is the same node.
    PATH=$(dirname "$NODE"):$PATH
    export NODE_MODULES NODE PATH
}

# Python packages of tests/clients/requirements.txt, in a cache outside the checkout. Sets PYTHON.
need_python_packages() {
    local list=$ROOT/tests/clients/requirements.txt folder work
    folder=$CACHE/python-$(cat "$list" <(python3 --version) | sha256sum | cut -c1-16)
    if [ ! -d "$folder" ]; then
        mkdir -p "$CACHE"
        work=$(mktemp -d "$CACHE/python-XXXXXX")
        again pip_venv "$work" -r "$list" || die "the Python packages cannot be installed"
        mv -T "$work" "$folder" 2>/dev/null || rm -rf "$work"
    fi
    PYTHON=$folder/bin/python
}
