"""Drives sidecars with and without an embedding endpoint over HTTP and looks into the database; one line a test. Standard library only.
drive.py words | meaning | another"""
import csv, json, os, pathlib, subprocess, sys, time, traceback, urllib.error, urllib.request, zlib

HERE = pathlib.Path(__file__).resolve().parent
BASE, KEY, VIEWER = os.environ["BASE"], os.environ["KEY"], os.environ["VIEWER"]
ENDPOINT = os.environ.get("ENDPOINT", "")


def http(method, path, body=None, key=KEY, headers=None):
    request = urllib.request.Request((path if path.startswith("http") else BASE + path), data=body, method=method, headers=dict(headers or {}))
    if key:
        request.add_header("Authorization", "Bearer " + key)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def call(tool, key=KEY, **arguments):
    _, body = http("POST", "/api/v1/tools/" + tool, json.dumps(arguments).encode(), key, {"Content-Type": "application/json"})
    return json.loads(body)


def code(answer):
    return answer.get("error", {}).get("code")


def sql(text):
    done = subprocess.run([os.environ["PSQL"], "-XAtq", "-v", "ON_ERROR_STOP=1", os.environ["DATABASE"]], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def stats():
    return json.loads(http("GET", ENDPOINT + "/stats", key=None)[1])


def fail(times, status=503):
    http("POST", ENDPOINT + "/fail", json.dumps({"times": times, "status": status}).encode(), None)


def wait_for(what, condition, seconds=180):
    until = time.time() + seconds
    while time.time() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain for " + what)


def waiting():
    return int(sql("SELECT count(*) FROM odin_private.embed_queue"))


def recall():
    """Share of the labelled questions whose passage is among the first three, by kind of question."""
    found = {}
    documents = next(c["id"] for c in call("list_collections", VIEWER)["collections"] if c["name"] == "documents")
    with open(HERE / "set/questions.tsv") as f:
        for kind, question, section in csv.reader(f, delimiter="\t"):
            answer = call("knowledge_retriever", VIEWER, query=question, collection_id=documents, top_k=3, top_n=3, similarity_cutoff=0)
            hit = any(r["chunk_name"].split(" > ")[-1].split(": ")[-1] == section for r in answer["results"][:3])
            found.setdefault(kind, []).append(hit)
            found.setdefault("all", []).append(hit)
            if not hit:
                print(f"  missed ({kind}): {question}")
    shares = {kind: sum(hits) / len(hits) for kind, hits in found.items()}
    print("  recall@3", ", ".join(f"{k} {sum(h)}/{len(h)}" for k, h in found.items()))
    return shares


def pdf(pages):
    """A small PDF with a page per text, its streams packed."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", None, b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"]
    kids = []
    for text in pages:
        lines = b" ".join(b"(" + line.encode("latin-1").replace(b"(", b"\\(").replace(b")", b"\\)") + b") Tj 0 -14 Td" for line in text.split("\n"))
        stream = zlib.compress(b"BT /F1 11 Tf 50 780 Td " + lines + b" ET")
        objects.append(b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>" % len(objects))
        kids.append(len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(b"%d 0 R" % k for k in kids), len(kids))
    out, places = b"%PDF-1.5\n", []
    for n, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (n, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + b"".join(b"%010d 00000 n \n" % p for p in places)
    return out + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


WORDS, MEANING, ANOTHER = [], [], []


def phase(tests):
    def note(f):
        tests.append(f)
        return f
    return note


@phase(WORDS)
def documents_are_added_as_text_markdown_and_files():
    first = call("add_document", title="Handbook", content=(HERE / "set/handbook.md").read_text())
    assert first["state"] == "ready" and first["passages"] == 12, first
    again = call("add_document", title="Handbook", content=(HERE / "set/handbook.md").read_text())
    assert again["document_id"] == first["document_id"], again
    for name in ("office.md", "errors.md"):
        assert http("PUT", "/files/docs/" + name, (HERE / "set" / name).read_bytes())[0] == 201
        added = call("add_document_file", file="docs/" + name)
        assert added["state"] == "ready" and added["characters"] > 500, added
    listed = call("list_documents", VIEWER)["documents"]
    assert [(d["title"], d["state"], d["passages"]) for d in listed] == [("errors.md", "ready", 6), ("office.md", "ready", 9), ("Handbook", "ready", 12)], listed
    read = call("get_document", VIEWER, document_id=first["document_id"], limit=2)
    assert len(read["passages"]) == 2 and "go on with from_passage 2" in read["note"], read


@phase(WORDS)
def a_pdf_is_read_page_by_page_and_a_damaged_one_says_so():
    body = pdf(["Spindle bearings are packed with white grease.\nThe retaining ring has a left hand thread.", "Page two tells of the zirconia crucible."])
    assert http("PUT", "/files/docs/spindle.pdf", body)[0] == 201
    added = call("add_document_file", file="docs/spindle.pdf", title="Spindle manual")
    assert added["state"] == "ready", added
    found = call("knowledge_retriever", VIEWER, query="zirconia crucible")["results"]
    assert found[0]["chunk_name"] == "Spindle manual: page 2" and found[0]["resource_name"] == "Spindle manual", found
    for name, bad in (("cut.pdf", body[: len(body) // 2]), ("no.pdf", b"this is no PDF at all"), ("bytes.txt", b"\xff\xfe\x00abc")):
        assert http("PUT", "/files/docs/" + name, bad)[0] == 201
        said = call("add_document_file", file="docs/" + name)
        assert code(said) == "file_unreadable", said
    states = {d["title"]: d["state"] for d in call("list_documents", VIEWER)["documents"]}
    assert states["cut.pdf"] == states["no.pdf"] == states["bytes.txt"] == "unreadable", states
    for d in call("list_documents", VIEWER)["documents"]:
        if d["state"] == "unreadable" or d["title"] == "Spindle manual":
            assert call("remove_document", document_id=d["id"])["removed"] is True
    assert code(call("add_document_file", file="docs/nothing.pdf")) == "file_not_found"


@phase(WORDS)
def without_an_endpoint_words_and_spelling_answer_and_say_so():
    answer = call("knowledge_retriever", VIEWER, query="what torque for the nozzle")
    assert list(answer) and set(answer) == {"query", "collection", "collection_id", "results", "total_chunks", "embedding_model", "note"}, answer
    assert "no embedding endpoint" in answer["note"] and answer["embedding_model"] is None
    assert {"content", "resource_name", "resource_id", "chunk_id", "chunk_name", "similarity", "similarity_percentage"} <= set(answer["results"][0])
    shares = recall()
    assert shares["words"] >= 0.9 and shares["spelling"] >= 0.8, shares


@phase(WORDS)
def every_argument_of_the_retriever_counts():
    few = call("knowledge_retriever", VIEWER, query="resin gloves customer parts", top_n=1, top_k=2, similarity_cutoff=0)
    assert len({r["resource_id"] for r in few["results"]}) == 1 and few["total_chunks"] <= 2, few
    strict = call("knowledge_retriever", VIEWER, query="resin gloves zeppelin ocarina", similarity_cutoff=0.9)
    assert strict["total_chunks"] == 0, strict
    made = call("save_collection", name="Manuals", language="german")
    call("add_document", title="Anleitung", content="Die Düsen werden mit einem Messingdraht gereinigt.", collection="manuals")
    only = call("knowledge_retriever", VIEWER, query="Düse reinigen", collection_id=made["collection_id"])
    assert only["collection"] == "Manuals" and only["results"][0]["resource_name"] == "Anleitung", only
    assert code(call("knowledge_retriever", VIEWER, query="x", collection_id=9999)) == "collection_not_found"
    assert code(call("save_collection", name="x", language="klingon")) == "validation_failed"
    assert code(call("add_document", title="x", content="y", collection="manual")) == "collection_not_found"
    assert code(call("add_document", title="x", content="y", collection="farm records")) == "validation_failed"
    assert code(call("add_document", VIEWER, title="x", content="y")) in ("permission_denied", "scope_denied")


@phase(WORDS)
def the_farms_own_records_keep_themselves_up_to_date():
    sql("""DO $$
      DECLARE org bigint := (SELECT id FROM odin.orgs WHERE name = 'Demo Farm'); r odin.runs;
      BEGIN
        SELECT x.* INTO r FROM odin.runs x WHERE x.org_id = org AND x.status = 'failed' ORDER BY id LIMIT 1;
        IF r.id IS NULL THEN RAISE EXCEPTION 'the demo farm has no failed run'; END IF;
        UPDATE odin.runs SET fail_notes = 'corner lifted like a banana after two hours' WHERE id = r.id;
      END $$""")
    found = call("knowledge_retriever", VIEWER, query="corner lifted banana")["results"]
    assert found and found[0]["resource_type"] == "run", found
    failed = call("find_similar_failures", VIEWER, description="banana corner")["failures"]
    assert failed[0]["run_id"] == found[0]["resource_id"] and failed[0]["why"] == "sounds alike", failed
    model, printer = sql(f"SELECT model_id, printer_id FROM odin.runs WHERE id = {failed[0]['run_id']}").split("|")
    same = call("find_similar_failures", VIEWER, model_id=int(model), printer_id=int(printer))["failures"]
    assert same[0]["why"].startswith("same model on the same printer"), same
    job = sql(f"SELECT job_id FROM odin.runs WHERE id = {failed[0]['run_id']}")
    assert call("find_similar_failures", VIEWER, job_id=int(job))["failures"][0]["why"].startswith("same model on the same printer")
    assert code(call("find_similar_failures", VIEWER)) == "validation_failed"
    name = sql(f"UPDATE odin.models SET notes = 'turbine housing with a splined bore' WHERE id = {model} RETURNING name")
    found = call("knowledge_retriever", VIEWER, query="splined bore turbine")["results"]
    assert found[0]["resource_type"] == "model" and found[0]["resource_id"] == int(model) and name in found[0]["content"], found
    sql(f"UPDATE odin.models SET notes = NULL WHERE id = {model}")
    assert call("knowledge_retriever", VIEWER, query="splined bore turbine")["results"] == []


@phase(WORDS)
def a_preview_of_a_document_keeps_nothing():
    seen = call("add_document", title="Only shown", content="A quokka in the workshop.", dry_run=True)
    assert seen["dry_run"] is True and seen["would_execute"]["passages"] == 1, seen
    assert call("knowledge_retriever", VIEWER, query="quokka")["results"] == []


@phase(WORDS)
def a_role_of_two_orgs_finds_nothing_of_the_other_48():
    sql((HERE / "access.sql").read_text())
    said = sql("SET ROLE know_clerk; SELECT count(*) || ' of ' || (SELECT string_agg(DISTINCT c->>'content', '; ' ORDER BY c->>'content') FROM jsonb_array_elements(r->'results') c) FROM odin.call('knowledge_retriever', '{\"query\": \"walrus\", \"top_n\": 50, \"top_k\": 50, \"similarity_cutoff\": 0}') r GROUP BY r")
    assert said == "1 of The walrus of Know 31 sleeps.; The walrus of Know 7 sleeps.", said
    leaks = sql("SELECT * FROM know_leaks()")
    assert leaks == "", leaks


@phase(MEANING)
def vectors_are_made_in_batches_for_what_was_there_before():
    wait_for("the back-fill", lambda: sql("SELECT count(*) FROM odin.embedding_models WHERE is_active") == "1" and waiting() == 0, 600)
    assert sql("SELECT count(*) FROM odin.chunks c WHERE NOT EXISTS (SELECT 1 FROM odin.embeddings e WHERE e.chunk_id = c.id)") == "0"
    wait_for("vectors of tools", lambda: sql("SELECT count(*) = (SELECT count(*) FROM odin.tools WHERE active AND kind = 'tool') FROM odin_private.tool_embeddings") == "t", 600)
    seen = stats()
    assert 1 < seen["largest"] <= 16, seen
    collections = call("list_collections", VIEWER)["collections"]
    assert all(c["without_vector"] == 0 and c["embedding_model"] == "all-minilm" for c in collections), collections
    assert sql("SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'embeddings_of_%' AND indexdef LIKE '%hnsw%(384)%'") == "1"


@phase(MEANING)
def recall_with_vectors_is_better_than_without():
    shares = recall()
    assert shares["all"] >= 0.85 and shares["meaning"] >= 0.75 and shares["words"] >= 0.9, shares
    answer = call("knowledge_retriever", VIEWER, query="my print comes loose from the plate", similarity_cutoff=0.2)
    assert answer["embedding_model"] == "all-minilm" and "note" not in answer, answer


@phase(MEANING)
def only_changed_passages_get_new_vectors():
    before = stats()["texts"]
    text = (HERE / "set/handbook.md").read_text()
    call("add_document", title="Handbook", content=text.replace("Purge 35 g", "Purge 40 g"))
    wait_for("the new vector", lambda: waiting() == 0)
    assert stats()["texts"] == before + 1, (before, stats())


@phase(MEANING)
def a_failing_endpoint_is_asked_again_and_a_bad_text_does_not_hold_up_others():
    fail(3)
    call("add_document", title="Later", content="# One\nHedgehog alpha.\n\n# Two\nHedgehog POISON beta.\n\n# Three\nHedgehog gamma.")
    wait_for("vectors after the outage", lambda: sql("SELECT count(*) FROM odin.embeddings e JOIN odin.chunks c ON c.id = e.chunk_id WHERE c.name LIKE 'Later%'") == "2")
    # Before that it was the outage.
    wait_for("the reason", lambda: "not welcome" in sql("SELECT problem FROM odin_private.embed_queue"))
    found = call("knowledge_retriever", VIEWER, query="hedgehog poison", similarity_cutoff=0)["results"]
    assert any("POISON" in r["content"] for r in found), found
    call("remove_document", document_id=int(sql("SELECT id FROM odin.documents WHERE title = 'Later'")))
    assert waiting() == 0


@phase(MEANING)
def failures_and_tools_are_found_by_meaning():
    sql("UPDATE odin.runs SET fail_notes = 'the object detached from the heated plate and was dragged around' WHERE id = (SELECT min(id) FROM odin.runs WHERE status = 'failed')")
    wait_for("the vector of the run", lambda: waiting() == 0)
    found = call("find_similar_failures", VIEWER, description="part came off the bed")["failures"]
    assert str(found[0]["run_id"]) == sql("SELECT min(id) FROM odin.runs WHERE status = 'failed'"), found
    for question, tool in (("something broke the last time we made this", "find_similar_failures"), ("throw away a plastic reel that is used up", "delete_spool|retire_spool|void_spool|consume_spool|update_spool|empty_spool"), ("stop the machine for a moment", "pause_printer|octoprint_pause")):
        names = [t["name"] for t in call("search_tools", query=question, limit=8)["tools"]]
        assert any(n in tool.split("|") for n in names), (question, names)


@phase(MEANING)
def a_question_is_not_held_up_by_a_silent_endpoint():
    fail(1)
    answer = call("knowledge_retriever", VIEWER, query="a question nobody asked before about nozzle wrench", similarity_cutoff=0)
    assert "503" in answer["note"] and answer["results"], answer
    answer = call("knowledge_retriever", VIEWER, query="another question about nozzle wrench")
    assert "a moment ago" in answer["note"], answer
    said = json.loads(sql("SET ROLE demo_viewer; SELECT odin.call('knowledge_retriever', '{\"query\": \"nozzle\"}')"))
    assert "brought no vector" in said["note"], said


@phase(MEANING)
def another_model_does_not_push_in():
    assert json.loads(sql("SET SESSION AUTHORIZATION odin_worker; SELECT odin.worker_embedder('other', 128)"))["ok"] is False
    assert sql("SELECT name FROM odin.embedding_models WHERE is_active") == "all-minilm"


@phase(ANOTHER)
def a_changed_model_embeds_everything_anew():
    wait_for("the new model", lambda: sql("SELECT name FROM odin.embedding_models WHERE is_active") == "all-minilm-128" and waiting() == 0, 600)
    wait_for("vectors of tools", lambda: sql("SELECT count(*) = (SELECT count(*) FROM odin.tools WHERE active AND kind = 'tool') FROM odin_private.tool_embeddings") == "t", 600)
    assert sql("SELECT count(*) FROM odin.chunks c WHERE NOT EXISTS (SELECT 1 FROM odin.embeddings e JOIN odin.embedding_models m ON m.id = e.model_id AND m.dimensions = 128 WHERE e.chunk_id = c.id)") == "0"
    assert sql("SELECT count(*) FROM odin.embeddings e JOIN odin.embedding_models m ON m.id = e.model_id WHERE m.dimensions = 384") == "0"
    assert sql("SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'embeddings_of_%'") == "1"
    answer = call("knowledge_retriever", VIEWER, query="greasing the guides", similarity_cutoff=0)
    assert answer["embedding_model"] == "all-minilm-128" and answer["results"], answer


def main():
    bad = 0
    for one in {"words": WORDS, "meaning": MEANING, "another": ANOTHER}[sys.argv[1]]:
        name = one.__name__.replace("_", " ")
        try:
            one()
            print("ok " + name, flush=True)
        except Exception:
            bad += 1
            print("NOT OK " + name, flush=True)
            print("\n".join("  " + line for line in traceback.format_exc().splitlines()[-6:]), flush=True)
    sys.exit(bad > 0)


main()
