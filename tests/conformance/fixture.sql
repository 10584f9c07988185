-- What the MCP conformance suite expects of a server, made only with the public registry: proof that a SQL function can
-- be any tool, prompt or resource. Lives in test databases only; run by a superuser with psql.
\set ON_ERROR_STOP on
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE SCHEMA conformance;
-- odin_owner looks functions up when they are registered.
GRANT USAGE ON SCHEMA conformance TO odin_viewer, odin_owner;
INSERT INTO odin.toolsets VALUES ('conformance', 'Fixtures of the conformance suite.', true);

CREATE FUNCTION conformance.text_result(said text, failed boolean DEFAULT false) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('content', jsonb_build_array(jsonb_build_object('type', 'text', 'text', said))) || CASE WHEN failed THEN '{"isError": true}' ELSE '{}' END::jsonb $$;
CREATE FUNCTION conformance.png() RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==' $$;
CREATE FUNCTION conformance.ask(message text, field text, type text DEFAULT 'string') RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('method', 'elicitation/create', 'params', jsonb_build_object('message', message, 'requestedSchema',
    jsonb_build_object('type', 'object', 'properties', jsonb_build_object(field, jsonb_build_object('type', type)), 'required', jsonb_build_array(field)))) $$;
CREATE FUNCTION conformance.sample(prompt text, tokens int DEFAULT 100) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('method', 'sampling/createMessage', 'params', jsonb_build_object('messages',
    jsonb_build_array(jsonb_build_object('role', 'user', 'content', jsonb_build_object('type', 'text', 'text', prompt))), 'maxTokens', tokens)) $$;

-- Plain content
CREATE FUNCTION conformance.test_simple_text() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT conformance.text_result('This is a simple text response for testing.') $$;
CREATE FUNCTION conformance.test_image_content() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('content', jsonb_build_array(jsonb_build_object('type', 'image', 'data', conformance.png(), 'mimeType', 'image/png'))) $$;
CREATE FUNCTION conformance.test_audio_content() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT '{"content": [{"type": "audio", "mimeType": "audio/wav", "data": "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="}]}'::jsonb $$;
CREATE FUNCTION conformance.test_embedded_resource() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT '{"content": [{"type": "resource", "resource": {"uri": "test://embedded-resource", "mimeType": "text/plain", "text": "This is an embedded resource content."}}]}'::jsonb $$;
CREATE FUNCTION conformance.test_multiple_content_types() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('content', jsonb_build_array(
    '{"type": "text", "text": "Multiple content types test:"}'::jsonb,
    jsonb_build_object('type', 'image', 'data', conformance.png(), 'mimeType', 'image/png'),
    '{"type": "resource", "resource": {"uri": "test://mixed-content-resource", "mimeType": "application/json", "text": "{\"test\":\"data\",\"value\":123}"}}'::jsonb)) $$;
