-- The record tools in the registry, and who may run what stands behind them.
DO $reg$
DECLARE
  domain_arg constant jsonb := '{"type":["array","string"],"description":"Conditions [field, operator, value]; [] for all."}';
  model_arg constant jsonb := '{"maxLength":130,"description":"A table (jobs, schema.table) or a name like sale.order; list_record_models shows them."}';
  ids_arg constant jsonb := '{"type":["array","integer","string"],"description":"Ids of the records; better than a domain."}';
  names constant jsonb := '{"maxItems":200,"items":{"type":"string","maxLength":200}}';
  word constant jsonb := '{"maxLength":200}';
BEGIN
PERFORM odin.register_tool('odin.list_record_models', area => 'records', toolset => 'records', title => 'List models', result_key => 'models',
  arguments => '{"filter":{"maxLength":100,"description":"A word in name or description."},"limit":{"minimum":1,"maximum":500}}',
  next_actions => '[{"tool":"describe_model","args":{"model":"{models.0.model}"},"reason":"see its fields"}]');
PERFORM odin.register_tool('odin.describe_model', area => 'records', toolset => 'records', title => 'Describe a model',
  arguments => jsonb_build_object('model', model_arg, 'field_filter', '{"maxLength":100}'::jsonb, 'type_filter', '{"maxLength":60}'::jsonb, 'limit', '{"minimum":1,"maximum":500}'::jsonb),
  output => '{"properties":{"model":{"type":"string"},"description":{"type":"string"},"key":{"type":"array","items":{"type":"string"}},"may":{"type":"array","items":{"type":"string"}},"fields":{"type":"array","items":{"type":"object"}},"field_count":{"type":"integer"},"total_fields":{"type":"integer"}},"required":["model","fields","field_count","total_fields"]}');
PERFORM odin.register_tool('odin.search_records', area => 'records', toolset => 'records', title => 'Search records', timeout => '10 s',
  arguments => jsonb_build_object('model', model_arg, 'domain', domain_arg, 'fields', names || '{"description":"Fields to show, links by a dot (printer_id.name); all when left out."}',
    'order', '{"maxLength":500,"description":"\"due_at desc, id\"; nulls first or nulls last may follow a term."}'::jsonb, 'limit', '{"minimum":1,"maximum":1000,"description":"Records per page."}'::jsonb,
    'cursor', '{"maxLength":4000,"description":"next_cursor of the page before."}'::jsonb, 'explain', '{"description":"true: show how it would be answered, without data."}'::jsonb),
  output => '{"properties":{"model":{"type":"string"},"records":{"type":"array","items":{"type":"object"}},"count":{"type":"integer"},"next_cursor":{"type":"string"},"note":{"type":"string"},"plan":{"type":"object"}}}');
PERFORM odin.register_tool('odin.read_records', area => 'records', toolset => 'records', title => 'Read records', timeout => '10 s',
  arguments => jsonb_build_object('model', model_arg, 'ids', ids_arg || '{"description":"Ids of the records."}', 'fields', names || '{"description":"Fields to show; all when left out."}'),
  output => '{"properties":{"model":{"type":"string"},"records":{"type":"array","items":{"type":"object"}},"count":{"type":"integer"},"missing":{"type":"array"}},"required":["records","count"]}');
PERFORM odin.register_tool('odin.aggregate_records', area => 'records', toolset => 'records', title => 'Figures over records', timeout => '20 s',
  arguments => jsonb_build_object('model', model_arg, 'domain', domain_arg, 'group_by', names || '{"maxItems":20,"description":"Fields, links by a dot, dates by period: created_at:month."}',
    'measures', names || '{"maxItems":50,"description":"count, or field:sum, avg, min, max, count, count_distinct."}', 'having', '{"type":["array","string"],"description":"Conditions on the figures: [[\"count\", \">\", 5]]."}'::jsonb,
    'order', '{"maxLength":500,"description":"A column of the answer: count desc."}'::jsonb, 'limit', '{"minimum":1,"maximum":1000}'::jsonb),
  output => '{"properties":{"model":{"type":"string"},"groups":{"type":"array","items":{"type":"object"}},"count":{"type":"integer"},"note":{"type":"string"}},"required":["groups","count"]}');
