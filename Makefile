# Cepheid's commands for people. 'make help' lists them.

PYTHON := .venv/bin/python

.PHONY: help demo test test-fast check bench docs sample clean

help:            ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo:            ## Watch an agent repair a small host
	@tools/setup.sh demo
	@$(PYTHON) examples/demo/demo.py

test:            ## Run all tests: fast ones, checks, then those with real servers
	@tools/setup.sh test
	@tools/test.sh

test-fast:       ## Run the fast tests, in the default concurrency mode
	@tools/setup.sh develop
	@tools/test-fast.sh eventlet

check:           ## Run linters, types, layers, the sample's comparison, the documentation's build
	@tools/setup.sh develop
	@tools/check.sh

bench:           ## Measure, beside peers, into benchmarks/results; ONLY=passes for one of them
	@tools/setup.sh test
	@$(PYTHON) -m benchmarks $(ONLY)

docs:            ## Build the documentation in doc/build/html
	@tools/setup.sh develop
	$(PYTHON) -m sphinx -W -q -b html doc/source doc/build/html

sample:          ## Generate etc/cepheid/cepheid.conf.sample
	@tools/setup.sh develop
	.venv/bin/oslo-config-generator --config-file etc/cepheid/cepheid-config-generator.conf

clean:           ## Remove what was built, and the virtual environment
	rm -rf .venv build dist doc/build *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
