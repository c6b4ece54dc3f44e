# make demo, run   environment and the study in params.yaml, with one line about its progress; RUN="--configfile <file>" passes options
# make workflow   environment with all that studies and clusters may ask for beyond the demo (docs/installation.md)
# make app    environment with the local page, and the page: drop a photo on it; APP="--port 8000" passes options
# make test   environment and the tests that need no server, browser or root, in ten minutes; PYTEST="tests/analyses" passes options
# make test-parts   one proof of every real part: Slurm, remotes, a browser, the wheel, imported features (.ci/packages installs the servers)
# make nightly   all other tests (make deep), more fuzzing (make fuzz), and make kernels: more than an hour (docs/testing.md)
# make kernels   what compares numbers, once more with older instructions of this processor: those of AVX2, and those of 2008
#             (docs/reproducibility.md)
# make check  environment, linters, types, sdist and wheel (make package), and known vulnerabilities of what is installed (make audit)
# make coverage   the tests of all three, and the share of lines and branches of the package that they run
# make bench  speed and memory of the numerical core, of extraction, and of the engines, beside what they are compared with (docs/planning.md)
# make bench-gpu  images a second of towers on the GPU here; BENCH_GPU="--device cpu --count 100" passes options
# make derived   what is derived and in git: the list of docs/artifacts.md and the schema of params.yaml
# make docs   these pages as a site, with the public names from their docstrings and the notebook with its results: open site/index.html
# make reproduce   the committed study, computed again in a fresh clone (CLONE=../again) and compared with the published one
# make doctor, plan, prefetch, publish, fetch, verify   the commands of `singflow` by these names, in this
#             environment; options pass in a variable of the name: PUBLISH="--remote lab"
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
# Processes of tests that run side by side have a thread each: more would wait for each other, and where a step has more, they wait asleep.
ALONE := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive
TESTS := $(ALONE) pytest --dist loadfile --no-loadscope-reorder --numprocesses
EVERY := --override-ini norecursedirs=
# Kernels of OpenBLAS, PyTorch and oneDNN, and the tests of numbers whose last bits depend on them.
AVX2 := OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
SSE := OPENBLAS_CORETYPE=Nehalem ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41
NUMBERS = tests/nightly/test_evidence.py tests/towers/test_extraction.py
PAGES = tests/parts/test_features.py::test_the_null_space_of_the_classifier_of_texts_holds_meaning_as_the_page_says
BEFORE := doctor plan
COMMANDS := prefetch publish fetch verify
CLONE = ../$(notdir $(CURDIR))-again
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: docs demo run workflow app test test-parts nightly deep fuzz kernels coverage check types style workflows package audit bench bench-gpu derived reproduce $(BEFORE) $(COMMANDS)
.DEFAULT_GOAL := demo

demo run: .venv/demo
	@singflow run --cores $(CORES) $(RUN)

workflow: .venv/workflow

app: .venv/app
	@singflow app $(APP)

test: .venv/test
	$(TESTS) 4 -m "not nightly" $(PYTEST)

test-parts: PYTEST = tests/parts
test-parts: .venv/test
	$(TESTS) 4 -m "not nightly" $(PYTEST)

nightly: deep fuzz kernels

deep: .venv/test
	$(TESTS) 4 -m nightly $(EVERY) $(PYTEST)

fuzz: .venv/test
	FUZZ=300 $(TESTS) 4 -m hypothesis $(PYTEST)

kernels: .venv/test
	$(AVX2) $(TESTS) 2 $(PYTEST) $(PAGES) $(NUMBERS) tests/analyses
	$(SSE) $(TESTS) 2 $(PYTEST) $(NUMBERS) tests/analyses/test_bands.py tests/analyses/test_readout.py tests/analyses/test_unique_meaning.py

coverage: .venv/test
	$(TESTS) 4 --cov --cov-fail-under=95 $(EVERY) $(PYTEST)

check: types style workflows package audit

types: .venv/test
	mypy
	lint-imports

style: .venv/test
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	hadolint Containerfile
	shellcheck .ci/run .ci/packages slurm/controller.sh
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	zizmor --offline --quiet .github
	codespell

workflows: .venv/test
	singflow study demo --check  # what is given to users is the demo
	python docs/artifacts.py --check
	snakemake --dry-run >/dev/null 2>&1 || snakemake --dry-run
	snakemake --lint

package: .venv/test
	rm -rf dist && python -m build --no-isolation >/dev/null
	twine check --strict dist/*
	@test -z "$$(find dist -size +15000000c)" || { echo 'error: a file in dist/ has more than 15 MB'; exit 1; }

audit: .venv/test
	python tests/audit.py $(AUDIT)

bench: .venv/workflow
	@python benchmarks/numerics.py
	@python benchmarks/extraction.py
	@python benchmarks/engines.py

bench-gpu: .venv/workflow
	@python benchmarks/gpu.py $(BENCH_GPU)

upper = $(shell echo $(1) | tr a-z A-Z)
$(BEFORE): .venv/demo
$(COMMANDS): .venv/workflow
$(BEFORE) $(COMMANDS):
	singflow $@ $($(call upper,$@))

reproduce: .venv/workflow
	@test ! -e "$(CLONE)" || { echo 'error: $(CLONE): is there already: remove it, or choose CLONE=<folder>'; exit 1; }
	git clone --quiet . "$(CLONE)"
	cache=$$(dvc cache dir) && cd "$(CLONE)" && dvc cache dir --quiet --local "$$cache" && git ls-files -z '*.dvc' | xargs -0r dvc checkout
	cd "$(CLONE)" && PYTHONPATH="$$PWD/src" dvc repro --force --no-run-cache
	singflow verify --results "$(CLONE)/results/$$(sed -n 's/^study: *\([^ ]*\).*/\1/p' params.yaml)"

docs: .venv/docs
	mkdir -p .cache/docs && cd .cache/docs && NO_MKDOCS_2_WARNING=1 PYTHONWARNINGS=ignore:IProgress mkdocs build --config-file ../../mkdocs.yml  # there the notebook writes

derived: .venv/demo
	python docs/artifacts.py
	python -m singflow.study

.venv/demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=<path> ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[demo]'
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/|/transformers/models/' .venv/lib src || true  # what may be used, on all cores, as pip does not
	@touch $@

.venv/workflow .venv/app .venv/docs .venv/test: .venv/demo
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@ $(WITH)
.venv/workflow: EXTRAS = cluster
.venv/app: EXTRAS = app
.venv/docs: EXTRAS = docs
.venv/test: EXTRAS = all,test,check
.venv/test: WITH = .venv/workflow .venv/app .venv/docs
