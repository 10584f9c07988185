-- The knowledge tools in the registry.
DO $reg$
DECLARE
  collection_arg constant jsonb := '{"maxLength":100,"description":"Name or number of a collection (list_collections)."}';
BEGIN
PERFORM odin.register_tool('odin.knowledge_retriever', area => 'knowledge', toolset => 'knowledge', title => 'Search knowledge', timeout => '10 s',
  arguments => '{"query":{"minLength":1,"maxLength":2000,"description":"What to look for: a question or a few words."},"collection_id":{"minimum":1,"description":"Look in this collection only."},
    "top_k":{"minimum":1,"maximum":50,"description":"Most passages per resource."},"top_n":{"minimum":1,"maximum":50,"description":"Most resources."},"similarity_cutoff":{"minimum":0,"maximum":1,"description":"Leave out what is less similar."}}',
  output => '{"properties":{"query":{"type":"string"},"collection":{"type":["string","null"]},"collection_id":{"type":["integer","null"]},"results":{"type":"array","items":{"type":"object","properties":{"content":{"type":"string"},"resource_name":{"type":"string"},"resource_id":{"type":"integer"},"resource_type":{"type":"string"},"chunk_id":{"type":"integer"},"chunk_name":{"type":"string"},"similarity":{"type":"number"},"similarity_percentage":{"type":"string"}}}},"total_chunks":{"type":"integer"},"embedding_model":{"type":["string","null"]},"note":{"type":"string"}},"required":["query","results","total_chunks"]}');
PERFORM odin.register_tool('odin.find_similar_failures', area => 'knowledge', toolset => 'knowledge', title => 'Similar failures', result_key => 'failures', timeout => '10 s',
  arguments => '{"job_id":{"minimum":1,"description":"Failures like this job''s: its model and its last printer."},"model_id":{"minimum":1},"printer_id":{"minimum":1},"description":{"maxLength":2000,"description":"What it looks like, in words."},"limit":{"minimum":1,"maximum":100}}');
PERFORM odin.register_tool('odin.list_collections', area => 'knowledge', toolset => 'knowledge', title => 'List collections', result_key => 'collections');
PERFORM odin.register_tool('odin.list_documents', area => 'knowledge', toolset => 'knowledge', title => 'List documents', result_key => 'documents', page_by => '{id}',
  default_fields => '{id,title,collection_name,format,state,problem,passages,updated_at}',
  arguments => jsonb_build_object('collection', collection_arg, 'search', '{"maxLength":200,"description":"A part of the title."}'::jsonb, 'limit', '{"minimum":1,"maximum":500}'::jsonb, 'cursor', '{"maxLength":4000,"description":"next_cursor of the page before."}'::jsonb),
  next_actions => '[{"tool":"get_document","args":{"document_id":"{documents.0.id}"},"reason":"read it"}]');
PERFORM odin.register_tool('odin.get_document', area => 'knowledge', toolset => 'knowledge', title => 'Read a document',
  arguments => '{"document_id":{"minimum":1,"aliases":["id"]},"from_passage":{"minimum":0,"maximum":1000000000},"limit":{"minimum":1,"maximum":100,"description":"Passages at once."}}',
  output => '{"properties":{"document_id":{"type":"integer"},"title":{"type":"string"},"collection":{"type":"string"},"state":{"type":"string"},"problem":{"type":"string"},"url":{"type":"string"},"file_sha256":{"type":"string"},"passages":{"type":"array","items":{"type":"object"}},"passage_count":{"type":"integer"},"note":{"type":"string"}},"required":["document_id","title","passages"]}');
PERFORM odin.register_tool('odin.save_collection', scope => 'write', area => 'knowledge', toolset => 'knowledge', title => 'Save a collection', hints => '{"destructive":false,"idempotent":true}',
  arguments => '{"name":{"minLength":1,"maxLength":100},"description":{"maxLength":1000},"language":{"maxLength":30,"description":"How words are stemmed: english, german, simple, ..."}}');
PERFORM odin.register_tool('odin.add_document', scope => 'write', area => 'knowledge', toolset => 'knowledge', title => 'Add a document', hints => '{"destructive":false,"idempotent":true}',
  arguments => jsonb_build_object('title', '{"minLength":1,"maxLength":300}'::jsonb, 'content', '{"minLength":1,"maxLength":2000000,"description":"The text itself."}'::jsonb, 'collection', collection_arg,
    'format', '{"enum":["markdown","text"]}'::jsonb, 'url', '{"maxLength":2000,"description":"Where it comes from."}'::jsonb));
PERFORM odin.register_tool('odin.add_document_file', scope => 'write', area => 'knowledge', toolset => 'knowledge', title => 'Add a file as a document', hints => '{"destructive":false,"idempotent":true}',
  arguments => jsonb_build_object('file', '{"minLength":1,"maxLength":400,"description":"SHA-256, id or name of a stored file."}'::jsonb, 'title', '{"maxLength":300,"description":"Otherwise the file''s name."}'::jsonb, 'collection', collection_arg));
PERFORM odin.register_tool('odin.remove_document', scope => 'write', area => 'knowledge', toolset => 'knowledge', title => 'Remove a document', hints => '{"destructive":true,"idempotent":true}',
  arguments => '{"document_id":{"minimum":1,"aliases":["id"]}}');
END $reg$;
