-- Passages of made-up words in a natural distribution (few common, many rare), and vectors in clusters, as models make them.
SET client_min_messages = warning;
DO $$ BEGIN IF to_regrole('know_bench') IS NULL THEN CREATE ROLE know_bench; END IF; END $$;
GRANT odin_viewer TO know_bench;
INSERT INTO odin.orgs(name) SELECT 'Bench ' || k FROM generate_series(1, 10) k;
SELECT odin.add_member('know_bench', id) FROM odin.orgs WHERE name = 'Bench 1' \g /dev/null
SELECT odin._make_collection(id, 'documents', 'documents', NULL) FROM odin.orgs WHERE name LIKE 'Bench %' \g /dev/null
SELECT setseed(0.5) \g /dev/null
-- Word n of 20,000 is about n times rarer than the first.
CREATE FUNCTION pg_temp.word() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 'w' || translate(floor(exp(random() * ln(20000)))::int::text, '0123456789', 'abcdefghik') $$;
CREATE FUNCTION pg_temp.words(n int) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT string_agg(pg_temp.word(), ' ') FROM generate_series(1, n) $$;
CREATE FUNCTION pg_temp.vector(topic int) RETURNS real[] LANGUAGE sql VOLATILE AS $$ SELECT array_agg((sin(topic * 7.13 + k * 1.7) + 0.6 * (random() - 0.5) * 2)::real) FROM generate_series(1, 384) k $$;
-- Half of all passages are of the role's own org.
WITH rows AS (
  SELECT k, CASE WHEN k % 2 = 0 THEN 1 ELSE 2 + k % 9 END AS o, pg_temp.words(80 + 0 * k) AS body FROM generate_series(1, :passages) k)
INSERT INTO odin.chunks(org_id, collection_id, source, source_id, n, name, content, search)
SELECT g.id, c.id, 'model', 1000000 + r.k, 0, 'Passage ' || r.k, r.body, odin._words_of('english', 'Passage ' || r.k, r.body)
  FROM rows r JOIN odin.orgs g ON g.name = 'Bench ' || r.o JOIN odin.collections c ON c.org_id = g.id AND c.name = 'documents';
INSERT INTO odin.embedding_models(name, dimensions) VALUES ('bench', 384);
INSERT INTO odin.embeddings(model_id, chunk_id, org_id, collection_id, embedding)
SELECT m.id, c.id, c.org_id, c.collection_id, pg_temp.vector((c.id % 500)::int)::public.vector FROM odin.chunks c, odin.embedding_models m;
SET maintenance_work_mem = '1GB';
SELECT format('CREATE INDEX embeddings_of_%1$s ON odin.embeddings USING hnsw ((embedding::public.vector(384)) public.vector_cosine_ops) WHERE model_id = %1$s', id) FROM odin.embedding_models \gexec
VACUUM ANALYZE odin.chunks; VACUUM ANALYZE odin.embeddings;
CREATE FUNCTION pg_temp.measure(name text, what text, question_words int, misspelt boolean, with_vector boolean, times int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  began timestamptz; took float8[]; question text; said jsonb; options jsonb; found bigint := 0; s record;
BEGIN
  FOR i IN 1..times LOOP
    question := pg_temp.words(question_words) || CASE WHEN misspelt THEN ' zqx' || pg_temp.word() ELSE '' END;
    options := CASE WHEN with_vector THEN jsonb_build_object('input_responses', jsonb_build_object('question_vector', jsonb_build_object('model', 'bench', 'vector', to_jsonb(pg_temp.vector((random() * 499)::int))))) ELSE '{}' END;
    began := clock_timestamp();
    said := odin.call('knowledge_retriever', jsonb_build_object('query', question, 'similarity_cutoff', 0), options);
    took := took || extract(epoch FROM clock_timestamp() - began) * 1000;
    IF said ? 'error' THEN RAISE EXCEPTION '%', said; END IF;
    found := found + (said->>'total_chunks')::int;
  END LOOP;
  SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) AS p50, percentile_cont(0.99) WITHIN GROUP (ORDER BY t) AS p99 INTO s FROM unnest(took[4:]) t;
  IF found < times THEN RAISE EXCEPTION '%: % results in % calls', name, found, times; END IF;
  RETURN concat_ws('|', name, round(s.p50::numeric, 1), round(s.p99::numeric, 1), what);
END $$;
SET ROLE know_bench;
SELECT pg_temp.measure('words_3', 'a question of 3 words', 3, false, false, 200);
SELECT pg_temp.measure('words_8', 'a question of 8 words', 8, false, false, 200);
SELECT pg_temp.measure('misspelt', '3 words and one that stands nowhere', 3, true, false, 100);
SELECT pg_temp.measure('meaning', '5 words and a vector', 5, false, true, 200);
