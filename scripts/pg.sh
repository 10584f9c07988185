# shellcheck shell=bash
# Finds a PostgreSQL and runs clusters of our own on it, without touching what is installed. Sourced after lib.sh.
#
# A cluster of ours runs from a "prefix": a tree of links to the installed PostgreSQL plus our extension and pgvector.
# PostgreSQL finds its files relative to its own binary, so the three binaries are copies and everything else is a link.
# Two checkouts, or a checkout and a system cluster, never see each other's build.

# Sets PG_CONFIG, PG_BIN, PG_LIB, PG_SHARE, PG_VERSION (15.20) and PG_MAJOR (15). An argument or $PG_CONFIG wins over
# what is found; $PG_WANT_MAJOR narrows the search.
pg_pick() {
    local wanted=${1:-${PG_CONFIG:-}} candidate
    if [ -n "$wanted" ]; then
        have "$wanted" || die "$wanted: no such pg_config"
        PG_CONFIG=$(command -v "$wanted")
    else
        PG_CONFIG=
        while IFS= read -r candidate; do
            if pg_usable "$candidate"; then
                PG_CONFIG=$candidate
                break
            fi
        done < <(pg_candidates)
        [ -n "$PG_CONFIG" ] || return 1
    fi
    PG_BIN=$("$PG_CONFIG" --bindir)
    PG_LIB=$("$PG_CONFIG" --pkglibdir)
    PG_SHARE=$("$PG_CONFIG" --sharedir)
    PG_VERSION=$(pg_version "$PG_CONFIG")
    PG_MAJOR=${PG_VERSION%%.*}
    export PG_CONFIG
}

pg_candidates() { # newest first, the one on the PATH last
    local dir
    for dir in /usr/lib/postgresql/* /usr/pgsql-* /usr/local/pgsql*; do
        [ -x "$dir/bin/pg_config" ] && printf '%s\n' "$dir/bin/pg_config"
    done | sort -rV
    command -v pg_config || true
}

# The server's own word, where there is a server: a distribution may pair it with another pg_config.
pg_version() {
    local text bin
    bin=$("$1" --bindir)
    if [ -x "$bin/postgres" ]; then text=$("$bin/postgres" --version); else text=$("$1" --version); fi
    sed -E 's/^[^0-9]*([0-9]+(\.[0-9]+)?).*/\1/' <<<"$text"
}

pg_usable() { # pg_config: server, headers, and a major we support
    local major
    [ -x "$("$1" --bindir)/postgres" ] && [ -f "$("$1" --includedir-server)/postgres.h" ] || return 1
    major=$(pg_version "$1")
    major=${major%%.*}
    if [ -n "${PG_WANT_MAJOR:-}" ]; then [ "$major" = "$PG_WANT_MAJOR" ]; else [ "$major" -ge 15 ] && [ "$major" -le 18 ]; fi
}

# Two holes in row-level security (CVE-2024-10976, CVE-2024-10978) were closed in these minors.
pg_require_version() {
    local minor=${PG_VERSION#*.} least
    [ "$PG_VERSION" != "$PG_MAJOR" ] || minor=0
    [[ $minor =~ ^[0-9]+$ ]] || minor=0
    case $PG_MAJOR in
    15) least=9 ;;
    16) least=5 ;;
    17) least=1 ;;
    18) least=0 ;;
    *) die "odin_farm needs PostgreSQL 15, 16, 17 or 18; $PG_CONFIG is $PG_VERSION." ;;
    esac
    [ "$minor" -ge "$least" ] ||
        die "PostgreSQL $PG_VERSION lets row-level security be bypassed (CVE-2024-10976, CVE-2024-10978): update it to $PG_MAJOR.$least or newer."
}

