# make demo, run   environment and the study in params.yaml, with one line about its progress; RUN="--configfile <file>" passes options
# make workflow   environment with all that studies and clusters may ask for beyond the demo (docs/installation.md)
# make app    environment with the local page, and the page: drop a photo on it; APP="--port 8000" passes options
# make test   environment and all tests; PYTEST="tests/analyses" passes options
# make kernels   what compares numbers, once more with older instructions of this processor: those of AVX2, and those of 2008
#             (docs/reproducibility.md)
# make quick  the tests without whole studies and programs, servers, and classifiers that look at photos
# make soak   what takes longest: kills at random moments, the smoke study of all models, every benchmark, more fuzzing (docs/testing.md)
# make check  environment, linters, types, sdist and wheel (make package), and known vulnerabilities of what is installed (make audit)
# make coverage   all tests, and the share of lines and branches of the package that they run
# make bench  speed and growth of the numerical core, extraction, how long a GPU would wait, start of scripts; peak memory of every step at the
#             paper's largest size and of a scan of 100,000 words; the engines' own time on large studies: each beside what it is compared to
#             (docs/performance.md)
# make bench-gpu  images a second of towers on the GPU here, beside timm's benchmark and a DataLoader; `make plan` reckons with these rates
#             (docs/planning.md); BENCH_GPU="--device cpu --count 100" passes options
# make dvc.yaml   what is derived and in git: the stages of dvc.yaml, the groups of slurm/config.yaml, the tables of docs/artifacts.md,
#             and the schema of params.yaml
# make docs   these pages as a site, with the public names from their docstrings and the notebook with its results: open site/index.html
# make doctor, plan, prefetch, resume, publish, fetch, verify, reproduce, crate   the commands of `singflow` by these names, in this
#             environment; options pass in a variable of the name: PUBLISH="--remote lab"
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
# Processes of tests that run side by side have a thread each: more would wait for each other, and where a step has more, they wait asleep.
ALONE := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# Without whole studies and programs, servers, and classifiers that look at photos.
QUICK = $(filter-out $(addprefix tests/,__pycache__ browser cluster faults photo pictures remotes sharing soak towers warm workflow \
	test_benchmarks.py test_evidence.py test_gpu_benchmark.py test_measuring.py test_wheel.py), \
	$(patsubst %/,%,$(wildcard tests/*/)) $(wildcard tests/test_*.py))
# Kernels of OpenBLAS, PyTorch and oneDNN, and the tests of numbers whose last bits depend on them. torch.compile is left out: it compiles for the processor
# itself.
AVX2 := OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
SSE := OPENBLAS_CORETYPE=Nehalem ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41
NUMBERS = tests/test_evidence.py tests/towers/test_extraction.py \
	--deselect tests/towers/test_extraction.py::test_a_compiled_tower_gives_the_same_features_but_for_rounding
PAGES = tests/workflow/test_features.py::test_the_null_space_of_the_classifier_of_texts_holds_meaning_as_the_page_says
BEFORE := doctor plan
COMMANDS := prefetch resume publish fetch verify reproduce crate
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: docs demo run workflow app test quick kernels soak coverage check types style workflows package audit bench bench-gpu dvc.yaml $(BEFORE) $(COMMANDS)
.DEFAULT_GOAL := demo

demo run: .venv/demo
	@singflow run --cores $(CORES) $(RUN)

workflow: .venv/workflow

app: .venv/app
	@singflow app $(APP)

test: .venv/test
	$(ALONE) pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST)

quick: .venv/test
	$(ALONE) pytest --numprocesses 4 --dist loadfile $(PYTEST) $(QUICK)

kernels: .venv/test
	$(AVX2) $(ALONE) pytest --numprocesses 2 --dist loadfile $(PYTEST) $(PAGES) $(NUMBERS) tests/analyses
	$(SSE) $(ALONE) pytest --numprocesses 2 --dist loadfile $(PYTEST) $(NUMBERS) tests/analyses/test_bands.py tests/analyses/test_readout.py tests/analyses/test_unique_meaning.py

soak: .venv/test
	pytest $(PYTEST) tests/soak
	FUZZ=300 pytest $(PYTEST) -m hypothesis tests

coverage: override PYTEST += --cov --cov-fail-under=95
coverage: test

check: types style workflows package audit

types: .venv/test
	mypy
	lint-imports

style: .venv/test
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	hadolint Containerfile
	shellcheck .ci/run slurm/controller.sh
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	zizmor --offline --quiet .github
	codespell

workflows: .venv/test
	singflow study demo --check  # what is given to users is the demo
	python -m singflow.engines.stages --check
	snakemake --dry-run >/dev/null 2>&1 || snakemake --dry-run
	snakemake --lint

package: .venv/test
	rm -rf dist && python -m build --no-isolation >/dev/null
	twine check --strict dist/*
	@test -z "$$(find dist -size +15000000c)" || { echo 'error: a file in dist/ has more than 15 MB'; exit 1; }

audit: .venv/test
	python tests/audit.py $(AUDIT)

bench: .venv/workflow
	@missed=0; for each in numerics kernels memory scan extraction pipeline engines startup; do python benchmarks/$$each.py || missed=1; done; exit $$missed

bench-gpu: .venv/bench
	@python benchmarks/gpu.py $(BENCH_GPU)

upper = $(shell echo $(1) | tr a-z A-Z)
$(BEFORE): .venv/demo
$(COMMANDS): .venv/workflow
$(BEFORE) $(COMMANDS):
	singflow $@ $($(call upper,$@))

docs: .venv/docs
	mkdir -p .cache/docs && cd .cache/docs && NO_MKDOCS_2_WARNING=1 PYTHONWARNINGS=ignore:IProgress mkdocs build --config-file ../../mkdocs.yml  # there the notebook writes

dvc.yaml: .venv/demo
	python -m singflow.engines.stages
	python -m singflow.study

.venv/demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=<path> ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[demo]'
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/|/transformers/models/' .venv/lib src || true  # what may be used, on all cores, as pip does not
	@touch $@

.venv/workflow .venv/app .venv/bench .venv/docs .venv/test: .venv/demo
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@ $(WITH)
.venv/workflow: EXTRAS = cluster
.venv/app: EXTRAS = app
.venv/bench: EXTRAS = bench
.venv/docs: EXTRAS = docs
.venv/test: EXTRAS = all,test,check
.venv/test: WITH = .venv/workflow .venv/app .venv/bench .venv/docs
