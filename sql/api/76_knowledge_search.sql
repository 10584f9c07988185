-- Search over passages: by words, by spelling where a word is unknown, and by meaning where there is a vector; ranks are fused.
-- Whatever finds candidates, what a caller gets is read from odin.chunks under his own role and policies.

-- The question's vector, put beside the call by the sidecar that carried it: NULL without one, or of another model.
CREATE OR REPLACE FUNCTION odin._question_vector(m odin.embedding_models) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT v.said->>'vector' FROM (SELECT odin.input_responses()->'question_vector' AS said) v
   WHERE jsonb_typeof(v.said->'vector') = 'array' AND v.said->>'model' = m.name AND jsonb_array_length(v.said->'vector') = m.dimensions
     AND NOT EXISTS (SELECT 1 FROM jsonb_array_elements(v.said->'vector') e WHERE jsonb_typeof(e) <> 'number');
$f$;

-- Why a search went by words only; NULL = it did not.
CREATE OR REPLACE FUNCTION odin._words_only(m odin.embedding_models, vector text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE WHEN vector IS NOT NULL THEN NULL
    WHEN m.id IS NULL THEN 'Found by words and spelling only: no embedding endpoint is set up.'
    ELSE 'Found by words and spelling only: ' || coalesce(odin.input_responses()#>>'{question_vector,problem}', 'this call brought no vector of the question; calls over MCP or REST do.') END;
$f$;

-- Words of a question as its language stems them; and those so common that they tell nothing, left out where others remain.
CREATE OR REPLACE FUNCTION odin._question_words(languages text[], question text) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  stems text[] := ARRAY(SELECT DISTINCT s FROM unnest(languages) l, unnest(tsvector_to_array(to_tsvector(l::regconfig, left(question, 2000)))) s LIMIT 40);
  rare text[];
BEGIN
  IF (SELECT reltuples FROM pg_class WHERE oid = 'odin.chunks'::regclass) < 10000 THEN RETURN stems; END IF;
  SELECT array_agg(w) INTO rare FROM unnest(stems) w
   WHERE NOT EXISTS (SELECT 1 FROM pg_stats s, unnest(s.most_common_elems::text::text[], s.most_common_elem_freqs[1:cardinality(s.most_common_elems::text::text[])]) c(word, share)
                      WHERE s.schemaname = 'odin' AND s.tablename = 'chunks' AND s.attname = 'search' AND c.word = w AND c.share > 0.03);
  RETURN coalesce(rare, stems);
END $f$;

-- The best passages of some orgs by each way of looking, and the fusion of their ranks (reciprocal, 60).
CREATE OR REPLACE FUNCTION odin._rank_passages(orgs bigint[], collection bigint, sources text[], question text, m odin.embedding_models, vector text, depth int)
RETURNS TABLE(chunk_id bigint, score float8, cosine float8, shared float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  languages text[] := ARRAY(SELECT DISTINCT c.language FROM odin.collections c WHERE c.org_id = ANY (orgs) AND (collection IS NULL OR c.id = collection));
  stems text[] := odin._question_words(languages, question);
  any_word tsquery := (SELECT string_agg(quote_literal(s), ' | ')::tsquery FROM unnest(stems) s);
  all_words tsquery := (SELECT string_agg(quote_literal(s), ' & ')::tsquery FROM unnest(stems) s);
  trigrams text := odin._home_of('pg_trgm');
  vectors text := odin._home_of('vector');
  by_words bigint[];
  by_spelling bigint[] := '{}';
  by_meaning bigint[] := '{}';
  more bigint[];
  unknown text;
BEGIN
  by_words := ARRAY(SELECT c.id FROM odin.chunks c WHERE c.org_id = ANY (orgs) AND (collection IS NULL OR c.collection_id = collection) AND (sources IS NULL OR c.source = ANY (sources)) AND c.search @@ all_words
                     ORDER BY ts_rank_cd(c.search, all_words, 1) DESC, c.id LIMIT depth);
  IF cardinality(by_words) < depth AND cardinality(stems) > 1 THEN
    by_words := by_words || ARRAY(SELECT c.id FROM odin.chunks c WHERE c.org_id = ANY (orgs) AND (collection IS NULL OR c.collection_id = collection) AND (sources IS NULL OR c.source = ANY (sources))
        AND c.search @@ any_word AND c.id <> ALL (by_words) ORDER BY ts_rank(c.search, any_word, 1) DESC, c.id LIMIT depth - cardinality(by_words));
  END IF;
  -- A word that stands nowhere is perhaps misspelt.
  FOR unknown IN SELECT w FROM (SELECT DISTINCT w FROM regexp_split_to_table(lower(left(question, 500)), '[^[:alnum:]]+') w WHERE length(w) >= 4) x
                  WHERE NOT EXISTS (SELECT 1 FROM unnest(languages) l, odin.chunks c WHERE c.org_id = ANY (orgs) AND c.search @@ plainto_tsquery(l::regconfig, x.w))
                    AND EXISTS (SELECT 1 FROM unnest(languages) l WHERE plainto_tsquery(l::regconfig, x.w)::text <> '') LIMIT 3 LOOP
    PERFORM set_config('pg_trgm.word_similarity_threshold', '0.5', true);
    EXECUTE format('SELECT array_agg(id) FROM (SELECT c.id FROM odin.chunks c WHERE c.org_id = ANY ($1) AND ($2 IS NULL OR c.collection_id = $2) AND ($3 IS NULL OR c.source = ANY ($3)) AND c.content OPERATOR(%1$s.%%>) $4
      ORDER BY %1$s.word_similarity($4, c.content) DESC, c.id LIMIT $5) s', trigrams) INTO more USING orgs, collection, sources, unknown, depth;
    by_spelling := by_spelling || coalesce(more, '{}');
  END LOOP;
  IF vector IS NOT NULL THEN
    -- pgvector goes on looking when a filter took too much; older ones do not know the setting.
    PERFORM set_config('hnsw.ef_search', greatest(depth, 40)::text, true);
    IF (SELECT string_to_array(extversion, '.')::int[] >= '{0,8}' FROM pg_extension WHERE extname = 'vector') THEN PERFORM set_config('hnsw.iterative_scan', 'strict_order', true); END IF;
    EXECUTE format('SELECT array_agg(chunk_id) FROM (SELECT e.chunk_id FROM odin.embeddings e WHERE e.model_id = %2$s AND e.org_id = ANY ($1) AND ($2 IS NULL OR e.collection_id = $2)
        AND ($3 IS NULL OR EXISTS (SELECT 1 FROM odin.chunks c WHERE c.org_id = e.org_id AND c.id = e.chunk_id AND c.source = ANY ($3)))
      ORDER BY e.embedding::%1$s.vector(%3$s) OPERATOR(%1$s.<=>) $4::%1$s.vector(%3$s) LIMIT $5) s', vectors, m.id, m.dimensions) INTO by_meaning USING orgs, collection, sources, vector, depth;
  END IF;
  -- A passage that has one word of ten in common counts a tenth of one that has them all.
  RETURN QUERY EXECUTE format('
    SELECT f.id, ((f.shared * coalesce(1.0 / (60 + w.place), 0)) + coalesce(1.0 / (60 + s.place), 0) + coalesce(1.0 / (60 + v.place), 0))::float8 AS score, f.cosine, f.shared
      FROM (SELECT c.id, %s AS cosine, least(1, ((SELECT count(*) FROM unnest($5) s WHERE c.search @@ quote_literal(s)::tsquery) + 0.8 * cardinality(array_positions($2, c.id))) / greatest(cardinality($5), 1))::float8 AS shared
              FROM (SELECT DISTINCT x AS id FROM unnest($1 || $2 || $3) x) u JOIN odin.chunks c ON c.id = u.id %s) f
      LEFT JOIN unnest($1) WITH ORDINALITY w(id, place) ON w.id = f.id
      LEFT JOIN (SELECT id, min(place) AS place FROM unnest($2) WITH ORDINALITY x(id, place) GROUP BY id) s ON s.id = f.id
      LEFT JOIN unnest($3) WITH ORDINALITY v(id, place) ON v.id = f.id
     ORDER BY 2 DESC, 1 LIMIT $4',
    CASE WHEN vector IS NULL THEN 'NULL::float8' ELSE format('1 - (e.embedding OPERATOR(%1$s.<=>) $6::%1$s.vector)', vectors) END,
    CASE WHEN vector IS NULL THEN '' ELSE format('LEFT JOIN odin.embeddings e ON e.model_id = %s AND e.chunk_id = c.id', m.id) END)
    USING by_words, by_spelling, coalesce(by_meaning, '{}'), depth, stems, vector;
END $f$;

-- Do a role's rows of odin.chunks follow from its orgs alone? Word indexes may be used beneath no other policy: a condition that could tell
-- something about a hidden row is evaluated after the policy, so the indexes help only where the orgs are given beforehand.
CREATE OR REPLACE FUNCTION odin._by_org_alone(tables text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT bool_and(EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = t::regclass AND p.polname = 'odin_staff_all' AND p.polpermissive AND p.polroles = ARRAY['odin_viewer'::regrole::oid]
                            AND pg_get_expr(p.polqual, p.polrelid) = '(org_id = ANY (ARRAY( SELECT odin.orgs_of(CURRENT_USER) AS orgs_of)))')
              AND NOT EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = t::regclass AND NOT p.polpermissive)) FROM unnest(tables) t;
$f$;

-- With the farm's indexes, for orgs that the acting role may read as a whole.
CREATE OR REPLACE FUNCTION odin._rank_by_org(collection bigint, sources text[], question text, m odin.embedding_models, vector text, depth int)
RETURNS TABLE(chunk_id bigint, score float8, cosine float8, shared float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  who name := odin.actor();
BEGIN
  IF NOT odin._by_org_alone('{odin.chunks,odin.embeddings}') OR NOT pg_has_role(who, 'odin_viewer', 'USAGE') OR NOT has_table_privilege(who, 'odin.chunks', 'SELECT') THEN
    PERFORM odin.fail('permission_denied', format('%s may not search whole orgs', who));
  END IF;
  RETURN QUERY SELECT * FROM odin._rank_passages(ARRAY(SELECT o FROM odin.orgs_of(who) o), collection, sources, question, m, vector, depth);
END $f$;

-- The way to look for this caller.
CREATE OR REPLACE FUNCTION odin._found_passages(collection bigint, sources text[], question text, m odin.embedding_models, vector text, depth int)
RETURNS TABLE(chunk_id bigint, score float8, cosine float8, shared float8)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF odin._by_org_alone('{odin.chunks,odin.embeddings}') THEN
    RETURN QUERY SELECT * FROM odin._rank_by_org(collection, sources, question, m, vector, depth);
  ELSE
    RETURN QUERY SELECT * FROM odin._rank_passages(ARRAY(SELECT o FROM odin.orgs_of(current_user) o), collection, sources, question, m, vector, depth);
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.knowledge_retriever(query text, collection_id bigint DEFAULT NULL, top_k int DEFAULT 5, top_n int DEFAULT 3, similarity_cutoff float8 DEFAULT 0.5) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  m odin.embedding_models;
  vector text;
  home odin.collections;
  passages jsonb;
BEGIN
  IF query !~ '[[:alnum:]]' THEN PERFORM odin.fail('validation_failed', 'query: there is no word in it', NULL, '{"field": "query"}'); END IF;
  SELECT * INTO m FROM odin.embedding_models x WHERE x.is_active;
  vector := odin._question_vector(m);
  IF collection_id IS NOT NULL THEN
    SELECT * INTO home FROM odin.collections c WHERE c.id = collection_id;
    IF NOT FOUND THEN PERFORM odin.fail('collection_not_found', format('collection_id: there is no collection %s', collection_id), NULL, '{"field": "collection_id"}'); END IF;
  END IF;
  WITH near AS (
    SELECT c.*, coalesce(d.title, c.name) AS title, f.score, greatest(f.cosine, f.shared) AS similarity, row_number() OVER (PARTITION BY c.source, c.source_id ORDER BY f.score DESC, c.id) AS nth
      FROM odin._found_passages(home.id, NULL, query, m, vector, greatest(40, 4 * top_k * top_n)) f JOIN odin.chunks c ON c.id = f.chunk_id LEFT JOIN odin.documents d ON d.id = c.document_id
     WHERE greatest(f.cosine, f.shared) >= similarity_cutoff),
  resources AS (SELECT source, source_id, max(score) AS best FROM near GROUP BY source, source_id ORDER BY best DESC, source_id LIMIT top_n)
  SELECT jsonb_agg(jsonb_build_object('content', n.content, 'resource_name', n.title, 'resource_id', n.source_id, 'resource_type', n.source, 'chunk_id', n.id, 'chunk_name', n.name,
           'similarity', round(n.similarity::numeric, 4), 'similarity_percentage', floor(n.similarity * 100)::int || '%') ORDER BY n.score DESC, n.id) INTO passages
    FROM near n JOIN resources USING (source, source_id) WHERE n.nth <= top_k;
  RETURN jsonb_strip_nulls(jsonb_build_object('note', odin._words_only(m, vector)))
    || jsonb_build_object('query', query, 'collection', home.name, 'collection_id', home.id, 'results', coalesce(passages, '[]'), 'total_chunks', jsonb_array_length(coalesce(passages, '[]')),
                          'embedding_model', CASE WHEN vector IS NOT NULL THEN m.name END);
END $f$;
COMMENT ON FUNCTION odin.knowledge_retriever(text, bigint, int, int, float8) IS 'Searches the farm''s documents and records (failed runs, maintenance, models) for what answers a question, by meaning, words and spelling together. At most top_n resources with top_k passages each. similarity is the better of meaning (cosine) and the share of the question''s words in the passage; passages below similarity_cutoff are left out, so lower it when nothing is found. Without collection_id it looks everywhere (list_collections).';

-- What happened last time: failures of this part and this printer first, then of either, then such as sound alike.
CREATE OR REPLACE FUNCTION odin.find_similar_failures(job_id bigint DEFAULT NULL, model_id bigint DEFAULT NULL, printer_id bigint DEFAULT NULL, description text DEFAULT NULL, "limit" int DEFAULT 10)
RETURNS TABLE(run_id bigint, of_job_id bigint, of_model_id bigint, model text, of_printer_id bigint, printer text, failed_at timestamptz, fail_reason text, notes text, progress_percent numeric, why text, good_since bigint, maintenance_since text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  wanted_model bigint := find_similar_failures.model_id;
  wanted_printer bigint := find_similar_failures.printer_id;
  m odin.embedding_models;
  j record;
  said text;
BEGIN
  IF find_similar_failures.job_id IS NOT NULL THEN
    SELECT x.model_id, coalesce((SELECT r.printer_id FROM odin.runs r WHERE r.job_id = x.id ORDER BY r.id DESC LIMIT 1), x.scheduled_printer_id, x.printer_id) AS printer_id, x.fail_notes INTO j FROM odin.jobs x WHERE x.id = find_similar_failures.job_id;
    IF NOT FOUND THEN PERFORM odin.fail('job_not_found', format('job_id: there is no job %s', find_similar_failures.job_id), NULL, '{"field": "job_id"}'); END IF;
    wanted_model := coalesce(wanted_model, j.model_id);
    wanted_printer := coalesce(wanted_printer, j.printer_id);
    said := j.fail_notes;
  END IF;
  said := concat_ws(' ', find_similar_failures.description, said);
  IF wanted_model IS NULL AND wanted_printer IS NULL AND said !~ '[[:alnum:]]' THEN
    PERFORM odin.fail('validation_failed', 'job_id: say which job, model or printer, or describe the failure', NULL, '{"field": "job_id"}');
  END IF;
  SELECT * INTO m FROM odin.embedding_models x WHERE x.is_active;
  RETURN QUERY
    WITH alike AS (
      SELECT c.source_id AS id, f.score FROM odin._found_passages(NULL, '{run}', said, m, odin._question_vector(m), 60) f JOIN odin.chunks c ON c.id = f.chunk_id WHERE said ~ '[[:alnum:]]'),
    same AS (
      (SELECT r.id FROM odin.runs r WHERE r.status = 'failed' AND r.model_id = wanted_model ORDER BY r.id DESC LIMIT 60) UNION
      (SELECT r.id FROM odin.runs r WHERE r.status = 'failed' AND r.printer_id = wanted_printer ORDER BY r.id DESC LIMIT 60) UNION SELECT id FROM alike)
    SELECT r.id, r.job_id, r.model_id, o.name, r.printer_id, p.name, r.finished_at, r.fail_reason, r.fail_notes, round(r.progress_pct::numeric, 1),
           concat_ws(', ', CASE WHEN r.model_id = wanted_model AND r.printer_id = wanted_printer THEN 'same model on the same printer' WHEN r.model_id = wanted_model THEN 'same model' WHEN r.printer_id = wanted_printer THEN 'same printer' END,
             CASE WHEN a.id IS NOT NULL THEN 'sounds alike' END),
           (SELECT count(*) FROM odin.runs g WHERE g.printer_id = r.printer_id AND g.model_id = r.model_id AND g.status = 'completed' AND g.id > r.id),
           (SELECT string_agg(l.task_name || coalesce(': ' || l.notes, ''), '; ' ORDER BY l.id) FROM (SELECT * FROM odin.maintenance_log x WHERE x.printer_id = r.printer_id AND x.performed_at BETWEEN r.finished_at AND r.finished_at + interval '7 days' ORDER BY x.id LIMIT 3) l)
      FROM same s JOIN odin.runs r ON r.id = s.id JOIN odin.models o ON o.id = r.model_id JOIN odin.printers p ON p.id = r.printer_id LEFT JOIN alike a ON a.id = r.id
     ORDER BY (coalesce(r.model_id = wanted_model, false)::int * 2 + coalesce(r.printer_id = wanted_printer, false)::int) + coalesce(a.score, 0) * 60 DESC, r.id DESC
     LIMIT least(greatest("limit", 1), 100);
END $f$;
COMMENT ON FUNCTION odin.find_similar_failures(bigint, bigint, bigint, text, int) IS 'What went wrong before: failed runs of the same model on the same printer first, then of the same model or printer, then those whose notes sound like the description. good_since counts runs of that model on that printer that succeeded afterwards; maintenance_since is what was done to the printer in the week after.';

-- How well tools fit a question: ranks by words, by spelling and by meaning, fused as for passages.
CREATE OR REPLACE FUNCTION odin._rank_tools(tools bigint[], question text) RETURNS TABLE(tool_id bigint, score float8)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  stems tsquery := (SELECT string_agg(quote_literal(s), ' | ')::tsquery FROM unnest(tsvector_to_array(to_tsvector('english', replace(question, '_', ' ')))) s);
  starts tsquery := (SELECT string_agg(quote_literal(w) || ':*', ' | ')::tsquery FROM regexp_split_to_table(lower(question), '[^[:alnum:]]+') w WHERE w <> '');
  m odin.embedding_models;
  vector text;
BEGIN
  SELECT * INTO m FROM odin.embedding_models x WHERE x.is_active;
  vector := odin._question_vector(m);
  RETURN QUERY EXECUTE format('
    WITH t AS (SELECT x.* FROM odin.tools x WHERE x.id = ANY ($1)), ranked AS (
      SELECT id, row_number() OVER (ORDER BY ts_rank(search, $2) + 2 * ts_rank(search, $3) DESC, id) AS place FROM t WHERE search @@ $2 OR search @@ $3
      UNION ALL
      SELECT id, 5 + row_number() OVER (ORDER BY near DESC, id) FROM (SELECT id, %1$s.word_similarity($4, replace(name, ''_'', '' '') || '' '' || coalesce(title, '''')) AS near FROM t) s WHERE near > 0.6
      %2$s)
    SELECT id, sum(1.0 / (60 + place))::float8 FROM ranked GROUP BY id', odin._home_of('pg_trgm'),
    CASE WHEN vector IS NOT NULL THEN format('UNION ALL SELECT * FROM (SELECT t.id, row_number() OVER (ORDER BY e.embedding OPERATOR(%1$s.<=>) $5::%1$s.vector) AS place FROM t JOIN odin_private.tool_embeddings e ON e.tool_id = t.id AND e.model_id = %2$s) v WHERE place <= 10',
      odin._home_of('vector'), m.id) ELSE '' END) USING tools, starts, stems, question, vector;
END $f$;

GRANT EXECUTE ON FUNCTION odin._home_of(text), odin._question_vector(odin.embedding_models), odin._words_only(odin.embedding_models, text), odin._question_words(text[], text),
  odin._rank_passages(bigint[], bigint, text[], text, odin.embedding_models, text, int), odin._by_org_alone(text[]), odin._rank_by_org(bigint, text[], text, odin.embedding_models, text, int),
  odin._found_passages(bigint, text[], text, odin.embedding_models, text, int), odin.knowledge_retriever(text, bigint, int, int, float8),
  odin.find_similar_failures(bigint, bigint, bigint, text, int) TO odin_viewer;
