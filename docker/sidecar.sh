#!/bin/sh
# Makes the two connections out of the secrets, so that no password stands in a compose file or a process list.
set -eu
ODIN_GATEWAY_URL="postgresql://odin_gateway:$(cat /run/secrets/gateway_password)@$ODIN_DATABASE_HOST/odin"
ODIN_WORKER_URL="postgresql://odin_worker:$(cat /run/secrets/worker_password)@$ODIN_DATABASE_HOST/odin"
export ODIN_GATEWAY_URL ODIN_WORKER_URL
exec odin-farm "${@:-serve}"
