"""The application of edges, in a worker that says each thing as often as it happens."""

import edges

from sockmgr.worker import moves

moves.QUIET = 0.0
app = edges.app
