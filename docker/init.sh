#!/usr/bin/env bash
# Runs once, when the database's volume is new: the farm, and the sidecar's two passwords from the secrets.
set -euo pipefail
export GATEWAY_PASSWORD WORKER_PASSWORD
GATEWAY_PASSWORD=$(cat /run/secrets/gateway_password)
WORKER_PASSWORD=$(cat /run/secrets/worker_password)
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
\getenv gateway GATEWAY_PASSWORD
\getenv worker WORKER_PASSWORD
CREATE EXTENSION odin_farm CASCADE;
ALTER ROLE odin_gateway PASSWORD :'gateway';
ALTER ROLE odin_worker PASSWORD :'worker';
SQL
