-- Vectors, for the sidecars that have an embedding endpoint: they announce their model, take passages that wait, and bring vectors back.
-- One model is in use; another one embeds everything anew. Only odin_worker may run what is here.

CREATE OR REPLACE FUNCTION odin.worker_embedder(model_name text, dimensions int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  now_used odin.embedding_models;
  m odin.embedding_models;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('odin.worker_embedder', 0));
  SELECT * INTO now_used FROM odin.embedding_models x WHERE x.is_active;
  IF now_used.name = model_name AND now_used.dimensions = worker_embedder.dimensions THEN
    UPDATE odin.embedding_models x SET seen_at = clock_timestamp() WHERE x.id = now_used.id AND x.seen_at < clock_timestamp() - interval '30 seconds';
    RETURN jsonb_build_object('ok', true, 'model_id', now_used.id);
  ELSIF now_used.seen_at > clock_timestamp() - interval '3 minutes' THEN
    -- Two sidecars with different models would embed everything for ever.
    RETURN jsonb_build_object('ok', false, 'reason', format('%s is in use by another sidecar; stop that one first, or give both the same model', now_used.name));
  ELSIF worker_embedder.dimensions NOT BETWEEN 1 AND 2000 THEN
    RETURN jsonb_build_object('ok', false, 'reason', format('%s makes vectors of %s dimensions; at most 2000 can be indexed', model_name, worker_embedder.dimensions));
  END IF;
  UPDATE odin.embedding_models x SET is_active = false WHERE x.is_active;
  INSERT INTO odin.embedding_models AS x (name, dimensions) VALUES (model_name, worker_embedder.dimensions)
  ON CONFLICT (name, dimensions) DO UPDATE SET is_active = true, seen_at = clock_timestamp() RETURNING * INTO m;
  IF now_used.id IS NOT NULL THEN EXECUTE format('DROP INDEX IF EXISTS odin.embeddings_of_%s', now_used.id); END IF;
  DELETE FROM odin.embeddings e WHERE e.model_id <> m.id;
  DELETE FROM odin_private.tool_embeddings e WHERE e.model_id <> m.id;
  EXECUTE format('CREATE INDEX IF NOT EXISTS embeddings_of_%1$s ON odin.embeddings USING hnsw ((embedding::%2$s.vector(%3$s)) %2$s.vector_cosine_ops) WHERE model_id = %1$s', m.id, odin._home_of('vector'), m.dimensions);
  INSERT INTO odin_private.embed_queue(chunk_id) SELECT c.id FROM odin.chunks c WHERE NOT EXISTS (SELECT 1 FROM odin.embeddings e WHERE e.model_id = m.id AND e.chunk_id = c.id)
  ON CONFLICT (chunk_id) DO UPDATE SET due_at = now(), attempts = 0, problem = NULL;
  RETURN jsonb_build_object('ok', true, 'model_id', m.id);
END $f$;
COMMENT ON FUNCTION odin.worker_embedder(text, int) IS 'A sidecar has an embedding endpoint with this model. The first one is used; another is used when no sidecar has announced the one before for three minutes.';

-- Texts that wait: passages, then tools whose description changed. What is not brought back within a minute is due again, later each time.
CREATE OR REPLACE FUNCTION odin.worker_embed_batch(model_id bigint, most int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  batch jsonb;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM odin.embedding_models x WHERE x.id = model_id AND x.is_active) THEN RETURN '[]'; END IF;
  WITH due AS (
    SELECT q.chunk_id FROM odin_private.embed_queue q WHERE q.due_at <= clock_timestamp() ORDER BY q.due_at LIMIT most FOR UPDATE SKIP LOCKED),
  taken AS (
    UPDATE odin_private.embed_queue q SET attempts = q.attempts + 1, due_at = clock_timestamp() + least(power(2, q.attempts), 60) * interval '1 minute' FROM due WHERE q.chunk_id = due.chunk_id RETURNING q.chunk_id)
  SELECT jsonb_agg(jsonb_build_object('chunk', c.id, 'made', extract(epoch FROM c.made_at), 'text', left(c.name || E'\n' || c.content, 8000))) INTO batch FROM taken t JOIN odin.chunks c ON c.id = t.chunk_id;
  IF batch IS NULL THEN
    SELECT jsonb_agg(jsonb_build_object('tool', x.id, 'text', x.told)) INTO batch
      FROM (SELECT t.id, left(replace(t.name, '_', ' ') || '. ' || t.description, 2000) AS told FROM odin.tools t LEFT JOIN odin_private.tool_embeddings e ON e.tool_id = t.id AND e.model_id = worker_embed_batch.model_id
             WHERE t.active AND t.kind = 'tool' AND e.told IS DISTINCT FROM left(replace(t.name, '_', ' ') || '. ' || t.description, 2000) ORDER BY t.id LIMIT most) x;
  END IF;
  RETURN coalesce(batch, '[]');
