"""Stands for any pod with hostPort 80: answers everybody, and says on its output when it was given a token."""

import http.server


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        # Of the token itself nothing is printed.
        print("token" if "Authorization" in self.headers else "request", self.client_address[0], flush=True)
        self.send_response(418)
        self.end_headers()

    def log_message(self, *_):
        pass


print("listening", flush=True)
http.server.ThreadingHTTPServer(("", 8080), Answers).serve_forever()
