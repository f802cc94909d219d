# Every target sets up .venv by itself (pinned by constraints.txt); the second time that is instant.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=
HERE := $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)
RUFF := $(or $(wildcard $(BIN)/ruff),$(shell command -v ruff))
BUDGET ?= 420
# Benchmarks that ask for words of their own (see their --help), and what they share.
ASKING := corpus_cleaning grpo_sides inference lm_widths ppo_sides rlhf_movies tokenizers_data measuring turns
DEVICE ?= cuda

# Where it is set (in containers, often), each process would compile torch, lightning and transformers anew: 34 s of
# computing a start instead of 11.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help train test fast check bench kit gpu clean

help:
	@echo "make train   the main job: ALBEF on scenes of emoji; more overrides: make train ARGS='seed=1 trainer.max_steps=100'"
	@echo "make test    fast tests and tests of two processes; others: make test ARGS='-m slow'"
	@echo "make fast    those that start no processes"
	@echo "make check   ruff; installs nothing"
	@echo "make bench   the benchmarks that need no further words"
	@echo "make kit     build/kit: what a machine without network lacks (docs/air_gapped.md); for another Python: make kit PYTHON=3.12"
	@echo "make gpu     what a GPU is to prove, in BUDGET=420 seconds, to outputs/gpu; make gpu DEVICE=cpu tries the same code at tiny sizes"
	@echo "make clean   removes .venv and caches, keeps outputs/"

train: $(READY)
	$(BIN)/python train.py experiment=albef_emoji_scenes $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n 2 $(ARGS)

fast: $(READY)
	$(BIN)/python -m pytest -n 2 -m 'not slow and not gpu and not deepspeed and not distributed' $(ARGS)

check:
	@test -n "$(RUFF)" || { echo "there is no ruff: make test sets .venv up, or pip install ruff" >&2; exit 2; }
	$(RUFF) check .
	$(RUFF) format --check .

bench: $(READY) .venv/.bench
	for file in $(filter-out $(ASKING:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

# Neither needs .venv: pip makes the kit; on a machine without network the installed kit's PYTHONPATH makes any Python fit.
kit:
	$(HERE) kit/build.py --python $(PYTHON) $(if $(WITH),--with $(WITH))

gpu:
	$(HERE) benchmarks/gpu/run.py --budget $(BUDGET) --device $(DEVICE) $(ARGS)

clean:
	rm -rf .venv .pytest_cache .ruff_cache build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $@
