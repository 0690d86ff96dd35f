"""The lines that all units have in common, each with its reason."""

from __future__ import annotations

QUEUES = (
    "# A queue a line: for the generation that serves, the next, and those that drain.",
    "# Only the owner of a socket may add one, and that is root, not User=.",
)
TRIGGER_LIMIT = (
    "# Without this, a service that fails again and again takes the socket down with it.",
    "TriggerLimitIntervalSec=0",
)
POLL_LIMITS = (
    "# Slows down such a loop, and closes nothing.",
    "PollLimitIntervalSec=1s",
    "PollLimitBurst=5",
)
SOCKETS = (
    "# Not Requires=: the socket of a listener that came to the config later cannot be bound while",
    "# the manager holds that address itself, and would then keep each next manager from starting.",
    "# PartOf=: who stops a socket wants the port closed.",
)
START_LIMIT = (
    "# A start limit that is hit closes the sockets, too.",
    "StartLimitIntervalSec=0",
)
LIFE = (
    "Restart=always",
    "# Its workers serve meanwhile. Not sooner: one that cannot start would do nothing but start.",
    "RestartSec=1s",
    "# Only the manager is signalled. If it dies or is restarted its workers go on, and the next",
    "# one finds them in the fd store; if none can come any more, its guard drains and ends them.",
    "KillMode=process",
    "# At every start systemd sets or clears O_NONBLOCK, which is the workers', too: one that is",
    "# adopted must not hang in accept(2) because a sibling was faster.",
    "NonBlocking=yes",
    "# A worker that is killed because memory is short is replaced, as any other.",
    "OOMPolicy=continue",
    "WatchdogSec=30",
    "# The manager has deadlines of its own: a rollout ends by itself, and one service that does",
    "# not get ready is no reason to kill the others.",
    "TimeoutStartSec=infinity",
)
RESOURCES = (
    "LimitNOFILE=65536",
    "# So that new workers may boot at a lower priority, and have it raised when they are ready.",
    "LimitNICE=+0",
)
DELEGATION = (
    "# So that each worker has a cgroup of its own, with its limits; ProtectControlGroups= would",
    "# keep the manager from making one. Its user may write to no other.",
    "Delegate=yes",
)
SUBGROUP = (
    "# Beside the workers, whose limits keep the cgroup above from having a process of its own.",
    "DelegateSubgroup=manager",
)
SURVIVORS = (
    "# For workers that outlive their manager: PrivateTmp=, RemoveIPC= and DynamicUser= would take",
    "# their files, their shared memory and their user from them.",
)
HARDENING = (
    "# All of this holds for the workers, too. One that writes files needs StateDirectory= or",
    "# ReadWritePaths=, and `umask` in the config if other users are to read them.",
    "UMask=0077",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateDevices=yes",
    "PrivateMounts=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectProc=invisible",
    "CapabilityBoundingSet=",
    "# Netlink: the manager asks the kernel about half-open connections.",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "# What compiles at run time (Node, Java, PyPy, numba, callbacks of cffi) needs it to be no.",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "# Refused, not killed: programs try what they can do without.",
    "SystemCallErrorNumber=EPERM",
)
ASKING = (
    "# To ask a worker alone, by its own queue: some kernels let only root see which that is, but",
    "# bpf(2) need not know. No worker has it: the manager takes it out of what it hands on.",
    "AmbientCapabilities=CAP_BPF",
    "CapabilityBoundingSet=CAP_BPF",
)
# For root: to become users of workers, signal, see, renice them, enter or give them directories.
CAPABILITIES = "CAP_SETUID CAP_SETGID CAP_KILL CAP_SYS_PTRACE CAP_SYS_NICE CAP_DAC_READ_SEARCH"
