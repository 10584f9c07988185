# shellcheck shell=bash
# What every script here shares. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export LC_ALL=C.UTF-8
# A registry that fails once is asked again.
export CARGO_NET_RETRY=${CARGO_NET_RETRY:-8}
umask 022

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
die() {
    printf 'odin: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# Where cargo puts what it builds.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}"; }

# The version that the extension's control file names; Cargo.toml must agree.
odin_version() {
    local control cargo
    control=$(sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" "$ROOT/extension/odin_farm.control")
    cargo=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)".*/\1/p' "$ROOT/Cargo.toml")
    [ -n "$control" ] || die "extension/odin_farm.control has no default_version"
    [ "$control" = "$cargo" ] || die "extension/odin_farm.control says $control, Cargo.toml says $cargo"
    printf '%s\n' "$control"
}

need_cargo() {
    if ! have cargo && [ -f "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
        # shellcheck source=/dev/null
        . "${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    have cargo || die "Rust is missing. Install it with rustup (https://rustup.rs) as the user who runs make, then run this again."
    local want got
    want=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' "$ROOT/Cargo.toml")
    got=$(cargo --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$want" "$got" | sort -V | head -n 1)" = "$want" ] ||
        die "Rust $got is too old: this needs $want or newer (rustup update)."
}

put_file() { # from to [mode]: replaces a file, in one step, if its text changed
    if cmp -s "$1" "$2"; then return; fi
    install -m "${3:-0644}" "$1" "$2.new.$$" && mv -f "$2.new.$$" "$2"
}

random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# Percent-encodes a path for a connection string.
url_path() {
    local i c out=
    for ((i = 0; i < ${#1}; i++)); do
        c=${1:i:1}
        case $c in
        [A-Za-z0-9._~-]) out+=$c ;;
        *) out+=$(printf '%s' "$c" | od -An -v -tx1 | tr -d '\n' | sed 's/ /%/g') ;;
        esac
    done
    printf '%s\n' "$out"
}

# A download may break off: what only brings packages is tried again from its beginning.
again() { # command...
    local pause
    for pause in 0 5 20; do
        sleep "$pause"
        if "$@" >&2; then return 0; fi
    done
    return 1
}

# apt-get that waits for another one, and asks a mirror more than once.
apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=5 "$@"; }

port_is_free() { # on the loopback address
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() { # first one to try
    local port=$1
    until port_is_free "$port"; do
        port=$((port + 1))
        [ "$port" -lt $(($1 + 200)) ] || die "no free port from $1 on"
    done
    printf '%s\n' "$port"
}