# The user a cluster of ours runs as: oneself, but never root.
server_user() {
    if ! is_root; then
        id -un
    elif id -u "${ODIN_SERVER_USER:-postgres}" >/dev/null 2>&1; then
        printf '%s\n' "${ODIN_SERVER_USER:-postgres}"
    else
        die "PostgreSQL does not run as root and there is no user 'postgres': set ODIN_SERVER_USER, or run this as another user."
    fi
}

as_server() { (exec_as_server "$@"); } # command...: as that user

exec_as_server() { # the same in place of the shell, from a directory he can enter
    cd /
    if is_root; then
        local user
        user=$(server_user)
        HOME=/ exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups -- "$@"
    fi
    exec "$@"
}

# True if the server's user can come to this directory.
server_reaches() { as_server test -x "$1"; }

# Makes or refreshes the prefix of a cluster.
pg_prefix() { # directory
    local prefix=$1 name file staged
    [ -x "$PG_BIN/initdb" ] || die "$PG_CONFIG is not the pg_config of a PostgreSQL server ($PG_BIN/initdb is missing)."
    if ! pg_prefix_fits "$prefix"; then
        rm -rf "$prefix"
        mkdir -p "$prefix$PG_BIN" "$prefix$PG_LIB" "$prefix$PG_SHARE"
        cp -rs "$PG_LIB/." "$prefix$PG_LIB/"
        cp -rs "$PG_SHARE/." "$prefix$PG_SHARE/"
        # An odin_farm installed there is somebody else's: no link may lead to it.
        rm -f "$prefix$PG_LIB"/odin_farm.so "$prefix$PG_SHARE"/extension/odin_farm*
        for name in postgres initdb pg_ctl; do cp "$PG_BIN/$name" "$prefix$PG_BIN/$name"; done
        staged=$(vector_stage)
        # Not through the links: a library overwritten in place crashes every server that has it mapped.
        if [ -d "$staged" ]; then cp -r --remove-destination "$staged/." "$prefix/"; fi
        pg_fingerprint >"$prefix/made-from"
    fi
    put_extension "$prefix$PG_LIB" "$prefix$PG_SHARE/extension"
}

pg_prefix_fits() { [ "$(cat "$1/made-from" 2>/dev/null)" = "$(pg_fingerprint)" ]; }

put_extension() { # library directory, extension directory
    local file
    put_file "$(target_dir)/release/libodin_farm.so" "$1/odin_farm.so" 0755
    put_file "$ROOT/extension/odin_farm.control" "$2/odin_farm.control"
    for file in "$ROOT"/target/sql/odin_farm--*.sql; do put_file "$file" "$2/${file##*/}"; done
}

# Names the installed PostgreSQL: a new minor, another major or a newly installed extension makes a new prefix.
pg_fingerprint() {
    stat -c '%n %s %Y' "$PG_BIN/postgres" "$PG_LIB" "$PG_SHARE/extension"
    find "$(vector_stage)" -type f -name 'vector.*' -printf '%f %T@\n' 2>/dev/null | sort || true
}

# pgvector built by scripts/pgvector for this server, as a tree to lay over /; nothing is there if the system has its own.
vector_stage() { printf '%s\n' "$ROOT/target/pgvector/$PG_VERSION"; }
has_vector() { [ -f "$PG_SHARE/extension/vector.control" ] || [ -f "$(vector_stage)$PG_SHARE/extension/vector.control" ]; }

# Starts a cluster and waits for it; says the end of its log if it does not come up.
pg_start() { # pg_ctl data log options
    if ! as_server "$1" -D "$2" -l "$3" -o "$4" -w -t 300 start >/dev/null; then
        tail -n 20 "$3" >&2 || true
        die "PostgreSQL did not start; its log is $3"
    fi
}

pg_running() { # pg_ctl data
    as_server "$1" -D "$2" status >/dev/null 2>&1
}

pg_stop() { # pg_ctl data
    if pg_running "$1" "$2"; then as_server "$1" -D "$2" -m fast -w -t 300 stop >/dev/null; fi
}
