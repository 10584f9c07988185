-- The four calculators: offline arithmetic over the reference tables, and the same questions answered from the farm's own figures (live).
-- Formulas, ranges and rounding are a contract: figures are computed in full and rounded once, for display.

CREATE OR REPLACE FUNCTION odin._reference_printer(said text) RETURNS odin.reference_printers
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT r.* FROM odin.reference_printers r WHERE strpos(lower(r.name), lower(btrim(said))) > 0 OR strpos(lower(r.slug), lower(btrim(said))) > 0 ORDER BY r.position LIMIT 1;
$f$;
CREATE OR REPLACE FUNCTION odin._usd(amount numeric) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$ SELECT '$' || to_char(round(amount, 2), 'FM999999999990.00') $f$;

CREATE OR REPLACE FUNCTION odin.calculate_print_cost(filament_type text, filament_cost_per_kg numeric, print_weight_grams numeric, print_time_hours numeric, printer_model text DEFAULT NULL, electricity_rate_kwh numeric DEFAULT 0.12,
  labor_rate_per_hour numeric DEFAULT 0, failure_rate_pct numeric DEFAULT 5, live boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p odin.reference_printers;
  own record;
  name text := 'Generic Printer';
  watts numeric := 300;
  hourly numeric := 500.0 / 5000;
  pct numeric := failure_rate_pct;
  kg numeric := filament_cost_per_kg;
  basis text[] := '{}';
  material numeric; electricity numeric; depreciation numeric; labor numeric; subtotal numeric; buffer numeric; total numeric;
BEGIN
  IF printer_model IS NOT NULL THEN
    p := odin._reference_printer(printer_model);
    IF p.slug IS NULL THEN
      PERFORM odin.note(format('No printer in the reference data matches %s: a generic one (300 W, 500 for 5000 h) was assumed.', printer_model));
    ELSE
      name := p.name; watts := p.watts; hourly := p.price / p.life_hours;
    END IF;
  END IF;
  IF live THEN
    SELECT round(sum(r.energy_wh) / nullif(sum(r.seconds) FILTER (WHERE r.energy_wh IS NOT NULL), 0) * 3600, 1) AS measured_watts,
           round(100.0 * count(*) FILTER (WHERE r.status <> 'completed' OR r.good = 0) / nullif(count(*), 0), 2) AS fail_pct, count(*) AS n
      INTO own FROM (SELECT x.energy_wh, x.seconds, x.status, x.good FROM odin.runs x JOIN odin.printers y ON y.id = x.printer_id
                      WHERE x.finished_at IS NOT NULL AND x.started_at IS NOT NULL AND x.org_id = ANY (odin._visible_orgs()) AND (calculate_print_cost.printer_model IS NULL OR strpos(lower(coalesce(y.model, '')), lower(btrim(calculate_print_cost.printer_model))) > 0) ORDER BY x.id DESC LIMIT 1000) r;
    IF own.measured_watts IS NOT NULL THEN watts := own.measured_watts; basis := basis || format('%s W measured', watts); END IF;
    IF own.n >= 10 THEN pct := least(own.fail_pct, 99); basis := basis || format('%s %% of the last %s runs failed', pct, own.n); END IF;
    SELECT coalesce(avg(f.cost_per_kg), kg) INTO kg FROM odin.filaments f WHERE f.org_id = ANY (odin._visible_orgs()) AND f.is_active AND f.material = odin._material(calculate_print_cost.filament_type) AND f.cost_per_kg IS NOT NULL;
    IF kg <> filament_cost_per_kg THEN basis := basis || format('%s per kg in the farm''s library', round(kg, 2)); END IF;
  END IF;
  material := print_weight_grams / 1000 * kg;
  electricity := watts / 1000 * print_time_hours * electricity_rate_kwh;
  depreciation := hourly * print_time_hours;
  labor := labor_rate_per_hour * print_time_hours;
  subtotal := material + electricity + depreciation + labor;
  buffer := subtotal * (pct / 100) / (1 - pct / 100);
  total := subtotal + buffer;
  RETURN jsonb_build_object('printer', name, 'watts', watts, 'filament_type', filament_type, 'material', round(material, 2), 'electricity', round(electricity, 2), 'depreciation', round(depreciation, 2), 'labor', round(labor, 2),
    'failure_buffer', round(buffer, 2), 'failure_rate_pct', pct, 'total', round(total, 2), 'currency', 'USD',
    'batch', jsonb_build_object('1', round(total, 2), '10', round(total * 10, 2), '50', round(total * 50, 2), '100', round(total * 100, 2)),
    'retail', jsonb_build_object('x2', round(total * 2, 2), 'x3', round(total * 3, 2), 'x5', round(total * 5, 2)), 'from_the_farm', to_jsonb(basis),
    'report', array_to_string(ARRAY[format('Printer: %s (%s W)', name, trim_scale(watts)), format('Filament: %s at %s/kg', filament_type, odin._usd(kg)), format('Print: %s g in %s h', trim_scale(print_weight_grams), trim_scale(print_time_hours)), '',
      'Material: ' || odin._usd(material), 'Electricity: ' || odin._usd(electricity), 'Depreciation: ' || odin._usd(depreciation), 'Labour: ' || odin._usd(labor), format('Failures (%s %%): %s', trim_scale(pct), odin._usd(buffer)), 'TOTAL: ' || odin._usd(total), '',
      format('1 / 10 / 50 / 100 pieces: %s / %s / %s / %s', odin._usd(total), odin._usd(total * 10), odin._usd(total * 50), odin._usd(total * 100)),
      format('Retail at x2 / x3 / x5: %s / %s / %s', odin._usd(total * 2), odin._usd(total * 3), odin._usd(total * 5))], E'\n'));
END $f$;
COMMENT ON FUNCTION odin.calculate_print_cost IS 'Works out what a print costs: material, electricity, wear of the printer, labour and a share for failures, with batch and retail prices. live true takes measured watts, real failure rate and filament prices from the farm.';

CREATE OR REPLACE FUNCTION odin.compare_farm_software(printer_count integer, protocols_needed text[] DEFAULT NULL, self_hosted_required boolean DEFAULT false, budget_monthly numeric DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  wanted text[] := ARRAY(SELECT DISTINCT lower(btrim(x)) FROM unnest(protocols_needed) x WHERE btrim(x) <> '');
  ranked jsonb;
BEGIN
  SELECT jsonb_agg(to_jsonb(s) - 'position' || jsonb_build_object('rank', s.rank) ORDER BY s.rank) INTO ranked FROM (
    SELECT row_number() OVER (ORDER BY f.score DESC, f.position) AS rank, f.* FROM (
      SELECT c.position, c.slug, c.name AS platform, c.pricing AS pricing_model, c.monthly AS monthly_cost, c.monthly * 12 AS yearly_cost, cardinality(c.protocols) AS protocol_count, c.protocols, c.self_hosted, cardinality(c.features) AS features,
             14 AS features_of, c.ai_detection, c.unlimited AS unlimited_printers,
             CASE WHEN cardinality(wanted) > 0 THEN 30 + 2 * least(cardinality(c.protocols) - cardinality(wanted), 5) ELSE 5 * cardinality(c.protocols) END
             + CASE WHEN NOT self_hosted_required OR c.self_hosted THEN 15 ELSE 0 END
             + CASE WHEN budget_monthly IS NULL THEN 0 WHEN c.monthly <= budget_monthly THEN 20 ELSE -10 END
             + 2 * cardinality(c.features) + CASE WHEN c.unlimited THEN 10 ELSE 0 END + CASE WHEN c.ai_detection = 'yes' THEN 5 ELSE 0 END AS score
        FROM (SELECT r.*, CASE WHEN r.pricing = 'flat-rate' THEN r.base WHEN r.per_printer > 0 THEN r.per_printer * printer_count ELSE 0 END AS monthly FROM odin.reference_platforms r
               WHERE (NOT self_hosted_required OR r.self_hosted) AND r.protocols @> wanted) c) f) s;
  IF ranked IS NULL THEN
    PERFORM odin.fail('validation_failed', format('No compatible platform found. Constraints: %s', concat_ws(', ', CASE WHEN cardinality(wanted) > 0 THEN 'protocols ' || array_to_string(wanted, ', ') END, CASE WHEN self_hosted_required THEN 'self-hosted' END)), 'Relax a constraint.');
  END IF;
  RETURN jsonb_build_object('printer_count', printer_count, 'protocols_needed', to_jsonb(wanted), 'platforms', ranked,
    'report', (SELECT string_agg(format('#%s %s: %s a month, %s protocols, self-hosted %s, features %s/14, score %s', e->>'rank', e->>'platform', CASE WHEN (e->>'monthly_cost')::numeric = 0 THEN 'free' ELSE odin._usd((e->>'monthly_cost')::numeric) END, e->>'protocol_count',
      CASE WHEN (e->>'self_hosted')::boolean THEN 'yes' ELSE 'no' END, e->>'features', e->>'score'), E'\n' ORDER BY (e->>'rank')::int) FROM jsonb_array_elements(ranked) e));
END $f$;
COMMENT ON FUNCTION odin.compare_farm_software(integer, text[], boolean, numeric) IS 'Compares software for print farms for a number of printers: monthly cost, protocols, features, ranked by score. Needed protocols and self-hosting are hard conditions.';

CREATE OR REPLACE FUNCTION odin.recommend_printer_for_farm(use_case text, budget_per_printer numeric DEFAULT NULL, existing_fleet text[] DEFAULT NULL, priority text DEFAULT 'reliability', live boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  fleet text[] := ARRAY(SELECT lower(btrim(x)) FROM unnest(recommend_printer_for_farm.existing_fleet) x WHERE btrim(x) <> '');
  best jsonb;
  aim text := recommend_printer_for_farm.priority;
BEGIN
  IF live THEN
    fleet := fleet || ARRAY(SELECT DISTINCT lower(p.model) FROM odin.printers p WHERE p.org_id = ANY (odin._visible_orgs()) AND p.is_active AND p.model IS NOT NULL);
  END IF;
  SELECT jsonb_agg(jsonb_build_object('rank', s.rank, 'name', s.name, 'slug', s.slug, 'manufacturer', s.manufacturer, 'price', s.price, 'volume_mm', jsonb_build_array(s.bed_x_mm, s.bed_y_mm, s.bed_z_mm), 'speed_mm_s', s.speed_mm_s, 'enclosed', s.enclosed, 'farm_score', s.farm_score,
      'reliability', s.reliability, 'protocol', s.protocol, 'support', s.support, 'score', round(s.score, 1), 'why', to_jsonb(s.why), 'pros', to_jsonb(s.pros), 'cons', to_jsonb(s.cons)) ORDER BY s.rank) INTO best
    FROM (SELECT row_number() OVER (ORDER BY c.score DESC, c.position) AS rank, c.* FROM (
      SELECT r.*, CASE aim WHEN 'speed' THEN r.speed_mm_s / 10.0 WHEN 'quality' THEN 0.5 * r.reliability + 0.3 * r.farm_score + CASE WHEN r.enclosed THEN 10 ELSE 0 END
                    WHEN 'cost' THEN 50 * (1 - r.price / 6000) + 0.3 * r.farm_score ELSE 0.7 * r.reliability + 0.3 * r.farm_score END
               + CASE WHEN use_case = ANY (r.best_for) THEN 20 ELSE 0 END + 0.2 * r.farm_score + CASE WHEN r.support = 'full' THEN 10 ELSE 0 END + CASE WHEN r.auto_level THEN 5 ELSE 0 END + CASE WHEN d.diverse THEN 8 ELSE 0 END AS score,
             array_remove(ARRAY[CASE WHEN aim = 'speed' AND r.speed_mm_s >= 500 THEN format('fast: %s mm/s', r.speed_mm_s) END, CASE WHEN aim = 'quality' AND r.enclosed THEN 'enclosed' END,
               CASE WHEN aim = 'reliability' AND r.reliability >= 85 THEN format('reliable: %s/100', r.reliability) END, CASE WHEN aim = 'cost' AND r.price < 400 THEN format('costs %s', odin._usd(r.price)) END,
               CASE WHEN use_case = ANY (r.best_for) THEN 'made for ' || use_case END, CASE WHEN r.farm_score >= 85 THEN format('farm score %s/100', r.farm_score) END, CASE WHEN r.support = 'full' THEN 'full support' END, CASE WHEN d.diverse THEN 'another maker than the fleet' END], NULL) AS why
        FROM odin.reference_printers r CROSS JOIN LATERAL (SELECT cardinality(fleet) > 0 AND NOT EXISTS (SELECT 1 FROM unnest(fleet) f WHERE strpos(f, lower(r.manufacturer)) > 0) AS diverse) d
       WHERE r.support <> 'none' AND (budget_per_printer IS NULL OR r.price <= budget_per_printer)) c) s WHERE s.rank <= 3;
  IF best IS NULL THEN
    PERFORM odin.fail('validation_failed', format('NO_FEASIBLE_SOLUTION: no supported printer for %s within %s; the cheapest supported one costs %s', use_case, odin._usd(budget_per_printer), (SELECT odin._usd(min(r.price)) FROM odin.reference_printers r WHERE r.support <> 'none')), 'Raise budget_per_printer.',
      '{"field":"budget_per_printer"}');
  END IF;
  RETURN jsonb_build_object('use_case', use_case, 'priority', aim, 'budget_per_printer', budget_per_printer, 'fleet', to_jsonb(fleet), 'recommendations', best,
    'report', (SELECT string_agg(format('#%s %s (%s): %s, %s mm/s, reliability %s, farm score %s. Why: %s', e->>'rank', e->>'name', e->>'manufacturer', odin._usd((e->>'price')::numeric), e->>'speed_mm_s', e->>'reliability', e->>'farm_score',
      (SELECT string_agg(w, ', ') FROM jsonb_array_elements_text(e->'why') w)), E'\n' ORDER BY (e->>'rank')::int) FROM jsonb_array_elements(best) e));
END $f$;
COMMENT ON FUNCTION odin.recommend_printer_for_farm(text, numeric, text[], text, boolean) IS 'Recommends three printers to buy for a use case and budget, by what matters most (speed, quality, reliability or cost), with the reasons. live true counts the farm''s own fleet as existing.';

CREATE OR REPLACE FUNCTION odin.estimate_farm_capacity(avg_print_time_hours numeric DEFAULT NULL, printers jsonb DEFAULT NULL, changeover_minutes numeric DEFAULT 15, live boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  fleet jsonb := estimate_farm_capacity.printers;
  hours numeric := estimate_farm_capacity.avg_print_time_hours;
  per_day bigint;
  overall numeric;
  answer jsonb;
  slow jsonb;
BEGIN
  IF live THEN
    fleet := coalesce(fleet, (SELECT jsonb_agg(jsonb_build_object('model', x.model, 'count', x.n, 'hours_per_day', x.h)) FROM (SELECT coalesce(p.model, 'unknown') AS model, count(*) AS n,
        greatest(0.1, least(24, round(coalesce(sum(t.print_seconds) / 3600.0 / nullif(sum(greatest(1, extract(epoch FROM now() - p.created_at) / 86400)), 0), 24)::numeric, 1))) AS h
        FROM odin.printers p JOIN odin.printer_totals t ON t.printer_id = p.id WHERE p.org_id = ANY (odin._visible_orgs()) AND p.is_active GROUP BY 1 ORDER BY 1) x));
    hours := coalesce(hours, (SELECT round(avg(r.seconds) / 3600.0, 3) FROM (SELECT y.seconds FROM odin.runs y WHERE y.org_id = ANY (odin._visible_orgs()) AND y.status = 'completed' ORDER BY y.id DESC LIMIT 1000) r));
  END IF;
  IF hours IS NULL OR fleet IS NULL OR jsonb_typeof(fleet) <> 'array' OR jsonb_array_length(fleet) NOT BETWEEN 1 AND 100 THEN
    PERFORM odin.fail('validation_failed', CASE WHEN hours IS NULL THEN 'avg_print_time_hours: is required (0.01 to 720), or live true on a farm with runs' ELSE 'printers: a list of 1 to 100 of {model, count, hours_per_day}' END, NULL, jsonb_build_object('field', CASE WHEN hours IS NULL THEN 'avg_print_time_hours' ELSE 'printers' END));
  END IF;
  IF EXISTS (SELECT 1 FROM jsonb_array_elements(fleet) e WHERE btrim(coalesce(e->>'model', '')) = '' OR jsonb_typeof(e->'count') IS DISTINCT FROM 'number' OR (e->>'count')::numeric NOT BETWEEN 1 AND 1000 OR (e->>'count')::numeric % 1 <> 0
             OR jsonb_typeof(e->'hours_per_day') IS DISTINCT FROM 'number' OR (e->>'hours_per_day')::numeric NOT BETWEEN 0.1 AND 24) THEN
    PERFORM odin.fail('validation_failed', 'printers: model (not blank), count (1 to 1000), hours_per_day (0.1 to 24)', '[{"model": "P1S", "count": 4, "hours_per_day": 20}]', '{"field":"printers"}');
  END IF;
  WITH u AS (SELECT n, coalesce((odin._reference_printer(e->>'model')).name, btrim(e->>'model')) AS name, (e->>'count')::int AS count, (e->>'hours_per_day')::numeric AS h,
                    floor((e->>'hours_per_day')::numeric * 60 / (hours * 60 + changeover_minutes))::bigint AS each FROM jsonb_array_elements(fleet) WITH ORDINALITY x(e, n))
  SELECT jsonb_agg(jsonb_build_object('printer', u.name, 'count', u.count, 'hours_per_day', u.h, 'prints_per_day_each', u.each, 'prints_per_day', u.each * u.count, 'prints_per_month', u.each * u.count * 30,
           'utilisation_pct', round(u.each * hours * 60 * 100 / (u.h * 60), 1)) ORDER BY u.n), sum(u.each * u.count), round(sum(u.each * u.count * hours * 60) * 100 / sum(u.h * 60 * u.count), 1),
         (array_agg(jsonb_build_object('printer', u.name, 'prints_per_day_each', u.each) ORDER BY u.each, u.n))[1]
    INTO answer, per_day, overall, slow FROM u;
  RETURN jsonb_build_object('avg_print_time_hours', hours, 'changeover_minutes', changeover_minutes, 'printers', answer, 'prints_per_day', per_day, 'prints_per_month', per_day * 30, 'utilisation_pct', overall, 'bottleneck', slow,
    'advice', CASE WHEN overall > 85 THEN 'near capacity' WHEN overall < 50 THEN 'spare capacity' ELSE 'balanced' END,
    'report', (SELECT string_agg(format('%s x %s: %s a day each, %s a day, %s a month, %s %% used', e->>'count', e->>'printer', e->>'prints_per_day_each', e->>'prints_per_day', e->>'prints_per_month', e->>'utilisation_pct'), E'\n') FROM jsonb_array_elements(answer) e)
      || format(E'\nTotal: %s prints a day, %s a month, %s %% used. Bottleneck: %s.', per_day, per_day * 30, overall, slow->>'printer'));
END $f$;
COMMENT ON FUNCTION odin.estimate_farm_capacity(numeric, jsonb, numeric, boolean) IS 'Estimates how many prints a farm makes a day and month: printers (model, count, hours per day), mean print time and changeover. live true takes fleet, hours and print time from the farm itself.';
GRANT EXECUTE ON FUNCTION odin._reference_printer(text), odin._usd(numeric), odin.calculate_print_cost, odin.compare_farm_software(integer, text[], boolean, numeric), odin.recommend_printer_for_farm(text, numeric, text[], text, boolean), odin.estimate_farm_capacity(numeric, jsonb, numeric, boolean) TO odin_viewer;
