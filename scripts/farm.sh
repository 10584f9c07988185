# shellcheck shell=bash
# The private farm that make up, down and reset look after: one folder, .odin (or $ODIN_DIR). Sourced after pg.sh.
#
#   .odin/env          for people: the URL, a superuser's connection, three keys (0600)
#   .odin/sidecar.env  for the sidecar: its two passwords (0600)
#   .odin/pg           the cluster: prefix/, data/, log/, bin/, socket/. As root it belongs to the server's user, and where that user
#                      cannot reach the checkout it is a link into /var/lib/odin-farm
#
# Nobody walks in: the superuser comes over the socket only, and only as the operating-system user who made the farm (peer); every other
# role needs a password, which is generated. The socket's folder is closed to others as well.

FARM=${ODIN_DIR:-$ROOT/.odin}
FARM_PG=$FARM/pg

farm_home() { # makes .odin/pg, where the server's user can reach it
    local user part home
    user=$(server_user)
    if [ ! -d "$FARM" ]; then
        mkdir -p "$(dirname "$FARM")"
        if is_root; then install -d -m 0755 "$FARM"; else install -d -m 0700 "$FARM"; fi
    fi
    [ -O "$FARM" ] || die "$FARM belongs to $(stat -c %U "$FARM"): run this as that user."
    FARM=$(cd "$FARM" && pwd -P)
    FARM_PG=$FARM/pg
    if [ ! -d "$FARM_PG" ]; then
        rm -f "$FARM_PG"
        # A socket's path holds 107 bytes at most.
        if is_root && { ! server_reaches "$FARM" || [ ${#FARM_PG} -gt 80 ]; }; then
            install -d -m 0755 /var/lib/odin-farm
            home=$(mktemp -d /var/lib/odin-farm/XXXXXXXX)
            chmod 0755 "$home"
            ln -s "$home" "$FARM_PG"
        else
            mkdir "$FARM_PG"
        fi
    fi
    FARM_PG=$(cd "$FARM_PG" && pwd -P)
    for part in data log; do
        [ -d "$FARM_PG/$part" ] || install -d -m 0700 -o "$user" "$FARM_PG/$part"
    done
    farm_socket
}

# The socket's folder: beside the data, or, where that path is too long for a socket, one of our own in /tmp (gone after a boot).
farm_socket() {
    if [ ${#FARM_PG} -le 80 ]; then
        FARM_SOCKET=$FARM_PG/socket
        [ -d "$FARM_SOCKET" ] || install -d -m 0700 -o "$(server_user)" "$FARM_SOCKET"
    else
        FARM_SOCKET=$(cat "$FARM/socket" 2>/dev/null || true)
        if [ ! -d "$FARM_SOCKET" ] || [ ! -O "$FARM_SOCKET" ]; then
            FARM_SOCKET=$(mktemp -d /tmp/odin-XXXXXX)
            printf '%s\n' "$FARM_SOCKET" >"$FARM/socket"
        fi
    fi
}

farm_exists() { [ -f "$FARM_PG/data/PG_VERSION" ]; }

farm_super_url() { printf 'postgresql://postgres@/%s?host=%s&port=%s\n' "${1:-odin}" "$(url_path "$FARM_SOCKET")" "$FARM_PORT"; }

farm_psql() { # database, arguments...: as superuser; secrets go in by standard input or the environment
    local database=$1
    shift
    "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 "$(farm_super_url "$database")" "$@"
}

sidecar_pid() { # prints the running sidecar's pid, if it is ours
    local pid
    pid=$(cat "$FARM/sidecar.pid" 2>/dev/null) || return 1
    [[ "$(readlink "/proc/$pid/exe" 2>/dev/null)" == "$FARM_PG/bin/odin-farm"* ]] && printf '%s\n' "$pid"
}

sidecar_start() { # with its settings in the environment, never on the command line; nothing else of ours goes along
    (
        local name
        for name in $(compgen -e); do
            case $name in
            ODIN_KEY_* | ODIN_DATABASE_URL | ODIN_URL | ODIN_TEST_*) unset "$name" ;;
            PATH | LC_ALL | ODIN_* | OTEL_*) ;;
            *) unset "$name" ;;
            esac
        done
        exec </dev/null >>"$FARM_PG/log/sidecar.log" 2>&1
        exec_as_server setsid "$FARM_PG/bin/odin-farm" serve
    ) &
    printf '%s\n' $! >"$FARM/sidecar.pid"
    disown
}

sidecar_stop() {
    local pid
    if pid=$(sidecar_pid); then
        kill "$pid"
        for _ in $(seq 150); do
            [ -d "/proc/$pid" ] || break
            sleep 0.1
        done
        if [ -d "/proc/$pid" ]; then kill -9 "$pid"; fi
    fi
    rm -f "$FARM/sidecar.pid"
}

farm_stop() {
    local ctl
    sidecar_stop
    ctl=$(find "$FARM_PG/prefix" -name pg_ctl -type f -print -quit 2>/dev/null || true)
    if [ -n "$ctl" ]; then pg_stop "$ctl" "$FARM_PG/data"; fi
}

http_status() { # url: the status code of a GET, 000 if nothing answers
    local rest=${1#http://} host port path status=000
    host=${rest%%/*} path=/${rest#*/} port=${host##*:} host=${host%:*}
    # A connection that is refused makes the whole subshell fail, silently.
    status=$( (
        exec 3<>"/dev/tcp/$host/$port"
        printf 'GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n' "$path" "$host" "$port" >&3
        IFS=' ' read -r -t 10 _ status _ <&3
        printf '%s' "$status"
    ) 2>/dev/null) || status=000
    printf '%s\n' "$status"
}
