# `make run` and `make test` set up all they need; the second time they start at once.

BIN = .venv/bin
EXAMPLE ?= asgi

# Debian 12 has 252; it is tested, too.
SYSTEMD ?= 254 257 262

# On which Debians `make test-deb` tests packages, and which one is on the hosts of `make test-hosts`.
SUITES ?= bookworm trixie
SUITE ?= trixie

# How long `make soak` goes on.
MINUTES ?= 20

# How many schedules `make simulate` plays, and how many inputs of a kind `make fuzz` tries.
SEEDS ?= 10000
RUNS ?= 100000

.PHONY: help run test test-under-load test-systemd-matrix simulate crash-matrix soak mutants fuzz lint demo demo-canary bench man docs \
	dist torture-table test-lowest \
	deb test-deb test-hosts test-image release clean

help:
	@echo 'make run    run the manager with the example application on 127.0.0.1:8000'
	@echo 'make test   check style, types and layers, then run every test'
	@echo 'make test-under-load'
	@echo '            the same tests beside a busy loop on each core'
	@echo 'make test-systemd-matrix'
	@echo '            tests/systemd on other versions of systemd, from Debian; as root'
	@echo 'make simulate SEEDS=100000'
	@echo '            play random schedules of reloads and deaths on a pretended machine'
	@echo 'make crash-matrix'
	@echo '            kill the manager at each crash point, under load; as root, 80 minutes'
	@echo 'make mutants'
	@echo '            edit what decides in one line, many times, each of which the tests must notice'
	@echo 'make fuzz RUNS=1000000'
	@echo '            inputs that nobody meant, of each kind that comes from outside'
	@echo 'make soak MINUTES=20'
	@echo '            load, reloads of all kinds and random faults; does anything grow?'
	@echo 'make demo   reload a service under load and count what was lost'
	@echo 'make demo-canary'
	@echo '            deploy canaries under load, two of which are taken back, and count all answers'
	@echo 'make bench  measure reloads beside other tools'
	@echo 'make man    write the manual pages into build/share/man'
	@echo 'make docs   build the site into build/docs; what Sphinx complains about is an error'
	@echo 'make dist   build wheel and sdist, check and install them, and list what they need (SBOM)'
	@echo 'make release'
	@echo '            check all that a release needs, build it, and tag it; publishes nothing'
	@echo 'make torture-table'
	@echo '            torture each server, bare and under sockmgr: docs/torture.md'
	@echo 'make deb    build a package of Debian, or for the one in ROOT=DIRECTORY; needs binutils'
	@echo 'make test-lowest'
	@echo '            tests with the oldest dependencies that are allowed, by each Python that is here'
	@echo 'make test-deb'
	@echo '            install, use, upgrade under load and purge the package; as root, needs debootstrap'
	@echo 'make test-image'
	@echo '            perform the steps of the Dockerfile, and run what they make; as root, needs debootstrap'
	@echo 'make test-hosts'
	@echo '            deploy to four hosts behind an HAProxy by Ansible, under load; as root'
	@echo 'make lint   style, types and layers only'
	@echo 'make clean  remove .venv and all caches'

run: .venv/.run
	@echo
	@echo 'serving http://127.0.0.1:8000 (end it with Ctrl-C). In a second terminal, type:'
	@echo
	@echo '    curl http://127.0.0.1:8000/'
	@echo '    .venv/bin/sockmgr reload -c examples/$(EXAMPLE)/sockmgr.toml'
	@echo '    curl http://127.0.0.1:8000/'
	@echo
	@cd examples/$(EXAMPLE) && PATH="$(CURDIR)/$(BIN):$$PATH" exec sockmgr run -c sockmgr.toml

# The tests run even if lint finds something: a missing blank must not hide a failure. Three at a
# time, since many of them wait for processes more than they compute.
test: .venv/.test
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(BIN)/pytest -n 4 --dist worksteal || status=1; \
	[ $$status -eq 0 ] || echo 'make test: failed; see lint or pytest above'; \
	exit $$status

