# make demo   environment and the study in params.yaml
# make test   environment and all tests; PYTEST="tests/test_metrics.py" passes options
# make quick  the tests of the package and the scripts, without whole studies
# make soak   what takes longest: kills at random moments, the smoke study of all models, every benchmark, more fuzzing (docs/testing.md)
# make check  environment, linters, types, and known vulnerabilities of what is installed (make audit)
# make coverage   the tests of the package alone, of publish and of fetch, and the share of lines and branches that they run
# make bench  speed and growth of the numerical core, extraction, start of scripts; peak memory of every step at the paper's largest size and of a
#             scan of 100,000 words; the engines' own time on large studies: each beside what it is compared to (docs/performance.md)
# make prefetch   weights that the study in params.yaml needs, into the caches (needs a network)
# make doctor     what of a run will work here or on the cluster, and how to mend what will not
# make plan       jobs, hours, memory and disk of the study before it runs; PLAN="--device cuda" passes options
# make resume     go on with the study on Slurm after its Snakemake was killed; RESUME="--wait true" passes options
# make publish    record the finished study with DVC and push it to a remote; PUBLISH="--remote lab" passes options
# make fetch      a published study, so that nothing is left to do; FETCH="--tier metrics" passes options
# make verify     results compared with the published ones; VERIFY="--against lab" passes options
# make reproduce  the published study computed again in a fresh clone, and compared
# make crate   the finished study as one archive, an RO-Crate; CRATE="--license CC-BY-4.0" passes options
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
# Processes of tests that run side by side have a thread each: more would wait for each other.
ALONE := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test quick soak coverage check audit bench prefetch doctor plan resume finished publish fetch verify reproduce crate dvc.yaml
.DEFAULT_GOAL := demo

demo: .venv/demo
	@python scripts/clear_lock.py
	snakemake --cores $(CORES) --rerun-incomplete --quiet rules host; status=$$?; rm -f .snakemake/demo; exit $$status
	@python scripts/show_summary.py params.yaml

test: .venv/test
	$(ALONE) pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST)

quick: .venv/test
	$(ALONE) pytest --numprocesses 3 --dist loadfile $(PYTEST) tests/test_*.py tests/workflow/test_plan.py

soak: .venv/test
	FUZZ=300 pytest $(PYTEST) tests/soak tests/test_fuzz.py

coverage: .venv/test
	SINGFLOW_COLD=1 pytest --numprocesses 2 --dist loadfile --cov --cov-fail-under=95 $(PYTEST) tests/test_*.py tests/workflow/test_sharing.py tests/workflow/test_publish.py

check: .venv/test audit
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile rules
	codespell
	diff params.yaml studies/demo.yaml  # what is given to users is the demo
	snakemake --dry-run >/dev/null 2>&1 || snakemake --dry-run
	# One environment runs every rule (make, or environment.yml), so the lint for an environment per rule does not apply.
	! snakemake --lint 2>&1 | grep '^    \*' | grep -v 'Specify a conda environment or container for each rule'

audit: .venv/test
	python tests/audit.py $(AUDIT)

bench: .venv/demo
	@missed=0; for each in numerics kernels memory scan extraction engines startup; do python benchmarks/$$each.py || missed=1; done; exit $$missed

prefetch: .venv/demo
	python scripts/prefetch.py

doctor: .venv/demo
	python scripts/doctor.py

plan: .venv/demo
	python scripts/plan.py $(PLAN)

resume: .venv/demo
	python scripts/resume.py $(RESUME)

finished: .venv/demo
	@snakemake --dry-run 2>&1 | grep -q "Nothing to be done" \
	  || { echo "error: the run is not finished: run 'snakemake --cores $(CORES)' first" >&2; exit 1; }

publish: .venv/demo
	python scripts/publish.py $(PUBLISH)

fetch: .venv/demo
	python scripts/fetch.py $(FETCH)

verify: .venv/demo
	@python scripts/verify.py $(VERIFY)

reproduce: .venv/demo
	python scripts/reproduce.py $(REPRODUCE)

crate: finished
	python scripts/export_crate.py $(CRATE)

# Derived files that are in git: the code among DVC's deps, and the schema of params.yaml.
dvc.yaml: .venv/demo
	python -m singflow.dependencies
	python -m singflow.config

.venv/demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=<path> ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/test: .venv/demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,check]'
	@touch $@
