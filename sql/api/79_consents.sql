-- Calls that wait for a person, as a list. Deciding is for people: odin.approve_call() and odin.deny_call().
-- The list shows the arguments as the trail keeps them, secrets masked.

CREATE OR REPLACE FUNCTION odin.list_approvals(state_filter text DEFAULT 'pending', "limit" int DEFAULT 50, cursor text DEFAULT NULL)
RETURNS TABLE(id bigint, tool text, asked_by text, arguments jsonb, why text, preview jsonb, state text, reason text, asked_at timestamptz, expires_at timestamptz, decided_by text, decided_via text, decided_at timestamptz, how_to_decide text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT c.id, c.tool, c.role_name, c.arguments, c.why, c.preview, s.state, c.reason, c.asked_at, c.expires_at, c.decided_by, c.decided_via, c.decided_at,
         CASE WHEN s.state = 'pending' THEN format('SELECT odin.approve_call(%s, ''1 hour''); or SELECT odin.deny_call(%s, ''why'', ''1 day'');', c.id, c.id) END
    FROM odin.consents c, LATERAL (SELECT CASE WHEN c.state IN ('pending', 'approved') AND c.expires_at < now() THEN 'expired' ELSE c.state END AS state) s
   WHERE (state_filter IS NULL OR state_filter = 'all' OR s.state = state_filter) AND c.id < coalesce((odin.cursor_decode(cursor)->>0)::bigint, 9223372036854775807)
   ORDER BY c.id DESC LIMIT least(greatest(coalesce("limit", 50), 1), 500);
$f$;
COMMENT ON FUNCTION odin.list_approvals(text, int, text) IS 'Lists calls that wait for a person''s approval, newest first: who asked, for what and why, what it would do (preview), until when; or with state_filter those approved, denied, used or expired, by whom and why. A person decides in SQL; no key can.';