CREATE FUNCTION conformance.test_error_handling() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT conformance.text_result('This tool intentionally returns an error for testing', true) $$;
CREATE FUNCTION conformance.json_schema_2020_12_tool(name text DEFAULT NULL, address jsonb DEFAULT NULL, "contactMethod" text DEFAULT NULL, phone text DEFAULT NULL, email text DEFAULT NULL)
RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT conformance.text_result('ok') $$;
CREATE FUNCTION conformance.test_header_tool(region text, priority int DEFAULT 1) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT conformance.text_result('region ' || region || ', priority ' || priority) $$;
CREATE FUNCTION conformance.greet(name text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT conformance.text_result('Hello, ' || name || '!') $$;

-- Said while running
CREATE FUNCTION conformance.test_tool_with_progress() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM odin.progress(0, 100);   PERFORM pg_sleep(0.05);
  PERFORM odin.progress(50, 100);  PERFORM pg_sleep(0.05);
  PERFORM odin.progress(100, 100);
  RETURN conformance.text_result('done');
END $$;
CREATE FUNCTION conformance.test_tool_with_logging() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM odin.log('info', '"Tool execution started"');   PERFORM pg_sleep(0.05);
  PERFORM odin.log('info', '"Tool processing data"');     PERFORM pg_sleep(0.05);
  PERFORM odin.log('info', '"Tool execution completed"');
  RETURN conformance.text_result('done');
END $$;
CREATE FUNCTION conformance.test_logging_tool() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM odin.log('info', '"only when asked for"');
  RETURN conformance.text_result('done');
END $$;

-- Questions
CREATE FUNCTION conformance.test_sampling(prompt text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'answer'
    THEN conformance.text_result('LLM response: ' || (odin.input_responses()#>>'{answer,content,text}'))
    ELSE jsonb_build_object('input_required', jsonb_build_object('answer', conformance.sample(prompt))) END $$;
CREATE FUNCTION conformance.test_elicitation(message text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'answer'
    THEN conformance.text_result('User response: ' || (odin.input_responses()->'answer')::text)
    ELSE jsonb_build_object('input_required', jsonb_build_object('answer', jsonb_build_object('method', 'elicitation/create', 'params', jsonb_build_object('message', message, 'requestedSchema',
      '{"type": "object", "properties": {"username": {"type": "string", "description": "User''s response"}, "email": {"type": "string", "description": "User''s email address"}}, "required": ["username", "email"]}'::jsonb)))) END $$;
CREATE FUNCTION conformance.elicit_schema(message text, schema jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'answer'
    THEN conformance.text_result(format('Elicitation completed: action=%s, content=%s', odin.input_responses()#>>'{answer,action}', odin.input_responses()#>'{answer,content}'))
    ELSE jsonb_build_object('input_required', jsonb_build_object('answer', jsonb_build_object('method', 'elicitation/create', 'params', jsonb_build_object('message', message, 'requestedSchema', schema)))) END $$;
CREATE FUNCTION conformance.test_elicitation_sep1034_defaults() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT conformance.elicit_schema('Please review', '{"type": "object", "required": [], "properties": {
    "name": {"type": "string", "default": "John Doe"}, "age": {"type": "integer", "default": 30}, "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"}, "verified": {"type": "boolean", "default": true}}}') $$;
CREATE FUNCTION conformance.test_elicitation_sep1330_enums() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT conformance.elicit_schema('Please choose', '{"type": "object", "required": [], "properties": {
    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
    "titledSingle": {"type": "string", "oneOf": [{"const": "value1", "title": "First Option"}, {"const": "value2", "title": "Second Option"}, {"const": "value3", "title": "Third Option"}]},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
    "titledMulti": {"type": "array", "items": {"anyOf": [{"const": "value1", "title": "First Choice"}, {"const": "value2", "title": "Second Choice"}, {"const": "value3", "title": "Third Choice"}]}}}}') $$;
CREATE FUNCTION conformance.test_missing_capability() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('input_required', jsonb_build_object('answer', conformance.sample('Anything'))) $$;
CREATE FUNCTION conformance.test_streaming_elicitation() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('input_required', jsonb_build_object('answer', conformance.ask('Anything?', 'answer'))) $$;
CREATE FUNCTION conformance.test_input_required_result_elicitation() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses()#>>'{user_name,action}' = 'accept' AND jsonb_typeof(odin.input_responses()#>'{user_name,content,name}') = 'string'
    THEN conformance.text_result('Hello, ' || (odin.input_responses()#>>'{user_name,content,name}') || '!')
    ELSE jsonb_build_object('input_required', jsonb_build_object('user_name', conformance.ask('What is your name?', 'name'))) END $$;
CREATE FUNCTION conformance.test_input_required_result_sampling() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'capital_question' THEN conformance.text_result(odin.input_responses()#>>'{capital_question,content,text}')
    ELSE jsonb_build_object('input_required', jsonb_build_object('capital_question', conformance.sample('What is the capital of France?'))) END $$;
CREATE FUNCTION conformance.test_input_required_result_list_roots() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'client_roots' THEN conformance.text_result('Roots: ' || (odin.input_responses()#>'{client_roots,roots}')::text)
    ELSE '{"input_required": {"client_roots": {"method": "roots/list", "params": {}}}}' END $$;
CREATE FUNCTION conformance.test_input_required_result_request_state() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'confirm' AND odin.request_state() = '{"round": 1}' THEN conformance.text_result('state-ok')
    ELSE jsonb_build_object('input_required', jsonb_build_object('confirm', conformance.ask('Please confirm', 'ok', 'boolean')), 'state', '{"round": 1}'::jsonb) END $$;
CREATE FUNCTION conformance.test_input_required_result_tampered_state() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT conformance.test_input_required_result_request_state() $$;
CREATE FUNCTION conformance.test_input_required_result_multiple_inputs() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ?& '{user_name,greeting,client_roots}' AND odin.request_state() IS NOT NULL THEN conformance.text_result('all there')
    ELSE jsonb_build_object('state', '"asked"'::jsonb, 'input_required', jsonb_build_object('user_name', conformance.ask('What is your name?', 'name'),
      'greeting', conformance.sample('Generate a greeting', 50), 'client_roots', '{"method": "roots/list", "params": {}}'::jsonb)) END $$;
CREATE FUNCTION conformance.test_input_required_result_capabilities() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT conformance.test_input_required_result_multiple_inputs() $$;
CREATE FUNCTION conformance.test_input_required_result_multi_round() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN odin.request_state()->>'step' = '2' AND odin.input_responses() ? 'step2' THEN
      conformance.text_result((odin.request_state()->>'name') || ' likes ' || (odin.input_responses()#>>'{step2,content,color}'))
    WHEN odin.request_state()->>'step' = '1' AND odin.input_responses() ? 'step1' THEN
      jsonb_build_object('input_required', jsonb_build_object('step2', conformance.ask('Step 2: What is your favorite color?', 'color')),
        'state', jsonb_build_object('step', 2, 'name', odin.input_responses()#>>'{step1,content,name}'))
    ELSE jsonb_build_object('input_required', jsonb_build_object('step1', conformance.ask('Step 1: What is your name?', 'name')), 'state', '{"step": 1}'::jsonb) END $$;

-- Lists that change. What a key may see changes with its rights; the notice is the registry's own.
CREATE FUNCTION conformance.extra_tool() RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT conformance.text_result('extra') $$;
CREATE FUNCTION conformance.extra_prompt() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'extra' $$;
CREATE FUNCTION conformance.toggle(function regprocedure) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF has_function_privilege('odin_viewer', function, 'EXECUTE') THEN
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM odin_viewer', function);
  ELSE
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO odin_viewer', function);
  END IF;
  NOTIFY odin_registry;
  RETURN conformance.text_result('changed');
END $$;
CREATE FUNCTION conformance.test_trigger_tool_change() RETURNS jsonb LANGUAGE sql VOLATILE AS $$ SELECT conformance.toggle('conformance.extra_tool()') $$;
CREATE FUNCTION conformance.test_trigger_prompt_change() RETURNS jsonb LANGUAGE sql VOLATILE AS $$ SELECT conformance.toggle('conformance.extra_prompt()') $$;

-- Tasks
CREATE FUNCTION conformance.slow_compute(seconds numeric DEFAULT 1, label text DEFAULT '') RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM pg_sleep(seconds::float8);
  RETURN conformance.text_result('computed ' || label);
END $$;
CREATE FUNCTION conformance.failing_job() RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  PERFORM pg_sleep(0.2);
  RETURN conformance.text_result('the job failed', true);
END $$;
CREATE FUNCTION conformance.protocol_error_job() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT '{"protocol_error": {"code": -32603, "message": "the job broke"}}'::jsonb $$;
CREATE FUNCTION conformance.confirm_delete(filename text DEFAULT 'file') RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'confirm' THEN conformance.text_result('answer: ' || (odin.input_responses()#>>'{confirm,action}'))
    ELSE jsonb_build_object('input_required', jsonb_build_object('confirm', conformance.ask('Delete ' || filename || '?', 'confirm', 'boolean'))) END $$;
CREATE FUNCTION conformance.multi_input() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ?& '{first,second}' THEN conformance.text_result('both answered')
    ELSE jsonb_build_object('input_required', jsonb_build_object('first', conformance.ask('First?', 'a'), 'second', conformance.ask('Second?', 'b'))) END $$;
CREATE FUNCTION conformance.greet_later(name text) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT conformance.greet(name) $$;
CREATE FUNCTION conformance.test_tool_with_task() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'user_name'
    THEN jsonb_build_object('task', odin.start_tool_task('greet_later', jsonb_build_object('name', odin.input_responses()#>>'{user_name,content,name}')))
    ELSE jsonb_build_object('input_required', jsonb_build_object('user_name', conformance.ask('What is your name?', 'name'))) END $$;

DO $$
DECLARE
  f record;
BEGIN
  FOR f IN SELECT p.proname, p.oid::regprocedure AS signature, p.provolatile FROM pg_proc p
            WHERE p.pronamespace = 'conformance'::regnamespace
              AND p.proname NOT IN ('text_result', 'png', 'ask', 'sample', 'elicit_schema', 'extra_prompt', 'toggle') LOOP
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', f.signature, 'Fixture of the conformance suite: ' || f.proname || '.');
    PERFORM odin.register_tool(f.signature::text, raw => true, area => 'test', toolset => 'conformance',
      scope => CASE WHEN f.provolatile = 'v' THEN 'write' ELSE 'read' END,
      previewable => f.provolatile <> 'v', timeout => interval '2 min',
      task => CASE WHEN f.proname = 'failing_job' THEN 'required'
                   WHEN f.proname IN ('slow_compute', 'protocol_error_job', 'confirm_delete', 'multi_input', 'greet_later') THEN 'optional' ELSE 'no' END,
      arguments => CASE f.proname WHEN 'test_header_tool' THEN '{"region": {"x-mcp-header": "Region"}, "priority": {"x-mcp-header": "Priority"}}' ELSE '{}' END::jsonb,
      input => CASE f.proname WHEN 'json_schema_2020_12_tool' THEN
        '{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
          "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}},
          "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}, "contactMethod": {"type": "string", "enum": ["phone", "email"]}, "phone": {"type": "string"}, "email": {"type": "string"}},
          "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
          "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]}, "then": {"required": ["phone"]}, "else": {"required": ["email"]},
          "additionalProperties": false}'::jsonb END);
  END LOOP;
END $$;

-- Prompts
CREATE FUNCTION conformance.test_simple_prompt() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'This is a simple prompt for testing.' $$;
CREATE FUNCTION conformance.test_prompt_with_arguments(arg1 text, arg2 text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('Prompt with arguments: arg1=''%s'', arg2=''%s''', arg1, arg2) $$;
CREATE FUNCTION conformance.test_prompt_with_embedded_resource("resourceUri" text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_array(
    jsonb_build_object('role', 'user', 'content', jsonb_build_object('type', 'resource', 'resource', jsonb_build_object('uri', "resourceUri", 'mimeType', 'text/plain', 'text', 'Embedded resource content for testing.'))),
    '{"role": "user", "content": {"type": "text", "text": "Please process the embedded resource above."}}'::jsonb) $$;
CREATE FUNCTION conformance.test_prompt_with_image() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_array(jsonb_build_object('role', 'user', 'content', jsonb_build_object('type', 'image', 'data', conformance.png(), 'mimeType', 'image/png')),
    '{"role": "user", "content": {"type": "text", "text": "Please analyze the image above."}}'::jsonb) $$;
CREATE FUNCTION conformance.test_input_required_result_prompt() RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN odin.input_responses() ? 'user_context'
    THEN jsonb_build_array(jsonb_build_object('role', 'user', 'content', jsonb_build_object('type', 'text', 'text', 'Context: ' || (odin.input_responses()#>>'{user_context,content,context}'))))
    ELSE jsonb_build_object('input_required', jsonb_build_object('user_context', conformance.ask('What context should the prompt use?', 'context'))) END $$;
DO $$
DECLARE
  f record;
BEGIN
  FOR f IN SELECT p.proname, p.oid::regprocedure AS signature FROM pg_proc p WHERE p.pronamespace = 'conformance'::regnamespace AND p.proname LIKE '%prompt%'
              AND p.proname NOT LIKE '%trigger%' LOOP
    PERFORM odin.register_prompt(f.signature::text, description => 'Fixture of the conformance suite: ' || f.proname || '.', area => 'test');
  END LOOP;
END $$;

-- Resources
CREATE FUNCTION conformance.static_text() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'This is the content of the static text resource.' $$;
CREATE FUNCTION conformance.static_binary() RETURNS bytea LANGUAGE sql STABLE AS $$ SELECT decode(conformance.png(), 'base64') $$;
CREATE FUNCTION conformance.watched() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'watched' $$;
CREATE FUNCTION conformance.template_data(id text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('{"id":"%s","templateTest":true,"data":"Data for ID: %s"}', id, id) $$;
SELECT odin.register_resource('test://static-text', 'conformance.static_text', name => 'static_text', description => 'A text that never changes.', mime_type => 'text/plain', area => 'test'),
       odin.register_resource('test://static-binary', 'conformance.static_binary', name => 'static_binary', description => 'A picture.', mime_type => 'image/png', area => 'test'),
       odin.register_resource('test://watched-resource', 'conformance.watched', name => 'watched', description => 'To subscribe to.', mime_type => 'text/plain', area => 'test'),
       odin.register_resource('test://template/{id}/data', 'conformance.template_data', name => 'template_data', description => 'Data by id.', area => 'test');

GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA conformance TO odin_viewer;
