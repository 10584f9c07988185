-- Object storage at work: where the org's bucket is, what goes out, comes back or is removed, and the end of each move.
-- Bytes leave PostgreSQL only in the transaction that records the object they were read back from.

CREATE OR REPLACE FUNCTION odin._object_store(org bigint) RETURNS odin.object_stores
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT s FROM odin.object_stores s WHERE s.org_id = org AND s.is_current;
$f$;

-- What a sidecar needs to reach a bucket, key still sealed.
CREATE OR REPLACE FUNCTION odin._object_way(store bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('endpoint', s.endpoint, 'bucket', s.bucket, 'region', s.region, 'path_style', s.path_style, 'sealed', x.sealed)
    FROM odin.object_stores s JOIN odin_private.object_store_state x ON x.store_id = s.id WHERE s.id = store;
$f$;

-- Where the bytes of a blob are, if not here; NULL = here.
CREATE OR REPLACE FUNCTION odin._blob_object(blob bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._object_way(o.store_id) || jsonb_build_object('key', o.key) FROM odin_private.objects o WHERE o.blob_id = blob AND o.state = 'kept';
$f$;

-- Puts files on the list of what goes out: one that just arrived, or all of an org that are large enough.
CREATE OR REPLACE FUNCTION odin._plan_objects(org bigint, file bigint DEFAULT NULL) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  INSERT INTO odin_private.objects(store_id, blob_id, key, sha256, bytes)
  SELECT s.id, f.blob_id, s.prefix || org || '/' || left(f.sha256, 2) || '/' || f.sha256 || '-' || odin._random_hex(4), f.sha256, f.bytes
    FROM odin.object_stores s JOIN odin.files f ON f.org_id = s.org_id AND f.bytes >= s.min_file_mb * 1048576::bigint AND f.origin <> 'thumbnail'
   WHERE s.org_id = org AND s.is_current AND s.mode = 'on' AND (file IS NULL OR f.id = file)
  ON CONFLICT (blob_id) DO NOTHING;
$f$;

CREATE OR REPLACE FUNCTION odin.set_object_store(endpoint text DEFAULT NULL, bucket text DEFAULT NULL, region text DEFAULT NULL, prefix text DEFAULT NULL, path_style boolean DEFAULT NULL, mode text DEFAULT NULL,
  min_file_mb int DEFAULT NULL, keep_removed_days int DEFAULT NULL, access_key text DEFAULT NULL, secret_key text DEFAULT NULL, sealed text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  org bigint := odin._new_in('odin_admin');
  was odin.object_stores;
  s odin.object_stores;
  key_kept text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(org::text, 6801));
  was := odin._object_store(org);
  endpoint := coalesce(endpoint, was.endpoint);
  bucket := coalesce(bucket, was.bucket);
  prefix := coalesce(prefix, was.prefix, '');
  IF coalesce(access_key, secret_key) IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', 'access_key and secret_key must not reach the database in clear', 'Call this tool through a sidecar (MCP or REST) that has ODIN_SECRET_KEY; it seals them on the way.');
  ELSIF sealed !~ '^sealed:v1:[A-Za-z0-9_-]{40,}$' THEN
    PERFORM odin.fail('validation_failed', 'sealed: these are no keys sealed by a sidecar', NULL, '{"field":"sealed"}');
  ELSIF endpoint IS NULL OR bucket IS NULL THEN
    PERFORM odin.fail('validation_failed', format('%s: is required for the first object store', CASE WHEN endpoint IS NULL THEN 'endpoint' ELSE 'bucket' END),
      'For example endpoint https://s3.eu-central-1.amazonaws.com, bucket my-farm, region eu-central-1, access_key and secret_key.', jsonb_build_object('field', CASE WHEN endpoint IS NULL THEN 'endpoint' ELSE 'bucket' END));
  END IF;
  -- A key opens for its endpoint only; so it may be taken over for another bucket there.
  key_kept := coalesce(sealed, (SELECT x.sealed FROM odin_private.object_store_state x JOIN odin.object_stores o ON o.id = x.store_id WHERE o.org_id = org AND o.endpoint = set_object_store.endpoint ORDER BY x.set_at DESC LIMIT 1));
  IF key_kept IS NULL THEN
    PERFORM odin.fail('validation_failed', format('access_key and secret_key: are required, there are none yet for %s', endpoint), NULL, '{"field":"access_key"}');
  END IF;
  UPDATE odin.object_stores o SET is_current = false WHERE o.org_id = org AND o.is_current AND (o.endpoint, o.bucket, o.prefix) <> (set_object_store.endpoint, set_object_store.bucket, set_object_store.prefix);
  INSERT INTO odin.object_stores AS o (org_id, endpoint, bucket, prefix, region, path_style, mode, min_file_mb, keep_removed_days)
  VALUES (org, endpoint, bucket, prefix, coalesce(region, was.region, 'us-east-1'), coalesce(path_style, was.path_style, true), coalesce(mode, was.mode, 'on'), coalesce(min_file_mb, was.min_file_mb, 8), coalesce(keep_removed_days, was.keep_removed_days, 7))
  ON CONFLICT ON CONSTRAINT object_stores_place_key DO UPDATE SET is_current = true, region = excluded.region, path_style = excluded.path_style, mode = excluded.mode, min_file_mb = excluded.min_file_mb, keep_removed_days = excluded.keep_removed_days
  RETURNING * INTO s;
  INSERT INTO odin_private.object_store_state AS x (store_id, sealed, set_by) VALUES (s.id, key_kept, odin.actor())
  ON CONFLICT (store_id) DO UPDATE SET sealed = excluded.sealed, set_by = excluded.set_by, set_at = clock_timestamp(), problem = NULL, problem_at = NULL;
  -- New keys are for every bucket at the endpoint: files may still be in an older one.
  UPDATE odin_private.object_store_state x SET sealed = key_kept, problem = NULL, problem_at = NULL FROM odin.object_stores o WHERE o.id = x.store_id AND o.org_id = org AND o.endpoint = s.endpoint AND x.store_id <> s.id;
  PERFORM odin._plan_objects(org);
  PERFORM odin.would(jsonb_build_object('action', 'set_object_store', 'endpoint', s.endpoint, 'bucket', s.bucket, 'prefix', s.prefix, 'mode', s.mode));
  RETURN odin.get_object_store();
END $f$;
COMMENT ON FUNCTION odin.set_object_store(text, text, text, text, boolean, text, int, int, text, text, text) IS 'Keeps the org''s larger files in an S3-compatible bucket instead of PostgreSQL, from now on and those it has; what you leave out stays as it is. mode back brings all files into PostgreSQL again, mode off moves and removes nothing. The keys are write-only: give endpoint, access_key and secret_key together. get_object_store shows how far it is.';

CREATE OR REPLACE FUNCTION odin.get_object_store() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint := odin._new_in('odin_admin');
  s odin.object_stores := odin._object_store(org);
BEGIN
  IF s.id IS NULL THEN PERFORM odin.fail('object_store_missing', 'the org has no object store'); END IF;
  RETURN (SELECT jsonb_build_object('endpoint', s.endpoint, 'bucket', s.bucket, 'prefix', s.prefix, 'region', s.region, 'path_style', s.path_style, 'mode', s.mode, 'min_file_mb', s.min_file_mb, 'keep_removed_days', s.keep_removed_days,
      'has_key', true, 'key_set_by', x.set_by, 'key_set_at', x.set_at, 'problem', x.problem, 'problem_at', x.problem_at) FROM odin_private.object_store_state x WHERE x.store_id = s.id)
    || (SELECT jsonb_build_object('files_outside', count(*) FILTER (WHERE o.state = 'kept' AND o.blob_id IS NOT NULL), 'bytes_outside', coalesce(sum(o.bytes) FILTER (WHERE o.state = 'kept' AND o.blob_id IS NOT NULL), 0),
      'files_waiting', count(*) FILTER (WHERE o.state = 'waiting' AND o.blob_id IS NOT NULL), 'objects_to_remove', count(*) FILTER (WHERE o.blob_id IS NULL))
          FROM odin_private.objects o JOIN odin.object_stores a ON a.id = o.store_id WHERE a.org_id = org)
    || (SELECT jsonb_build_object('files', count(*), 'bytes', coalesce(sum(f.bytes), 0)) FROM odin.files f WHERE f.org_id = org);
END $f$;
COMMENT ON FUNCTION odin.get_object_store() IS 'Shows the org''s object store, never its keys: how many files and bytes are outside PostgreSQL, how many wait to be moved, and what is wrong, if anything.';

-- For the clock: makes tasks of what is due. One sidecar at a time; a store in trouble is tried again by one task every five minutes, so that an outage does not fill the list of dead ones.
CREATE OR REPLACE FUNCTION odin._move_objects() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  s record;
  o record;
  t odin.tasks;
  room bigint;
  n int := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(6802) THEN RETURN 0; END IF;
  FOR s IN
    SELECT a.id, a.org_id, a.is_current AND c.mode = 'on' AS out, NOT a.is_current OR c.mode = 'back' AS back, c.keep_removed_days, x.set_by, x.problem_at
      FROM odin.object_stores a JOIN odin.object_stores c ON c.org_id = a.org_id AND c.is_current JOIN odin_private.object_store_state x ON x.store_id = a.id WHERE c.mode <> 'off' ORDER BY a.id
  LOOP
    room := CASE WHEN s.problem_at IS NULL THEN 50 WHEN s.problem_at < now() - interval '5 minutes' THEN 1 ELSE 0 END
      - (SELECT count(*) FROM odin.tasks x WHERE x.org_id = s.org_id AND x.kind = 'object' AND x.state IN ('queued', 'working'));
    CONTINUE WHEN room <= 0;
    IF s.back THEN
      UPDATE odin_private.objects x SET blob_id = NULL WHERE x.store_id = s.id AND x.state = 'waiting' AND x.blob_id IS NOT NULL;
    END IF;
    UPDATE odin_private.objects x SET free_at = now() WHERE x.store_id = s.id AND x.blob_id IS NULL AND x.free_at IS NULL;
    FOR o IN
      (SELECT x.id, 'remove' AS act, x.sha256, x.bytes FROM odin_private.objects x WHERE x.store_id = s.id AND x.blob_id IS NULL
          AND x.free_at <= now() - CASE WHEN x.state = 'kept' THEN make_interval(days => s.keep_removed_days) ELSE interval '0' END AND odin._object_idle(x.task_id) ORDER BY x.id LIMIT room)
      UNION ALL
      (SELECT x.id, 'out', x.sha256, x.bytes FROM odin_private.objects x WHERE s.out AND x.store_id = s.id AND x.state = 'waiting' AND x.blob_id IS NOT NULL AND odin._object_idle(x.task_id) ORDER BY x.id LIMIT room)
      UNION ALL
      (SELECT x.id, 'back', x.sha256, x.bytes FROM odin_private.objects x WHERE s.back AND x.store_id = s.id AND x.state = 'kept' AND x.blob_id IS NOT NULL AND odin._object_idle(x.task_id) ORDER BY x.id LIMIT room)
      LIMIT room
    LOOP
      t := odin._new_task('object', s.set_by, NULL, NULL, jsonb_build_object('object_id', o.id, 'act', o.act, 'sha256', o.sha256, 'bytes', o.bytes),
        jsonb_build_object('priority', 80, 'max_attempts', 7, 'message', CASE o.act WHEN 'out' THEN 'moving a file to the object store' WHEN 'back' THEN 'bringing a file back' ELSE 'removing an object' END));
      UPDATE odin.tasks x SET org_id = s.org_id WHERE x.id = t.id;
      UPDATE odin_private.objects x SET task_id = t.id WHERE x.id = o.id;
      n := n + 1;
    END LOOP;
  END LOOP;
  RETURN n;
END $f$;
COMMENT ON FUNCTION odin._move_objects() IS 'Queues tasks for files that go to an object store or come back, and for objects nothing needs; at most 50 open ones per org.';

-- Never two tasks for one object: so nothing is removed while somebody still sends it.
CREATE OR REPLACE FUNCTION odin._object_idle(task text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT NOT EXISTS (SELECT 1 FROM odin.tasks t WHERE t.id = task AND t.state IN ('queued', 'working'));
$f$;

CREATE OR REPLACE FUNCTION odin._object_of(task_id text, task_fence bigint) RETURNS odin_private.objects
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  o odin_private.objects;
BEGIN
  SELECT x.* INTO o FROM odin_private.objects x JOIN odin.tasks t ON (t.arguments->>'object_id')::bigint = x.id
   WHERE t.id = _object_of.task_id AND t.fence = _object_of.task_fence AND t.state = 'working' AND t.kind = 'object';
  IF NOT FOUND THEN PERFORM odin.fail('task_lost', 'the task is not this worker''s any more'); END IF;
  RETURN o;
END $f$;

-- What a worker needs for its move; "nothing": there is nothing left to do, or the store is off by now. Bytes of an earlier try to bring it back go first.
CREATE OR REPLACE FUNCTION odin.worker_object(task_id text, task_fence bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  o odin_private.objects := odin._object_of(task_id, task_fence);
  act text := (SELECT t.arguments->>'act' FROM odin.tasks t WHERE t.id = task_id);
BEGIN
  IF act = 'back' AND o.state = 'kept' AND o.blob_id IS NOT NULL THEN
    DELETE FROM odin_private.file_chunks c WHERE c.blob_id = o.blob_id;
  END IF;
  RETURN odin._object_way(o.store_id) || jsonb_build_object('key', o.key, 'sha256', o.sha256, 'bytes', o.bytes, 'upload_id', o.upload_id,
    'nothing', (SELECT c.mode = 'off' FROM odin.object_stores a JOIN odin.object_stores c ON c.org_id = a.org_id AND c.is_current WHERE a.id = o.store_id)
      OR CASE act WHEN 'out' THEN o.blob_id IS NULL OR o.state <> 'waiting' WHEN 'back' THEN o.blob_id IS NULL OR o.state <> 'kept' ELSE o.blob_id IS NOT NULL END);
END $f$;
COMMENT ON FUNCTION odin.worker_object(text, bigint) IS 'The object a task moves or removes, and the way to its bucket, with the sealed key.';

CREATE OR REPLACE FUNCTION odin.worker_object_upload(task_id text, task_fence bigint, upload text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  o odin_private.objects := odin._object_of(task_id, task_fence);
BEGIN
  UPDATE odin_private.objects x SET upload_id = left(upload, 2000) WHERE x.id = o.id;
  RETURN true;
END $f$;
COMMENT ON FUNCTION odin.worker_object_upload(text, bigint, text) IS 'Notes the upload in parts that was begun, so that whoever comes next can end it; NULL when it is over.';

CREATE OR REPLACE FUNCTION odin.worker_object_chunk(task_id text, task_fence bigint, n int, data bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  o odin_private.objects := odin._object_of(task_id, task_fence);
BEGIN
  IF o.state <> 'kept' OR o.blob_id IS NULL THEN PERFORM odin.fail('task_lost', 'the file is no longer outside'); END IF;
  INSERT INTO odin_private.file_chunks VALUES (o.blob_id, n, data);
  RETURN true;
END $f$;
COMMENT ON FUNCTION odin.worker_object_chunk(text, bigint, int, bytea) IS 'A chunk of a file on its way back; it is read from the bucket until all have arrived.';

-- The end of a move, in the transaction that ends its task.
CREATE OR REPLACE FUNCTION odin._object_moved(t odin.tasks, answer jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  o odin_private.objects;
  act text := t.arguments->>'act';
  here record;
BEGIN
  SELECT * INTO o FROM odin_private.objects x WHERE x.id = (t.arguments->>'object_id')::bigint;
  IF NOT FOUND THEN RETURN; END IF;
  IF answer->>'status' <> 'complete' THEN
    UPDATE odin_private.object_store_state x SET problem = left(coalesce(answer#>>'{error,detail}', answer->>'message', 'a move failed'), 500), problem_at = now() WHERE x.store_id = o.store_id AND answer->>'message' IS DISTINCT FROM 'handed over';
    RETURN;
  END IF;
  UPDATE odin_private.object_store_state x SET problem = NULL, problem_at = NULL WHERE x.store_id = o.store_id AND x.problem IS NOT NULL;
  IF coalesce((answer#>>'{result,nothing}')::boolean, false) THEN RETURN; END IF;
  -- In the order in which a file is dropped: the blob first, what hangs on it after.
  PERFORM 1 FROM odin_private.blobs b WHERE b.id = o.blob_id FOR UPDATE;
  SELECT * INTO o FROM odin_private.objects x WHERE x.id = o.id FOR UPDATE;
  IF act = 'out' AND o.blob_id IS NOT NULL AND o.state = 'waiting' THEN
    UPDATE odin_private.objects x SET state = 'kept', upload_id = NULL WHERE x.id = o.id;
    DELETE FROM odin_private.file_chunks c WHERE c.blob_id = o.blob_id;
  ELSIF act = 'back' AND o.blob_id IS NOT NULL AND o.state = 'kept' THEN
    SELECT count(*) AS chunks, coalesce(sum(octet_length(c.data)), 0) AS bytes INTO here FROM odin_private.file_chunks c WHERE c.blob_id = o.blob_id;
    IF here.bytes <> o.bytes OR here.chunks <> (SELECT b.chunks FROM odin_private.blobs b WHERE b.id = o.blob_id) THEN
      PERFORM odin.fail('file_corrupt', format('%s of %s bytes came back', here.bytes, o.bytes));
    END IF;
    UPDATE odin_private.objects x SET blob_id = NULL, free_at = now() WHERE x.id = o.id;
    PERFORM odin._plan_objects(f.org_id, f.id) FROM odin.files f WHERE f.blob_id = o.blob_id;
  ELSIF act = 'remove' AND o.blob_id IS NULL THEN
    DELETE FROM odin_private.objects x WHERE x.id = o.id;
  END IF;
END $f$;

-- For odin-farm check: the buckets that are in use, with their sealed keys.
CREATE OR REPLACE FUNCTION odin.worker_object_stores() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_agg(odin._object_way(s.id) || jsonb_build_object('mode', s.mode,
      'waiting', (SELECT count(*) FROM odin_private.objects o WHERE o.store_id = s.id AND o.state = 'waiting' AND o.blob_id IS NOT NULL)) ORDER BY s.id), '[]')
    FROM odin.object_stores s WHERE s.is_current OR EXISTS (SELECT 1 FROM odin_private.objects o WHERE o.store_id = s.id AND o.state = 'kept' AND o.blob_id IS NOT NULL);
$f$;
COMMENT ON FUNCTION odin.worker_object_stores() IS 'The object stores in use, with their sealed keys, for odin-farm check.';

GRANT EXECUTE ON FUNCTION odin.get_object_store(), odin.set_object_store(text, text, text, text, boolean, text, int, int, text, text, text) TO odin_admin;
GRANT EXECUTE ON FUNCTION odin.worker_object(text, bigint), odin.worker_object_upload(text, bigint, text), odin.worker_object_chunk(text, bigint, int, bytea), odin.worker_object_stores() TO odin_worker;
