-- What a customer's own login may ask: the state of what it ordered, its quotes and its bills. Rows are kept apart by row-level access; columns
-- that are the farm's own business (cost, printers, people) are not shown here.

CREATE OR REPLACE VIEW odin.order_job_view WITH (security_invoker = true) AS
SELECT j.id, j.name AS item_name, j.status, o.id AS order_id, o.order_number, j.order_line_id, l.description AS line, j.pieces, j.good, j.plate_no, j.plates, j.due_at AS due_date, j.created_at, j.started_at AS actual_start, j.finished_at AS actual_end,
       r.progress_pct AS progress_percent, j.customer_id, j.org_id
  FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id JOIN odin.orders o ON o.id = l.order_id
  LEFT JOIN LATERAL (SELECT round(x.progress_pct::numeric, 0) AS progress_pct FROM odin.runs x WHERE x.job_id = j.id AND x.status IN ('claimed','starting','printing','paused','unknown')) r ON true
 WHERE NOT l.is_stock;
COMMENT ON VIEW odin.order_job_view IS 'Jobs of customers'' orders as the customer may see them.';
GRANT SELECT ON odin.order_job_view TO odin_viewer, odin_customer;

CREATE OR REPLACE FUNCTION odin.list_order_jobs(order_id bigint DEFAULT NULL, status_filter text DEFAULT NULL, "limit" integer DEFAULT 100, cursor text DEFAULT NULL)
RETURNS SETOF odin.order_job_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  before_id bigint := coalesce((odin.cursor_decode(list_order_jobs.cursor)->>0)::bigint, 9223372036854775807);
  states text[] := odin._job_states(status_filter);
BEGIN
  RETURN QUERY SELECT v.* FROM odin.order_job_view v WHERE v.id < before_id AND v.status = ANY (states) AND (list_order_jobs.order_id IS NULL OR v.order_id = list_order_jobs.order_id) ORDER BY v.id DESC LIMIT list_order_jobs."limit";
END $f$;
COMMENT ON FUNCTION odin.list_order_jobs(bigint, text, integer, text) IS 'Lists the print jobs of customers'' orders with their progress, newest first; a customer''s own login sees its own. Give order_id for one order.';

-- Who sends the bill; a customer does not see the org itself.
CREATE OR REPLACE FUNCTION odin._org_name(org bigint) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT o.name FROM odin.orgs o WHERE o.id = org AND o.id = ANY (odin._visible_orgs());
$f$;
GRANT EXECUTE ON FUNCTION odin.list_order_jobs(bigint, text, integer, text) TO odin_viewer, odin_customer;
GRANT EXECUTE ON FUNCTION odin._org_name(bigint) TO odin_viewer, odin_customer;
GRANT EXECUTE ON FUNCTION odin._job_states(text), odin.list_quotes(text, bigint, integer, text), odin.list_invoices(text, bigint, integer, text), odin.invoice_html(bigint) TO odin_customer;
