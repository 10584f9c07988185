-- Ids of one page of a long list, in index order. A policy's org condition would be merged with the org of the loop and lose that
-- order, so these look past row security, but only into the caller's own orgs; what is shown is read under it again.

-- One plan for every page: making a new one would cost more than the page.
CREATE OR REPLACE FUNCTION odin._queue_page(after_position numeric, after_start timestamptz, after_priority smallint, after_id bigint, with_held boolean, page int) RETURNS bigint[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $f$
BEGIN
  RETURN ARRAY(SELECT x.id FROM unnest(odin._visible_orgs()) o,
    LATERAL (SELECT j.id, j.queue_position, j.start_by, j.priority FROM odin.jobs j WHERE j.org_id = o AND j.status IN ('pending', 'scheduled') AND (with_held OR NOT j.hold)
               AND (coalesce(j.queue_position, 'infinity'::numeric), j.start_by, j.priority, j.id) > (after_position, after_start, after_priority, after_id)
              ORDER BY j.org_id, coalesce(j.queue_position, 'infinity'::numeric), j.start_by, j.priority, j.id LIMIT page) x
    ORDER BY coalesce(x.queue_position, 'infinity'::numeric), x.start_by, x.priority, x.id LIMIT page);
END $f$;

CREATE OR REPLACE FUNCTION odin._jobs_page(states text[], before_id bigint, page int) RETURNS bigint[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN ARRAY(SELECT x.id FROM unnest(odin._visible_orgs()) o, unnest(states) s,
    LATERAL (SELECT j.id FROM odin.jobs j WHERE j.org_id = o AND j.status = s AND j.id < before_id ORDER BY j.org_id, j.status, j.id DESC LIMIT page) x
    ORDER BY x.id DESC LIMIT page);
END $f$;
GRANT EXECUTE ON FUNCTION odin._queue_page(numeric, timestamptz, smallint, bigint, boolean, int), odin._jobs_page(text[], bigint, int) TO odin_viewer;
