# shellcheck shell=bash
# What every benchmark says its figures with. Sourced; report.py reads the lines.

# name value unit limit text: one figure. The limit is <=N or >=N, or - (less is better) or + (more is better) where there is none; the name stays the same from run to run.
figure() { printf 'odin-figure\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "$5"; }

# CPU milliseconds a call, by the kernel's account of one session: latency on a busy machine says little. A script for psql begins with watch_backend, has a
# reading before and one after its calls, and goes through cpu_script.
watch_backend() { printf '%s\n' "SELECT pg_backend_pid() AS pid \\gset" "\\setenv BACKEND :pid"; }
reading() { echo "\\! awk '{ print \"ticks\", \$14 + \$15 }' /proc/\$BACKEND/stat"; }
cpu_script() { # script calls psql-argument...
    psql -qXAt -v ON_ERROR_STOP=1 "${@:3}" -f "$1" | awk -v hz="$(getconf CLK_TCK)" -v n="$2" '$1 == "ticks" { if (k++) printf "%.2f\n", ($2 - t) * 1000 / hz / n; t = $2 }'
}
cpu_a_call() { # statement warm_ups calls psql-argument...: of the statement again and again, without parallel workers
    local script
    script=$(mktemp)
    {
        echo 'SET max_parallel_workers_per_gather = 0;'
        watch_backend
        for _ in $(seq "$2"); do echo "$1 \\g /dev/null"; done
        reading
        for _ in $(seq "$3"); do echo "$1 \\g /dev/null"; done
        reading
    } >"$script"
    cpu_script "$script" "$3" "${@:4}"
    rm -f "$script"
}
