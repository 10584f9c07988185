# Thin: every target is a script. PG_CONFIG=... picks a PostgreSQL, ODIN_DIR=... moves the private farm.
.PHONY: up demo down reset build install check test docs bench bench-scale

up:
	@scripts/up
# The same farm filled with a month of a small shop's life
demo:
	@scripts/demo
down:
	@scripts/down
reset:
	@scripts/reset
build:
	@scripts/build
# Installs into a PostgreSQL of your own: make install PG_CONFIG=/path/to/pg_config
install:
	@scripts/install
check:
	@scripts/check
test:
	@scripts/test
# One kind: make test-sql test-isolation test-unit test-integration test-dump test-upgrade test-clients test-conformance test-readme
test-%:
	@scripts/test $*
# Regenerates docs/tools.md from the registry
docs:
	@scripts/docs
# Figures beside their limits, in some 10 minutes; bench-scale measures all there is, on 10 M jobs that it builds once (half an hour, 20 GB) and keeps
bench:
	@scripts/bench
bench-scale:
	@scripts/bench --scale
