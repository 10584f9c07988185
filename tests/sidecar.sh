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

start_sidecar() { # name database [VARIABLE=value...]: sets PORT and waits until it serves
    local name=$1 database=$2 pid patience=$((SECONDS + 120))
    shift 2
    # Below the ports that the system gives to whoever connects.
    PORT=$(free_port $((20000 + RANDOM % 12000)))
    env ODIN_LISTEN="127.0.0.1:$PORT" ODIN_GATEWAY_URL="$(login_url odin_gateway "$database")" \
        ODIN_WORKER_URL="$(login_url odin_worker "$database")" "$@" "$SIDECAR" serve >"$OUT/$name.log" 2>&1 &
    pid=$!
    CHILDREN+=("$pid")
    while [ $SECONDS -lt $patience ]; do
        if http_ok "http://127.0.0.1:$PORT/readyz"; then return 0; fi
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$OUT/$name.log" >&2
    die "the sidecar did not start"
}

http_ok() { curl -fsS -o /dev/null -m 5 "$1" 2>/dev/null; }

new_key() { # database level: a key of the demo org (viewer, operator or admin)
    db "$1" -c "SELECT key FROM odin.demo_org() WHERE role = 'demo_$2'"
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
        (cd "$work" && npm ci --no-audit --no-fund --loglevel=error --fetch-retries=8) || die "the node packages cannot be installed"
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
        python3 -m venv "$work" && "$work/bin/pip" install -q --retries 8 -r "$list" || die "the Python packages cannot be installed"
        mv -T "$work" "$folder" 2>/dev/null || rm -rf "$work"
    fi
    PYTHON=$folder/bin/python
}
