# Each target sets up what it needs; a second run skips what is done.
PY := .venv/bin/python
export OMP_NUM_THREADS ?= 2
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test test-all test-robots test-robots-all check doctor bench-peers

setup:
	@bash .ci/setup.sh

demo: setup
	@$(PY) -m premotor demo

test: setup
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 -m "not slow" tests

test-all: setup
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 tests

# The vendors' own drivers against simulated controllers, in environments of their own. PLANS=n streams n random plans.
test-robots: setup
	@bash .ci/robots.sh
	@OMP_NUM_THREADS=1 PREMOTOR_ROBOTS_REQUIRED=1 .venv-robots/bin/python -m pytest tests/hardware

test-robots-all:
	@PLANS=200 $(MAKE) --no-print-directory test-robots

check: setup
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m pyright
	@.venv/bin/lint-imports
	@$(PY) .ci/readme_commands.py

doctor: setup
	@$(PY) -m premotor doctor

# Our planners beside other people's; ARGS="episodes=20 search.problems=[latent]" overrides. A killed run goes on.
bench-peers: setup
	@bash .ci/peers.sh
	@.venv-peers/bin/python -m premotor bench suite=planners 'planners=[cem,mppi,icem,cmaes,gradient,hybrid]' 'search.peers=[all]' \
		task=push threads=1 out=outputs/bench/peers $(ARGS)