END $f$;
COMMENT ON FUNCTION odin.worker_embed_batch(bigint, int) IS 'Texts that wait for a vector of this model.';

CREATE OR REPLACE FUNCTION odin.worker_embedded(model_id bigint, vectors jsonb) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  home text := odin._home_of('vector');
  kept int;
BEGIN
  -- A passage that changed meanwhile waits for its new text's vector.
  EXECUTE format('WITH v AS (SELECT (e->>''chunk'')::bigint AS id, (e->>''made'')::numeric AS made, (e->''vector'')::text::%1$s.vector(%2$s) AS vector FROM jsonb_array_elements($1) e WHERE e ? ''chunk''),
    put AS (INSERT INTO odin.embeddings(model_id, chunk_id, org_id, collection_id, embedding)
      SELECT $2, c.id, c.org_id, c.collection_id, v.vector FROM v JOIN odin.chunks c ON c.id = v.id AND extract(epoch FROM c.made_at) = v.made
      ON CONFLICT (model_id, chunk_id) DO UPDATE SET embedding = excluded.embedding, collection_id = excluded.collection_id RETURNING chunk_id),
    done AS (DELETE FROM odin_private.embed_queue q USING put WHERE q.chunk_id = put.chunk_id)
    SELECT count(*) FROM put', home, (SELECT m.dimensions FROM odin.embedding_models m WHERE m.id = model_id AND m.is_active)) INTO kept USING vectors, model_id;
  EXECUTE format('INSERT INTO odin_private.tool_embeddings(tool_id, model_id, told, embedding)
    SELECT t.id, $2, e->>''text'', (e->''vector'')::text::%s.vector FROM jsonb_array_elements($1) e JOIN odin.tools t ON t.id = (e->>''tool'')::bigint
    ON CONFLICT (tool_id) DO UPDATE SET model_id = excluded.model_id, told = excluded.told, embedding = excluded.embedding', home) USING vectors, model_id;
  RETURN kept;
END $f$;
COMMENT ON FUNCTION odin.worker_embedded(bigint, jsonb) IS 'Vectors brought back: [{"chunk", "made", "vector"}] or [{"tool", "text", "vector"}].';

CREATE OR REPLACE FUNCTION odin.worker_embed_failed(chunks bigint[], said text, endpoint_trouble boolean) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  n int;
BEGIN
  UPDATE odin_private.embed_queue q SET problem = left(said, 300), attempts = q.attempts - CASE WHEN endpoint_trouble THEN 1 ELSE 0 END, due_at = CASE WHEN endpoint_trouble THEN clock_timestamp() ELSE q.due_at END WHERE q.chunk_id = ANY (chunks);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $f$;
COMMENT ON FUNCTION odin.worker_embed_failed(bigint[], text, boolean) IS 'Why these passages got no vector: due again at once when the endpoint was the trouble, later when the text was.';

GRANT EXECUTE ON FUNCTION odin.worker_embedder(text, int), odin.worker_embed_batch(bigint, int), odin.worker_embedded(bigint, jsonb), odin.worker_embed_failed(bigint[], text, boolean) TO odin_worker;
