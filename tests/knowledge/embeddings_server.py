"""A small real model (all-MiniLM-L6-v2) behind an OpenAI-compatible /v1/embeddings on loopback, in numpy alone.

embeddings_server.py PORT MODEL_FOLDER [--dimensions N] [--log FILE]; the key it wants is in EMBED_KEY.
POST /fail {"times": n, "status": s} makes the next n requests fail; GET /stats tells how many requests and texts came.
"""

import argparse
import json
import os
import pathlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer


class Model:
    def __init__(self, folder, dimensions):
        self.w = load_file(str(folder / "model.safetensors"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()
        self.config = json.loads((folder / "config.json").read_text())
        self.dimensions = dimensions

    def norm(self, x, name):
        mean = x.mean(-1, keepdims=True)
        spread = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(spread + 1e-12) * self.w[name + ".weight"] + self.w[name + ".bias"]

    def dense(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def vectors(self, texts):
        coded = self.tokenizer.encode_batch(texts)
        ids = np.array([c.ids for c in coded])
        mask = np.array([c.attention_mask for c in coded], dtype=np.float32)
        rows, length = ids.shape
        heads = self.config["num_attention_heads"]
        x = self.w["embeddings.word_embeddings.weight"][ids] + self.w["embeddings.position_embeddings.weight"][:length] + self.w["embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "embeddings.LayerNorm")
        hidden = (1 - mask)[:, None, None, :] * -1e9
        for n in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{n}."
            split = lambda name: self.dense(x, at + "attention.self." + name).reshape(rows, length, heads, -1).transpose(0, 2, 1, 3)
            q, k, v = split("query"), split("key"), split("value")
            score = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]) + hidden
            score = np.exp(score - score.max(-1, keepdims=True))
            score /= score.sum(-1, keepdims=True)
            mixed = (score @ v).transpose(0, 2, 1, 3).reshape(rows, length, -1)
            x = self.norm(x + self.dense(mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
            y = self.dense(x, at + "intermediate.dense")
            y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
            x = self.norm(x + self.dense(y, at + "output.dense"), at + "output.LayerNorm")
        pooled = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        pooled = pooled[:, : self.dimensions]
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = {"requests": 0, "texts": 0, "fail": 0, "status": 503, "largest": 0}
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, self.state)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/fail":
            self.state.update(fail=asked["times"], status=asked.get("status", 503))
            return self.answer(200, {})
        if self.path != "/v1/embeddings":
            return self.answer(404, {"error": {"message": "no such path"}})
        if os.environ.get("EMBED_KEY") and self.headers.get("Authorization") != "Bearer " + os.environ["EMBED_KEY"]:
            return self.answer(401, {"error": {"message": "wrong key"}})
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        with self.lock:
            self.state["requests"] += 1
            self.state["texts"] += len(texts)
            self.state["largest"] = max(self.state["largest"], len(texts))
            if self.state["fail"] > 0:
                self.state["fail"] -= 1
                return self.answer(self.state["status"], {"error": {"message": "made to fail"}})
            if any("POISON" in t for t in texts):
                return self.answer(400, {"error": {"message": "this text is not welcome"}})
            vectors = self.model.vectors(texts)
        self.answer(200, {"object": "list", "model": asked["model"], "data": [{"object": "embedding", "index": i, "embedding": [float(x) for x in v]} for i, v in enumerate(vectors)]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--dimensions", type=int, default=384)
    options = parser.parse_args()
    Handler.model = Model(options.folder, options.dimensions)
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