PERFORM odin.register_tool('odin.create_records', scope => 'write', area => 'records', toolset => 'records', title => 'Create records', hints => '{"destructive":false,"idempotent":false}',
  arguments => jsonb_build_object('model', model_arg, 'records', '{"type":["array","object"],"description":"Objects of field and value."}'::jsonb));
PERFORM odin.register_tool('odin.update_records', scope => 'write', area => 'records', toolset => 'records', title => 'Change records', hints => '{"destructive":true,"idempotent":true}',
  arguments => jsonb_build_object('model', model_arg, 'values', '{"type":"object","minProperties":1,"description":"Field and new value; null empties."}'::jsonb, 'ids', ids_arg, 'domain', domain_arg,
    'limit', '{"minimum":1,"maximum":1000,"description":"The most records that may change."}'::jsonb));
PERFORM odin.register_tool('odin.delete_records', scope => 'write', area => 'records', toolset => 'records', title => 'Delete records', hints => '{"destructive":true,"idempotent":true}',
  arguments => jsonb_build_object('model', model_arg, 'ids', ids_arg, 'domain', domain_arg, 'limit', '{"minimum":1,"maximum":1000,"description":"The most records that may go."}'::jsonb));

PERFORM odin.register_tool('odin.odoo_record_retriever', area => 'records', toolset => 'records', title => 'Odoo: retrieve records', timeout => '10 s',
  arguments => jsonb_build_object('model', model_arg, 'domain', domain_arg, 'fields', names, 'limit', '{"minimum":1,"maximum":1000}'::jsonb), output => '{"properties":{"result":{"type":"array","items":{"type":"object"}}},"required":["result"]}');
PERFORM odin.register_tool('odin.odoo_record_creator', scope => 'write', area => 'records', toolset => 'records', title => 'Odoo: create records', hints => '{"destructive":false,"idempotent":false}',
  arguments => jsonb_build_object('model', model_arg, 'fields', '{"type":"object","description":"One record: field and value."}'::jsonb, 'records', '{"type":"array","maxItems":1000,"items":{"type":"object"},"description":"Several records."}'::jsonb));
PERFORM odin.register_tool('odin.odoo_record_updater', scope => 'write', area => 'records', toolset => 'records', title => 'Odoo: update records', hints => '{"destructive":true,"idempotent":true}',
  arguments => jsonb_build_object('model', model_arg, 'domain', domain_arg, 'values', '{"type":"object","minProperties":1}'::jsonb, 'limit', '{"minimum":1,"maximum":1000}'::jsonb));
PERFORM odin.register_tool('odin.odoo_record_unlinker', scope => 'write', area => 'records', toolset => 'records', title => 'Odoo: delete records', hints => '{"destructive":true,"idempotent":false}',
  arguments => jsonb_build_object('model', model_arg, 'domain', domain_arg, 'limit', '{"minimum":1,"maximum":1000}'::jsonb));
PERFORM odin.register_tool('odin.odoo_model_method_executor', scope => 'write', area => 'records', toolset => 'records', title => 'Odoo: call a method', hints => '{"destructive":true,"idempotent":false}',
  arguments => jsonb_build_object('model', model_arg, 'method', '{"maxLength":64}'::jsonb, 'record_ids', '{"type":["array","integer","string"]}'::jsonb, 'args', '{"type":"array","maxItems":50}'::jsonb, 'kwargs', '{"type":"object"}'::jsonb));
