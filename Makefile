# Copyright (c) nslab contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

PYTHON ?= python3
topology ?=
node ?=
command ?=
stage ?=
args ?=
only ?=
scenario ?=

.DEFAULT_GOAL := help
.PHONY: help lab teardown audit shell test molecule lint format docs bench clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

lab: ## Build the routed lab on this machine, or the one of topology=FILE, and prove it with packets
	@$(PYTHON) tools/lab.py lab "$(topology)"

teardown: ## Remove exactly that lab
	@$(PYTHON) tools/lab.py teardown "$(topology)"

audit: ## Say whether that lab has drifted, and change nothing
	@$(PYTHON) tools/lab.py audit "$(topology)"

shell: ## Open a shell in a namespace, node=NAME, or run command="..." there
	@$(PYTHON) tools/shell.py "$(node)" "$(command)"

test: ## Run every check and test, or those of stage=NAME; args=... goes to pytest; stage=help lists the stages
	@$(PYTHON) tools/check.py --pytest="$(args)" --only="$(only)" $(stage)

molecule: ## Run the scenarios on virtual machines, or scenario=NAME of them
	@$(PYTHON) tools/check.py molecule --only="$(scenario)"

lint: ## Run the linters and type checks only
	@$(PYTHON) tools/check.py lint

format: ## Bring the Python code into shape
	@$(PYTHON) tools/within.py lint ruff check --fix-only
	@$(PYTHON) tools/within.py lint ruff format

docs: ## Build the reference of the modules and roles as HTML, in .cache/docs/build/html
	@mkdir -p .cache/docs
	@$(PYTHON) tools/within.py docs antsibull-docs sphinx-init --use-current --lenient --squash-hierarchy --dest-dir .cache/docs nslab.netns
	@cd .cache/docs && $(PYTHON) ../../tools/within.py docs bash build.sh

bench: ## Measure the collection beside ip -batch, nft, a shell script, command tasks and ifstate; only=PART for a part
	@$(PYTHON) tools/within.py bench tools/throwaway-host.sh python benchmarks/run.py $(if $(only),--only $(only))

clean: ## Remove what was installed, cached and built; running labs stay
	rm -rf .cache .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache tests/output
