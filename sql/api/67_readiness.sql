-- What `odin-farm check` asks: how the farm stands, over all orgs, in counts and names. Never a secret, never an address.

CREATE OR REPLACE FUNCTION odin.worker_readiness() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object(
    'postgresql', current_setting('server_version'), 'version', odin._code_version(), 'schema_version', (SELECT i.schema_version FROM odin.instance i),
    'sidecars', (SELECT count(*) FROM odin.sidecars s WHERE s.until > now()),
    'printers', (SELECT jsonb_build_object('total', count(*), 'unreached', count(*) FILTER (WHERE s.state IN ('unknown', 'offline')),
        'names', (array_agg(p.name ORDER BY p.id) FILTER (WHERE s.state IN ('unknown', 'offline')))[1:10]) FROM odin.printers p JOIN odin.printer_state s ON s.printer_id = p.id WHERE p.is_active),
    'tasks', (SELECT jsonb_build_object('queued', count(*) FILTER (WHERE t.state = 'queued'), 'working', count(*) FILTER (WHERE t.state = 'working'),
        'longest_wait_s', coalesce(extract(epoch FROM clock_timestamp() - min(t.not_before) FILTER (WHERE t.state = 'queued'))::bigint, 0)) FROM odin.tasks t WHERE t.state IN ('queued', 'working')),
    'slicers', (SELECT coalesce(jsonb_agg(jsonb_build_object('slicer', s.slicer, 'version', s.version) ORDER BY s.slicer), '[]') FROM odin.slicers s WHERE s.seen_at > now() - interval '1 hour'),
    'source_tokens', (SELECT count(*) FROM odin_private.source_secrets));
$f$;
COMMENT ON FUNCTION odin.worker_readiness() IS 'How the farm stands, for odin-farm check: versions, sidecars, printers that are not reached, waiting tasks, announced slicers, model sites with a token.';

GRANT EXECUTE ON FUNCTION odin.worker_readiness() TO odin_worker;