PERFORM odin.register_tool('odin.odoo_model_inspector', area => 'records', toolset => 'records', title => 'Odoo: inspect a model',
  arguments => jsonb_build_object('model', model_arg, 'field_name_filter', word, 'field_type_filter', word, 'method_name_filter', word, 'method_type_filter', word, 'field_limit', '{"minimum":1,"maximum":500}'::jsonb, 'method_limit', '{"minimum":0,"maximum":200}'::jsonb),
  output => '{"properties":{"name":{"type":"string"},"model":{"type":"string"},"fields":{"type":"object"},"methods":{"type":"array"},"total_fields":{"type":"integer"},"total_methods":{"type":"integer"},"summary":{"type":"string"}},"required":["model","summary"]}');
PERFORM odin.register_tool('odin.list_approvals', area => 'registry', toolset => 'records', title => 'Calls waiting for a person', result_key => 'approvals', page_by => '{id}',
  arguments => '{"state_filter":{"enum":["pending","approved","denied","used","expired","all"]},"limit":{"minimum":1,"maximum":500},"cursor":{"maxLength":4000,"description":"next_cursor of the page before."}}');
END $reg$;

-- The record functions run as their caller, so he needs the helpers too; none of them does more than he could himself.
GRANT EXECUTE ON FUNCTION odin._closed_model(oid, boolean), odin._models_of(name, text), odin._touches(name, oid), odin._model(text, name, boolean), odin._base_type(oid), odin._type_traits(oid), odin._record_key(oid), odin._record_links(oid),
  odin._record_table(oid, name), odin._field_names(), odin._compile_records(jsonb, name), odin._blame(jsonb, text), odin._run_records(jsonb, int, int, boolean), odin._light(oid, text[]), odin._plan_shape(jsonb), odin._explain_records(jsonb),
  odin._domain_of_ids(oid, jsonb), odin._allowed_words(oid, int2), odin._model_rights(oid), odin._model_fields(oid), odin._own_org(oid, int2), odin._model_methods(oid), odin._function_arguments(oid),
  odin.list_record_models(text, int), odin.describe_model(text, text, text, boolean, boolean, int), odin.search_records(text, jsonb, text[], text, int, text, boolean), odin.read_records(text, jsonb, text[]),
  odin.aggregate_records(text, jsonb, text[], text[], jsonb, text, int), odin.odoo_record_retriever(text, jsonb, text[], int),
  odin.odoo_model_inspector(text, boolean, boolean, int, int, boolean, text, text, text, text) TO odin_viewer, odin_customer, odin_bi;
GRANT EXECUTE ON FUNCTION odin._writable(oid, text, jsonb, text), odin._naming(oid), odin._blame_value(oid, jsonb, text, text), odin._ids_of(oid, jsonb), odin._chosen(oid, jsonb, jsonb, int, boolean),
  odin._change_records(oid, jsonb, jsonb, text, jsonb, text), odin._update_records(oid, jsonb, jsonb, jsonb, int, boolean), odin._delete_records(oid, jsonb, jsonb, int, boolean),
  odin._method_arguments(oid, text, jsonb, jsonb), odin._call_method(oid, jsonb), odin._function_answer(oid), odin._argument_sql(text, oid, boolean, text), odin._argument_value(text, oid, boolean, text), odin._domain_rules(oid), odin._type_schema(oid, int), odin._row_schema(oid, int), odin._nullable(jsonb),
  odin.create_records(text, jsonb), odin.update_records(text, jsonb, jsonb, jsonb, int), odin.delete_records(text, jsonb, jsonb, int),
  odin.odoo_record_creator(text, jsonb, jsonb), odin.odoo_record_updater(text, jsonb, jsonb, int), odin.odoo_record_unlinker(text, jsonb, int), odin.odoo_model_method_executor(text, text, jsonb, jsonb, jsonb, boolean) TO odin_operator;
GRANT EXECUTE ON FUNCTION odin.list_approvals(text, int, text) TO odin_operator;
