-- docs/tools.md, from the registry. Nothing is written by hand there.
SELECT E'# Tools\n\nMade from the registry by `make docs`. An argument with * is required. Every write also takes `dry_run`, `idempotency_key` and `preview_token`; every list `fields`;\nevery read `response_format` (`json` or `markdown`). Tools outside the listed toolsets are found by `search_tools` and called by `call_tool`, or switched on by toolset.\n\n'
  || E'| toolset | listed | tools | for |\n|---|---|---|---|\n'
  || (SELECT string_agg(format('| `%s` | %s | %s | %s |', s.name, CASE WHEN s.listed OR s.name = 'core' THEN 'yes' ELSE 'no' END, (SELECT count(*) FROM odin.tools t WHERE s.name = ANY (t.toolsets) AND t.kind = 'tool'), s.description), E'\n' ORDER BY s.name COLLATE "C") FROM odin.toolsets s)
  || E'\n';
WITH arguments AS (
  SELECT t.id, p.key AS name, p.value AS s, (t.input_schema->'required' ? p.key) AS required, t.spec->'control' ? p.key AS control,
         (SELECT string_agg('`' || a.key || '`', ', ' ORDER BY a.key) FROM jsonb_each_text(t.spec->'aliases') a WHERE a.value = p.key) AS other
    FROM odin.tools t, jsonb_each(t.input_schema->'properties') p WHERE t.kind = 'tool'
), rendered AS (
  SELECT id, string_agg(format(E'| `%s`%s | %s | %s |', name, CASE WHEN required THEN ' *' ELSE '' END,
           concat_ws(', ', CASE jsonb_typeof(s->'type') WHEN 'array' THEN (SELECT string_agg(e, ' or ') FROM jsonb_array_elements_text(s->'type') e) ELSE s->>'type' END,
             CASE WHEN s ? 'minimum' OR s ? 'maximum' THEN concat(coalesce(s->>'minimum', ''), ' to ', coalesce(s->>'maximum', '')) END,
             CASE WHEN s ? 'maxLength' THEN 'at most ' || (s->>'maxLength') || ' characters' END,
             CASE WHEN s ? 'enum' THEN (SELECT string_agg('`' || e || '`', ' ') FROM jsonb_array_elements_text(s->'enum') e) END,
             CASE WHEN s ? 'default' THEN 'default `' || (s->>'default') || '`' END),
           concat_ws(' ', replace(s->>'description', '|', '\|'), 'Also: ' || other || '.')), E'\n' ORDER BY required DESC, name) AS table_text
    FROM arguments WHERE NOT control GROUP BY id
)
SELECT format(E'## %s\n\n%s\n\n%s · area %s · %s%s%s\n%s', t.name, t.description, t.scope, t.area, 'toolset ' || array_to_string(t.toolsets, ', '),
         CASE t.confirm WHEN 'none' THEN '' ELSE ' · confirm: ' || t.confirm END,
         coalesce(' · also called ' || (SELECT string_agg('`' || a.alias || '`', ', ' ORDER BY a.alias) FROM odin.tool_aliases a WHERE a.tool_id = t.id), ''),
         coalesce(E'\n| argument | type | meaning |\n|---|---|---|\n' || r.table_text || E'\n', ''))
  FROM odin.tools t LEFT JOIN rendered r USING (id) WHERE t.kind = 'tool' AND t.active ORDER BY t.name COLLATE "C";
