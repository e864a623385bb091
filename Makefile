# Every target sets up what it needs; see scripts/setup.sh. PYTHON=/path/to/python3 chooses the interpreter.
python := .venv/bin/python

# The virtual environment brings its own ROS 2: what a sourced one says would mix the two.
unexport PYTHONPATH PYTHONHOME LD_LIBRARY_PATH RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH

.PHONY: demo test reproduce lint format venv clean help

help:
	@echo 'make demo       a simulated robot reaches goal images; the report goes to demo_output/'
	@echo 'make test       lint, types, layers and all tests'
	@echo 'make reproduce  make a shipped checkpoint from nothing, TASK=reacher MODEL=smwm, and compare'
	@echo 'make lint       what must hold before a commit'
	@echo 'make format     let ruff mend what it can'
	@echo 'make venv       only set up .venv'
	@echo 'make clean      remove what was built and the virtual environment'

demo: venv
	.venv/bin/smwm demo

TASK ?= reacher
MODEL ?= smwm

reproduce: venv
	.venv/bin/smwm reproduce --task $(TASK) --model $(MODEL) \
		--output runs/reproduce-$(TASK)-$(MODEL)-$(shell date +%Y%m%d-%H%M%S)

test: lint
	$(python) -m pytest

lint: venv
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy
	.venv/bin/lint-imports --no-logo

format: venv
	$(python) -m ruff check --fix
	$(python) -m ruff format

venv:
	@scripts/setup.sh

clean:
	rm -rf .venv build install log *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
