-- Every way to register wrongly, and what it says.
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA shop;
CREATE TYPE shop.part AS (name text);
CREATE FUNCTION shop.good(a int DEFAULT 1) RETURNS text LANGUAGE sql AS $$ SELECT 'x'::text $$;
CREATE FUNCTION shop.over(a int) RETURNS text LANGUAGE sql AS $$ SELECT 'int'::text $$;
CREATE FUNCTION shop.over(a text, b shop.part DEFAULT NULL) RETURNS text LANGUAGE sql AS $$ SELECT 'text'::text $$;
CREATE FUNCTION shop.unnamed(int) RETURNS text LANGUAGE sql AS $$ SELECT 'x'::text $$;
CREATE FUNCTION shop.half_named(a int, text) RETURNS text LANGUAGE sql AS $$ SELECT 'x'::text $$;
CREATE FUNCTION shop.pseudo(a anyelement) RETURNS text LANGUAGE sql AS $$ SELECT 'x'::text $$;
CREATE FUNCTION shop.some_record() RETURNS record LANGUAGE sql AS $$ SELECT 1, 2 $$;
CREATE FUNCTION shop.some_records() RETURNS SETOF record LANGUAGE sql AS $$ SELECT 1, 2 $$;
CREATE FUNCTION shop.a_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION shop.open_definer() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT 'x'::text $$;
CREATE FUNCTION shop.half_definer() RETURNS text LANGUAGE sql SECURITY DEFINER SET work_mem = '1MB' AS $$ SELECT 'x'::text $$;
CREATE FUNCTION shop.listed() RETURNS TABLE(id int, v text) LANGUAGE sql AS $$ SELECT 1, 'x'::text $$;
CREATE PROCEDURE shop.proc() LANGUAGE sql AS $$ SELECT 1 $$;
CREATE AGGREGATE shop.agg(int) (SFUNC = int4pl, STYPE = int);
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA shop FROM PUBLIC; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA shop TO odin_viewer;

CREATE FUNCTION shop.refused(function text, more text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE m text; h text; s text;
BEGIN
  EXECUTE format('SELECT odin.register_tool(%L, %s)', function, coalesce(nullif(more, ''), 'description => ''x'''));
  RETURN 'registered: ' || function || ' ' || more;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS s = RETURNED_SQLSTATE, m = MESSAGE_TEXT, h = PG_EXCEPTION_HINT;
  RETURN s || ' ' || m || CASE WHEN h <> '' THEN ' -- ' || h ELSE '' END;
END $$;

-- The function itself.
SELECT shop.refused(f) FROM unnest(ARRAY['shop.nowhere', 'nowhere.good', 'good', 'shop.over', 'shop.over(bigint)', 'shop.over(text)', 'shop.over(nonsense)', 'shop.good(', 'shop.proc', 'shop.agg', 'shop.unnamed', 'shop.half_named', 'shop.pseudo',
  'shop.some_record', 'shop.some_records', 'shop.a_trigger', 'shop.open_definer', 'shop.half_definer', '']) f;
-- Written any way that PostgreSQL would take.
SELECT shop.refused('shop.over(int)', 'description => ''x'', name => ''over_int'''), shop.refused('shop.over( text , shop.part )', 'description => ''x'', name => ''over_text'''), shop.refused('"shop"."good"');
-- What is said about it.
SELECT shop.refused('shop.good', more) FROM unnest(ARRAY[
  'title => ''no description anywhere''', 'description => '' ''', 'description => ''x'', scope => ''everything''', 'description => ''x'', scope => NULL', 'description => ''x'', confirm => ''maybe'', scope => ''write''',
  'description => ''x'', confirm => ''human''', 'description => ''x'', scope => ''write'', confirm => ''preview'', previewable => false', 'description => ''x'', task => ''sometimes''', 'description => ''x'', area => ''Not A Word''',
  'description => ''x'', toolset => ''unheard_of''', 'description => ''x'', timeout => ''-1 s''', 'description => ''x'', timeout => ''2 days''', 'description => ''x'', rate_per_minute => 0',
  'description => ''x'', hints => ''{"dangerous": true}''', 'description => ''x'', hints => ''{"destructive": "no"}''', 'description => ''x'', hints => ''[]''', 'description => ''x'', scope => ''write'', hints => ''{"read_only": true}''',
  'description => ''x'', arguments => ''{"b": {}}''', 'description => ''x'', arguments => ''{"aa": {}}''', 'description => ''x'', arguments => ''[]''', 'description => ''x'', arguments => ''{"a": {"type": "nonsense"}}''',
  'description => ''x'', arguments => ''{"a": {"minimum": "one"}}''', 'description => ''x'', output => ''{"type": 7}''', 'description => ''x'', next_actions => ''{}''', 'description => ''x'', next_actions => ''[{"args": {}}]''',
  'description => ''x'', page_by => ''{id}''', 'description => ''x'', default_fields => ''{id}''', 'description => ''x'', aliases => ''{"two words"}''', 'description => ''x'', aliases => ''{over_int}''',
  'description => ''x'', task => ''optional'', arguments => ''{"a": {"secret": true}}''',
  'description => ''x'', arguments => ''{"a": {"x-mcp-header": "Two Words"}}''', 'description => ''x'', arguments => ''{"a": {"x-mcp-header": "A", "type": "number"}}''']) more;
SELECT shop.refused('shop.listed', more) FROM unnest(ARRAY['description => ''x'', page_by => ''{nothing}''', 'description => ''x'', default_fields => ''{v,nothing}''', 'description => ''x'', page_by => ''{id}'', default_fields => ''{v}''']) more;
-- Names.
SELECT shop.refused('shop.good', format('description => ''x'', name => %L', n)) FROM unnest(ARRAY['with.dot', 'with space', '9lives', '', repeat('n', 64), repeat('n', 63), 'search_tools', '-dash']) n;
CREATE FUNCTION shop.two(a int, b int) RETURNS text LANGUAGE sql AS $$ SELECT 'x'::text $$;
SELECT shop.refused('shop.two', 'description => ''x'', arguments => ''{"a": {"x-mcp-header": "Same"}, "b": {"x-mcp-header": "same"}}''');
-- A prompt cannot take a tool's name; a resource needs an address.
SELECT odin.register_prompt('shop.good', name => 'over_int', description => 'x');
SELECT odin.register_resource('not an address', 'shop.good', description => 'x');
-- Everybody's function is worth a word.
CREATE FUNCTION shop.public_one() RETURNS text LANGUAGE sql AS $$ SELECT 'x'::text $$;
SELECT odin.register_tool('shop.public_one', description => 'x');
-- What failed left nothing.
SELECT name, function FROM odin.tools WHERE function LIKE 'shop.%' ORDER BY name COLLATE "C";
