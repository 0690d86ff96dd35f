"""One-line edits of takeovers, plans, steering, drains and moves, and the tests that notice them.

Some of these run in processes that a test starts, so each is tried in a tree of its own.
"""

from __future__ import annotations

from tests.fleet.mutants import Mutant

PREDECESSOR = "sockmgr.manager.takeover.predecessor"
SAVED = "sockmgr.manager.takeover.saved_state"
MEMORY = "sockmgr.manager.takeover.state"
SNAPSHOT = "sockmgr.fleet.snapshot"
PLAN = "sockmgr.config.plan"
POOL = "sockmgr.kernel.steering.pool"
ROUND_ROBIN = "sockmgr.kernel.steering.round_robin"
TRAFFIC = "sockmgr.manager.service.traffic"
OWNERS = "sockmgr.manager.service.owners"
DRAIN = "sockmgr.manager.listeners.queue_drain"
MOVES = "sockmgr.worker.moves"
GIVEN = "sockmgr.worker.given"
MOVED = "sockmgr.worker.moved"
QUEUES = "sockmgr.manager.workers.moves"
TAKER = "sockmgr.programs.dispatcher.moves"
TREE = "sockmgr.manager.workers.tree"

# For each module the tests that are to notice, the quickest first.
TESTS: dict[str, tuple[str, ...]] = {
    PREDECESSOR: ("manager/takeover/test_predecessor.py",),
    SAVED: ("manager/takeover/test_saved_state.py",),
    MEMORY: ("manager/takeover/test_saved_state.py",),
    SNAPSHOT: ("fleet/test_snapshot.py",),
    PLAN: ("config/test_plan.py",),
    POOL: ("kernel/test_steering.py", "kernel/test_round_robin.py", "manager/listeners"),
    ROUND_ROBIN: ("kernel/test_round_robin.py",),
    TRAFFIC: ("manager/service/test_traffic.py",),
    OWNERS: ("manager/service/test_owners.py",),
    DRAIN: ("manager/service/test_traffic.py", "manager/listeners/test_listener.py"),
    MOVES: ("worker/test_giving.py", "worker/test_moves.py", "worker/test_moving_race.py"),
    GIVEN: ("worker/test_moves.py",),
    MOVED: ("worker/test_moves.py",),
    QUEUES: ("manager/workers/test_moves.py",),
    TAKER: ("programs/dispatcher/test_moves.py",),
    TREE: ("manager/workers/test_worker.py",),
}

