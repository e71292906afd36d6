"""Serve a source file's on_event under functions-framework, in one process that a kill -9 ends for good.

`functions-framework --debug` would serve from a child of a reloader, and without it from gunicorn's workers.
"""

import sys

import functions_framework
from werkzeug.serving import make_server

if __name__ == "__main__":
    source, port = sys.argv[1], int(sys.argv[2])
    app = functions_framework.create_app("on_event", source, "cloudevent")
    make_server("127.0.0.1", port, app, threaded=True).serve_forever(poll_interval=0.1)