# A test that needs a quiet machine is a defect. The loops end with the shell that started them.
test-under-load: .venv/.test
	@for core in $$(seq $$(nproc)); do sh -c 'while kill -0 $$PPID; do :; done' 2>/dev/null & done; \
	status=0; \
	$(BIN)/pytest -n 4 --dist worksteal || status=1; \
	exit $$status

test-systemd-matrix: .venv/.test
	@$(BIN)/python -m tests.systemd.matrix $(SYSTEMD)

simulate: .venv/.test
	@$(BIN)/python -m tests.simulation $(SEEDS)

crash-matrix: .venv/.test
	@$(BIN)/python -m tests.crash_points

soak: .venv/.test
	@$(BIN)/python -m tests.soak --minutes $(MINUTES)

mutants: .venv/.test
	@$(BIN)/python -m tests.mutants

fuzz: .venv/.fuzz
	@$(BIN)/python -m tests.fuzz --runs $(RUNS)

lint: .venv/.test
	@status=0; \
	for check in 'ruff check .' 'ruff format --check .' mypy lint-imports; do \
		echo "$$check"; $(BIN)/$$check || status=1; \
	done; \
	exit $$status

demo: .venv/.run
	$(BIN)/python -m tests.demo

demo-canary: .venv/.test
	$(BIN)/python -m tests.demo_canary

bench: .venv/.bench
	$(BIN)/python -m tests.bench

man: .venv/.run
	$(BIN)/python docs/make_man.py build/share/man

docs: .venv/.docs
	$(BIN)/python docs/make_site.py

# The SBOM has what pip installs with the wheel, in the versions of today.
dist: .venv/.dist
	rm -rf dist build/installed
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m venv --without-pip build/installed
	$(BIN)/pip --python build/installed/bin/python install --quiet dist/*.whl
	build/installed/bin/sockmgr --version
	rm -rf build/pipx
	PIPX_HOME=$(CURDIR)/build/pipx PIPX_BIN_DIR=$(CURDIR)/build/pipx/bin \
		PIPX_MAN_DIR=$(CURDIR)/build/pipx/man PIPX_COMPLETION_DIR=$(CURDIR)/build/pipx/share \
		$(BIN)/pipx install --quiet dist/*.whl
	build/pipx/bin/sockmgr --version
	test -e build/pipx/man/man1/sockmgr-reload.1 -a -e build/pipx/man/man5/sockmgr.toml.5
	version=$$($(BIN)/hatchling version) && \
	sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml >build/pyproject.toml && \
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject build/pyproject.toml \
		--output-file dist/sockmgr-$$version.cdx.json build/installed
	cd dist && sha256sum * | tee SHA256SUMS

torture-table: .venv/.bench
	$(BIN)/python -m tests.bench.torture
	$(BIN)/python docs/make_readme.py

deb: .venv/.dist
	rm -rf build/wheel
	$(BIN)/hatchling build -t wheel -d build/wheel
	$(BIN)/python contrib/debian/make_deb.py build/wheel/*.whl dist $(ROOT)

test-lowest: .venv/.dist
	@$(BIN)/python -m tests.lowest $(TESTS)

test-deb: .venv/.test .venv/.dist
	@$(BIN)/python -m tests.packaging.debian $(SUITES)

release:
	@.ci/release

test-image: .venv/.test
	@$(BIN)/python -m tests.containers.image

test-hosts: .venv/.hosts
	@$(BIN)/python -m tests.hosts $(SUITE)

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: set up again only when the dependencies change.
.venv/.run: pyproject.toml .ci/setup
	.ci/setup examples
	@touch $@

.venv/.test: pyproject.toml .ci/setup
	.ci/setup examples,test
	@touch .venv/.run $@

.venv/.dist: .venv/.run
	.ci/setup examples,dist
	@touch $@

.venv/.docs: .venv/.run
	.ci/setup examples,docs
	@touch $@

.venv/.fuzz: .venv/.test
	.ci/setup examples,test,fuzz
	@touch $@

.venv/.hosts: .venv/.dist .venv/.test
	.ci/setup examples,hosts
	@touch $@

.venv/.bench: .venv/.test
	.ci/setup examples,test,bench
	@touch $@