MUTANTS = (
    # --- What a predecessor left
    Mutant(
        "believe a state of an earlier boot",
        PREDECESSOR,
        "if found is None or found.state.boot_id != boot_id():",
        "if found is None:",
    ),
    Mutant(
        "go on with a state whose sockets are missing",
        PREDECESSOR,
        "for n in listener.inodes} - there",
        "for n in listener.inodes if n < 0}",
    ),
    Mutant(
        "go on with a state that lacks its own listeners",
        PREDECESSOR,
        "elif _lacks_listeners(found.state):",
        "elif missing and _lacks_listeners(found.state):",
    ),
    Mutant(
        "look for listeners of the config alone",
        PREDECESSOR,
        "listens = (state.config.listen, *(spec.listen for spec in specs))",
        "listens = (state.config.listen,)",
    ),
    Mutant(
        "run the launcher of another version",
        PREDECESSOR,
        "predecessor.state = _with_our_launcher(found.state)",
        "predecessor.state = found.state",
    ),
    Mutant(
        "run the launcher of another version in what waits",
        PREDECESSOR,
        "pending=service.pending and _launched(service.pending),",
        "pending=service.pending,",
    ),
    Mutant(
        "take a notify socket that has lost its path",
        PREDECESSOR,
        "if left.getsockname() == str(path) and path.is_socket():",
        "if left.getsockname() == str(path):",
    ),
    Mutant(
        "let workers inherit the queues",
        PREDECESSOR,
        "                sock.set_inheritable(False)\n",
        "",
    ),
    Mutant(
        "make the sockets of living workers block",
        PREDECESSOR,
        "if not (self.names or any(map(_WORKER.fullmatch, self.descriptors))):",
        "if not self.names:",
    ),
    Mutant(
        "count queues in the order of their texts",
        PREDECESSOR,
        "for name in sorted(named, key=_number):",
        "for name in sorted(named):",
    ),
    Mutant(
        "keep the queue that was replaced",
        PREDECESSOR,
        "wins = name not in named or queues.is_listening(renewed[0])",
        "wins = name not in named",
    ),
    Mutant(
        "take the renewed queue whether it listens or not",
        PREDECESSOR,
        "wins = name not in named or queues.is_listening(renewed[0])",
        "wins = True",
    ),
    Mutant(
        "have one end of a channel only",
        PREDECESSOR,
        "channel=(ends[0], ends[1]) if len(ends) == 2 else None,",
        "channel=(ends[0], ends[-1]) if ends else None,",
    ),
    Mutant(
        "take one that was starting for one that is ready",
        PREDECESSOR,
        "ready = told.ready or worker.state is not State.STARTING",
        "ready = True",
    ),
    Mutant(
        "forget that one had said it is ready",
        PREDECESSOR,
        "ready = told.ready or worker.state is not State.STARTING",
        "ready = worker.state is not State.STARTING",
    ),
    Mutant(
        "leave the workers of no service running",
        PREDECESSOR,
        "if _WORKER.fullmatch(name) and process.pid_of(fd):",
        "if not _WORKER.fullmatch(name) and process.pid_of(fd):",
    ),
    Mutant(
        "tell the age of a stranger by the clock of the machine",
        PREDECESSOR,
        'return started / os.sysconf("SC_CLK_TCK") - suspended',
        'return time.monotonic() - started / os.sysconf("SC_CLK_TCK")',
    ),
    # --- What is saved for the next manager, and in which order
    Mutant(
        "write the state before the descriptors are stored",
        SAVED,
        "        gone = self._look_at_listeners(present, services)\n",
        "        self._write(present)\n        gone = self._look_at_listeners(present, services)\n",
    ),
    Mutant(
        "forget descriptors before the state does",
        SAVED,
        "        if self._write(present):\n            self._forget(gone)",
        "        self._forget(gone)\n        if self._write(present):\n            pass",
    ),
    Mutant(
        "believe that the store took all",
        SAVED,
        "                self.is_complete = False\n",
        "                pass\n",
    ),
    Mutant(
        "store anew only what has changed, whatever the store could not take",
        SAVED,
        "self._is_anew = not self.is_complete",
        "self._is_anew = False",
    ),
    Mutant(
        "give a new queue the name of the one that the state on disk tells of",
        SAVED,
        "                    name += RENEWED\n",
        "                    pass\n",
    ),
    Mutant(
        "let the state wait though it names another process",
        SAVED,
        "return not renamed",
        "return True",
    ),
    Mutant(
        "take a service of the same name for the one that ended",
        SAVED,
        "if any(name in known and known[name].of is not there[name] for name in there):",
        "if any(name in known and known[name].of is None for name in there):",
    ),
    Mutant(
        "keep what a predecessor stored and nobody has now",
        SAVED,
        "gone += self._held.keys() - self._names()",
        "gone += ()",
    ),
    Mutant(
        "store a worker again whose descriptors are the same",
        SAVED,
        "if self._is_anew or saved.marks.get(id) != mark:",
        "if self._is_anew or mark:",
    ),
    Mutant(
        "write over the newer of the two states",
        MEMORY,
        "        fd = self.fds[serial % 2]\n        os.ftruncate",
        "        fd = self.fds[0]\n        os.ftruncate",
    ),
    Mutant(
        "believe a state whose bytes were damaged",
        SNAPSHOT,
        "if checksum != _checksum(body) or not serial.isdigit():",
        "if not serial.isdigit():",
    ),
    # --- What a reload would change
    Mutant(
        "say that workers need not be replaced for their command",
        PLAN,
        '{"workers": Effect.SCALE}',
        '{"workers": Effect.SCALE, "command": Effect.POLICY}',
    ),
    Mutant(
        "say that a number of workers replaces them",
        PLAN,
        '{"workers": Effect.SCALE}',
        "{}",
    ),
    Mutant(
        "show what is secret",
        PLAN,
        "elif key in _SECRET:",
        "elif key in () and _SECRET:",
    ),
    Mutant(
        "show the values of variables",
        PLAN,
        "    if not names or values not in change.text:\n",
        "    if names or values not in change.text:\n",
    ),
    Mutant(
        "keep a service that was removed",
        PLAN,
        "if s.name in known or s.name not in committed}",
        "}",
    ),
    Mutant(
        "take over the listeners of a service that was taken back",
        PLAN,
        "        if service.name in committed:\n            listens |=",
        "        if service:\n            listens |=",
    ),
    Mutant(
        "keep listeners that no service has",
        PLAN,
        "for name, listen in listens.items() if name in used),",
        "for name, listen in listens.items()),",
    ),
    Mutant(
        "overlook that the listeners of a service have changed",
        PLAN,
        "(s, [listens[name] for name in s.listen]) for",
        "(s, [name for name in s.listen if name in listens]) for",
    ),
    Mutant(
        "say that a listener which only gets another name is closed",
        PLAN,
        "if name not in after and (newer is None or newer in before):",
        "if name not in after:",
    ),
    Mutant(
        "promise a backlog to UDP",
        PLAN,
        'elif key == "backlog" and new.address.traits.is_datagram:',
        'elif key == "backlog" and not new.backlog:',
    ),
    Mutant(
        "promise a mode at a path that somebody else has bound",
        PLAN,
        'elif key != "backlog" and new.address in not_ours:',
        'elif key == "backlog" and new.address in not_ours:',
    ),
    Mutant(
        "say that a reload applies a text that is not its own",
        PLAN,
        "or own() == wanted",
        "or own() is not None",
    ),
    Mutant(
        "hold against a manager what it cannot use of a text that no reload would read",
        PLAN,
        "    if applies:\n",
        "    if True:\n",
    ),
    # --- Which queue gets a connection
    Mutant(
        "feed what has no weight",
        POOL,
        "for number, weight in weights.items() if weight > 0}",
        "for number, weight in weights.items()}",
    ),
    Mutant(
        "remember a feed that failed",
        POOL,
        "        except BaseException:\n            self._fed = before\n            raise\n",
        "        except BaseException:\n            raise\n",
    ),
    Mutant(
        "forget that the last queue moves into the free place",
        POOL,
        "            self._order[place] = last\n",
        "            self._order[place:] = [*self._order[place + 1 :], last]\n",
    ),
    Mutant(
        "feed a queue that is shut down",
        POOL,
        "fed = {number: weight for number, weight in self._fed.items() if number in up}",
        "fed = dict(self._fed)",
    ),
    Mutant(
        "attach through a queue whose filter is locked",
        POOL,
        "if not self._queues[number].getsockopt(socket.SOL_SOCKET, _LOCK_FILTER):",
        "if number in self._order:",
    ),
    Mutant(
        "leave the old queue to whoever kept it",
        POOL,
        "            old.shutdown(socket.SHUT_RDWR)\n",
        "            pass\n",
    ),
    Mutant(
        "leave what was private fed",
        POOL,
        "            del self._private[flow]\n            self._attach()\n",
        "            del self._private[flow]\n",
    ),
    Mutant(
        "begin the turns anew at each change",
        ROUND_ROBIN,
        "if order == self._order and self._listed >= 0:",
        "if order == self._order and self._listed < 0:",
    ),
    Mutant(
        "ask the kernel about a queue once for ever",
        ROUND_ROBIN,
        "        self._held.clear()\n",
        "        pass\n",
    ),
    Mutant(
        "steer after what is fed has been noted",
        TRAFFIC,
        "        self._steer(weights, leases)\n        self.give_up",
        "        before, self._fed = self._fed, dict(leases)\n"
        "        self._steer(weights, leases)\n        self._fed = before\n        self.give_up",
    ),
    Mutant(
        "go on waiting for a queue that is fed again",
        TRAFFIC,
        "        self.give_up(leases.keys() & self._owed.keys())\n        # As",
        "        # As",
    ),
    Mutant(
        "tell Quiet of an earlier wait",
        TRAFFIC,
        "if owed and self._owed.get(lease) is owed:",
        "if owed and lease in self._owed:",
    ),
    Mutant(
        "feed a queue of its own for what a dispatcher passes on",
        TRAFFIC,
        "queues[queue if lease in passed else lease] += weight",
        "queues[lease] += weight",
    ),
    Mutant(
        "give a listener to who only helps out there",
        OWNERS,
        "key=lambda n: (using[n].get(address, -1), n == took)",
        "key=lambda n: (n == took)",
    ),
    Mutant(
        "leave a listener with who was cut over first",
        OWNERS,
        "key=lambda n: (using[n].get(address, -1), n == took)",
        "key=lambda n: (using[n].get(address, -1), n != took)",
    ),
    Mutant(
        "end a service that may get its listener back",
        OWNERS,
        "if owner != name and at in settled[owner]}",
        "if owner != name}",
    ),
    Mutant(
        "have who may go back yet inherit a queue",
        OWNERS,
        "if namesakes or lease in owner.fleet.leases or not is_met:",
        "if namesakes or lease in owner.fleet.leases:",
    ),
    Mutant(
        "call a queue quiet that holds connections",
        DRAIN,
        "return queue.fileno() >= 0 and bool(queues.queued(queue))",
        "return queue.fileno() >= 0 and queues.queued(queue) > 1",
    ),
    Mutant(
        "let a queue that is fed again stay impatient",
        DRAIN,
        "                self._restore(queue)\n        return bool(self._waiting)",
        "                pass\n        return bool(self._waiting)",
    ),
    # --- Connections that outlive their worker
    Mutant(
        "keep a connection that was given",
        MOVES,
        "        transport.abort()  #",
        "        pass  #",
    ),
    Mutant(
        "give what is no connection of ours",
        MOVES,
        "if self.is_over or self._is_full or not self._is_ours(sock):",
        "if self.is_over or self._is_full:",
    ),
    Mutant(
        "give to nobody",
        MOVES,
        "            self.is_over = True\n            return\n",
        "            return\n",
    ),
    Mutant(
        "never give again after the queue was full",
        MOVES,
        "            loop.add_writer(self._give, self._has_room)\n",
        "            pass\n",
    ),
    Mutant(
        "leave what waits when the last one ends",
        MOVES,
        "            for _ in range(MOST):\n",
        "            for _ in range(0):\n",
    ),
    Mutant(
        "take though there is no room",
        MOVES,
        "        if not has_room(self._take.fileno()):\n            # It",
        "        if self._take.fileno() < 0:\n            # It",
    ),
    Mutant(
        "take a listening socket for a connection",
        GIVEN,
        "if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):",
        "if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) > 1:",
    ),
    Mutant(
        "take a connection of any listener",
        GIVEN,
        "return own[1] == listener[1] and listener[0] in (own[0], *_ANY)",
        "return listener[0] in (own[0], *_ANY)",
    ),
    Mutant(
        "begin the idle time anew",
        MOVED,
        'idle_since=_instant(told["idle_since"]),',
        "idle_since=1e18,",
    ),
    Mutant(
        "forget the client that a proxy told of",
        MOVED,
        "proxied=None if proxied is None else _proxied(proxied),",
        "proxied=None,",
    ),
    Mutant(
        "believe a number of requests that cannot be",
        MOVED,
        "if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:",
        "if not isinstance(value, int) or isinstance(value, bool):",
    ),
    Mutant(
        "let services with other listeners share a queue",
        QUEUES,
        'hashlib.sha256("\\0".join([spec.moves, *addresses]).encode())',
        'hashlib.sha256("\\0".join([spec.moves]).encode())',
    ),
    Mutant(
        "end the queue of those who take",
        QUEUES,
        "ended = self._queues.keys() - {_key(spec) for spec in takers if spec.moves}",
        "ended = set(self._queues)",
    ),
    Mutant(
        "end no queue",
        QUEUES,
        "ended = self._queues.keys() - {_key(spec) for spec in takers if spec.moves}",
        "ended = set[str]()",
    ),
    Mutant(
        "adopt half a queue",
        QUEUES,
        "if pair.keys() == {_GIVE, _TAKE} and not",
        "if _GIVE in pair and not",
    ),
    Mutant(
        "take more than can be passed on",
        TAKER,
        "        if not self._has_room():\n            self._loop",
        "        if not self._queues:\n            self._loop",
    ),
    Mutant(
        "pass on what came to another listener",
        TAKER,
        "if listener.family == sock.family and _came_to(sock, listener):",
        "if listener.family == sock.family:",
    ),
    Mutant(
        "leave what is refused open",
        TAKER,
        "            rights.close_all(fds)\n            self._refuse(why)\n",
        "            self._refuse(why)\n",
    ),
    Mutant(
        "take at rest",
        TAKER,
        "            self._loop.remove_reader(queue)\n            self._waiting.add(inode)\n"
        "        self._told.close()\n\n    def close",
        "            self._waiting.add(inode)\n        self._told.close()\n\n    def close",
    ),
    # --- The end of a worker
    Mutant(
        "tell the end of a worker again when it is killed late",
        TREE,
        "        self._is_over = True\n",
        "        self._is_over = False\n",
    ),
)
