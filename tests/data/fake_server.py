"""A server with just enough of the OpenAI protocol: `python fake_server.py LOG [FAILURES] [SECONDS]`, prints its port.

It rephrases by turning sentences round, answers rightly for even numbers in the question and wrongly for odd ones,
refuses its first FAILURES requests for coming too soon, the next as many with an error of its own, and takes SECONDS.
"""

import json
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    log: Path
    failures = errors = 0
    seconds = 0.0

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Handler.log.open("a") as log:
            log.write(json.dumps({"time": time.time(), "path": self.path, **body}) + "\n")
        if Handler.failures:
            Handler.failures -= 1
            self.send_response(429)
            self.send_header("Retry-After", "0.05")
            self.end_headers()
            return
        if Handler.errors:
            Handler.errors -= 1
            self.send_error(500)
            return
        time.sleep(Handler.seconds)
        prompt = body["messages"][0]["content"]
        number = int(re.findall(r"\d+", prompt.rsplit("Problem:", 1)[1])[0])
        if prompt.endswith("Rewritten:"):
            text = f"Say it otherwise: how much is twice {number}?"
        else:
            text = f"Doubling {number} gives this.\nThe answer is: {2 * number + number % 2}"
        answer = {
            "id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        }  # fmt: skip
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    Handler.log = Path(sys.argv[1])
    Handler.failures = Handler.errors = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    Handler.seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
