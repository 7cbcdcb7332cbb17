# SPDX-License-Identifier: Apache-2.0
# The commands for developers; `make` alone is `make test`. They need Python 3.11 with venv, make and git.
PYTHON ?= python3.11
BIN := .venv/bin
CONSTRAINTS := -c operator/constraints.txt -c serve_runtime/constraints.txt -c constraints-dev.txt
COMPILE := $(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate
BOM := PYTHONWARNINGS=ignore $(BIN)/uv tool run -q -c constraints-dev.txt --from cyclonedx-bom cyclonedx-py requirements --output-reproducible
SHAPES := serve_runtime/src/sd_runtime/models/shapes
CRD := sdservice.dev_stablediffusionservices.yaml
export KUBERAY_CRDS ?= $(abspath $(wildcard ../shared/kuberay-crds))
# For torch on a few cores: spinning threads take time from working ones.
export OMP_WAIT_POLICY ?= PASSIVE
# Without compiled modules every Ray process compiles torch and diffusers again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test setup run fmt check generate constraints outdated audit version dist images model evaluate cluster cluster-stop node node-packages gpu faults e2e truth clean \
	helm cosign
test: setup check
	$(BIN)/python -m sd_testkit build
	$(BIN)/pytest -n 4; code=$$?; $(BIN)/python -m sd_testkit node; exit $$code

setup: .venv/ready
.venv/ready: pyproject.toml operator/pyproject.toml serve_runtime/pyproject.toml testkit/pyproject.toml training/pyproject.toml tools/pyproject.toml \
		operator/constraints.txt serve_runtime/constraints.txt constraints-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	grep -A999 '^uv==' constraints-dev.txt | awk 'NR>1 && !/^ /{exit} {print}' > .venv/uv.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip install -q --python $(BIN)/python $(CONSTRAINTS) --build-constraints constraints-dev.txt \
		--group dev -e ./operator -e './serve_runtime[serve,otel]' -e ./testkit -e ./training -e ./tools
	touch $@

run: setup
	$(BIN)/sdservice run examples/quickstart.yaml

fmt: setup
	$(BIN)/ruff check -q --fix .
	$(BIN)/ruff format -q .

check: setup
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint Dockerfile.*
	$(BIN)/zizmor --offline --quiet .github

generate: setup
	$(BIN)/sdservice crd > crds/$(CRD)
	cp crds/$(CRD) charts/stable-diffusion-operator/files/crds/$(CRD)
	$(BIN)/python -m sd_testkit chart
	$(BIN)/python -c 'from sd_operator.status import reasons; print(reasons.page(), end="")' > docs/reasons.md
	$(BIN)/python -m sd_tools licences

constraints: setup  # run this after a change of dependencies; UPGRADE=--upgrade takes the newest versions
	$(COMPILE) $(UPGRADE) operator/pyproject.toml -o operator/constraints.txt
	$(COMPILE) $(UPGRADE) serve_runtime/pyproject.toml --extra serve --extra otel -c operator/constraints.txt \
		-o serve_runtime/constraints.txt
	$(COMPILE) $(UPGRADE) testkit/pyproject.toml --group pyproject.toml:dev --group pyproject.toml:release --group pyproject.toml:go \
		-c operator/constraints.txt -c serve_runtime/constraints.txt -o constraints-dev.txt
	$(COMPILE) $(UPGRADE) tools/checkov/requirements.in -o tools/checkov/constraints.txt

outdated: setup  # lists packages with a newer release than the pinned one
	$(BIN)/python -m sd_tools outdated

version: setup  # make version VERSION=1.2.3
	$(BIN)/python -m sd_tools version $(VERSION)

audit: setup  # lists known vulnerabilities of the packages in the images; queries a database
	for each in operator serve_runtime; do \
		$(BIN)/uv tool run -q -c constraints-dev.txt pip-audit --disable-pip --require-hashes -r $$each/constraints.txt || exit 1; done

dist: setup helm  # builds the parts of a release except the images: wheels, chart, and a bill of materials for each image
	rm -rf dist
	for each in operator serve_runtime; do \
		$(BIN)/uv build -q --wheel --build-constraints constraints-dev.txt -o dist $$each || exit 1; done
	$(BIN)/helm package charts/stable-diffusion-operator -d dist
	$(BOM) --pyproject operator/pyproject.toml -o dist/operator.cdx.json operator/constraints.txt
	$(BOM) --pyproject serve_runtime/pyproject.toml -o dist/worker.cdx.json serve_runtime/constraints.txt

helm cosign: setup  # built from Go modules, into the virtual environment
	ln -sf "$$($(BIN)/python -m sd_testkit program $@ | tail -n 1)" $(BIN)/$@

images: setup  # builds operator and worker with buildah on a Debian of debootstrap, and prints their sizes; needs root and 15 GB
	$(BIN)/python -m sd_testkit images

model: setup  # trains bundled://shapes again: under three hours on two cores; an interrupted training continues
	$(BIN)/python -m sd_training train

evaluate: setup
	$(BIN)/python -m sd_training evaluate $(SHAPES) --no-card

cluster: setup
	$(BIN)/python -m sd_testkit up

cluster-stop: setup
	$(BIN)/python -m sd_testkit down

# Tests preload, and an installation up to the first picture, on a real node. Needs root, 60 GB, and the packages of `make node-packages`.
# KUBERAY=<its binary> KUBERAY_MANIFESTS=<a folder for kubectl kustomize> runs the scenario list instead, with that KubeRay.
node: setup
	$(BIN)/python -m sd_testkit build --node
	SDSERVICE_NODE=1 KUBERAY=$(KUBERAY) KUBERAY_MANIFESTS=$(KUBERAY_MANIFESTS) \
		$(BIN)/pytest $(if $(KUBERAY)$(KUBERAY_MANIFESTS),-s tests/node/test_kuberay.py,tests/node)

node-packages: setup  # prints the Debian packages that a real node and image builds need
	@$(BIN)/python -m sd_testkit packages

gpu: setup  # on a machine with a GPU: runs the tests of its code path, then measures pictures per second, within ten minutes
	$(BIN)/pytest tests/serve_runtime -n 4
	$(BIN)/python benchmarks/gpu.py

faults: setup  # tests the operator among faults of API server and network, row by row of docs/faults.md; takes long
	$(BIN)/python -m sd_testkit build
	$(BIN)/pytest tests/faults -m '' -n 2

e2e: setup  # runs the scenario list on the cluster that KUBECONFIG names; that cluster needs KubeRay
	$(BIN)/pytest tests/e2e

truth: setup  # measures how often Ready says what a request gets, on the cluster that KUBECONFIG names or on one of its own
	$(BIN)/python benchmarks/truth.py

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache
