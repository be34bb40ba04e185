# Saltworks: from a folder of seismic tiles to a submission. `make` alone lists what there is.
#
# Every stage is a file that is made from the stage's before it, so what is done is not done again, and Ctrl-C loses
# at most an epoch. `make train` trains what FOLDS and VARIANT name (all without); swa, predict and submit work on what
# is trained, and with FOLD, FOLDS or VARIANT given they make what is missing first.

RUN       ?= saltnet
PRESET    ?= saltnet
DATA      ?= datasets/tgs
NUM_FOLDS ?= 10
SCHEME    ?= random
FOLD      ?=
FOLDS     ?= $(FOLD)
VARIANT   ?=
ARGS      ?=
IMAGES    ?=
CHECKPOINT ?=
PYTHON    ?= .venv/bin/python

ifneq ($(words $(RUN)),1)
$(error RUN="$(RUN)" is not one word: Make takes no spaces in it)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-carvana demo-tiles lessons test faults train swa predict ensemble mosaics submit all plan bench prune verify find-lr missing FORCE

RUNS := $(or $(SALTWORKS_RUNS),runs)
R := $(RUNS)/$(RUN)
SETUP := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/installed)

# The grid that is asked for, and the models of it that work is done on.
ALL_FOLDS := $(if $(wildcard $(R)/folds.csv),$(shell tail -n +2 "$(R)/folds.csv" | sed 's/.*,//' | sort -nu),$(shell seq 0 $$(($(NUM_FOLDS) - 1))))
GRID := $(foreach variant,$(or $(VARIANT),pad resize),$(foreach fold,$(or $(sort $(FOLDS)),$(ALL_FOLDS)),$(variant)/fold$(fold)))
WHOLE := $(foreach variant,pad resize,$(ALL_FOLDS:%=$(variant)/fold%))
TRAINED := $(filter $(WHOLE),$(patsubst $(R)/%/final.pt,%,$(wildcard $(R)/*/fold*/final.pt)))
GIVEN := $(FOLDS)$(VARIANT)$(filter train all plan,$(MAKECMDGOALS))
MODELS := $(if $(GIVEN),$(GRID),$(TRAINED))

# ARGS belong to the stage that is named on the command line, which then runs even if it is done.
args = $(if $(filter $(1),$(MAKECMDGOALS)),$(ARGS))
again = $(if $(call args,$(1)),FORCE)
ifneq ($(and $(strip $(ARGS)),$(filter swa predict ensemble submit,$(MAKECMDGOALS)),$(filter-out $(TRAINED),$(MODELS))),)
$(error ARGS belong to $(MAKECMDGOALS), but $(filter-out $(TRAINED),$(MODELS)) would be trained without them: make train first)
endif
variant = $(notdir $(patsubst %/,%,$(dir $(@D))))
fold = $(patsubst fold%,%,$(notdir $(@D)))
model = --run=$(RUN) --variant=$(variant) --fold=$(fold) --data="$(DATA)"

# The plan compares configs and tells what a grid needs: when training is asked for, or a preset is named.
PLAN := $(if $(filter train all plan,$(MAKECMDGOALS))$(filter command% environment%,$(origin PRESET))$(filter-out $(TRAINED),$(MODELS)),plan)

help: ## this list
	@echo "Saltworks: two commands to try it, three to a submission; variables: RUN PRESET DATA FOLD FOLDS VARIANT ARGS PYTHON"
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

# ---------------------------------------------------------------------------- try it

.venv/installed: requirements.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Saltworks needs Python 3.11 or later as python3, got $$(python3 --version 2>&1)" >&2; exit 1; }
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

DEMO := RUN=demo DATA=$(RUNS)/demo/data FOLDS= FOLD= VARIANT= ARGS= NUM_FOLDS=2 SCHEME=random

demo: $(SETUP) ## the whole chain on a synthetic competition, in minutes
	@if [ -f $(RUNS)/demo/submission.csv ] && $(MAKE) --no-print-directory -q $(DEMO) $(RUNS)/demo/submission.csv; then \
		echo "Nothing to do: the demo is up to date (remove $(RUNS)/demo to run it again)."; \
		$(PYTHON) -m postprocess.submit --run=demo --data=$(RUNS)/demo/data --show; \
	else \
		$(MAKE) --no-print-directory $(DEMO) $(RUNS)/demo/data/train.csv && \
		TQDM_DISABLE=1 $(MAKE) --no-print-directory -j$$($(PYTHON) -c 'import os; print(os.cpu_count())') $(DEMO) PRESET=demo all; \
	fi

$(RUNS)/demo/data/train.csv: | $(SETUP)
	$(PYTHON) -m datasets.synthetic --data=$(RUNS)/demo/data

# One model each on imagined photographs and land, from nothing to scores and pictures.
C := $(RUNS)/demo-carvana
T := $(RUNS)/demo-tiles

demo-carvana: $(SETUP) ## cars on a turntable (Carvana's layout): train, average, validate with pictures
	@test -f $(C)/data/synthetic.txt || $(PYTHON) -m datasets.synthetic_cars --data=$(C)/data
	$(MAKE) --no-print-directory RUN=demo-carvana DATA=$(C)/data PRESET=carvana-demo NUM_FOLDS=5 FOLDS=0 VARIANT=resize ARGS= train
	$(MAKE) --no-print-directory RUN=demo-carvana DATA=$(C)/data FOLDS=0 VARIANT=resize ARGS= swa
	$(PYTHON) -m inference.validate --checkpoint=$(C)/resize/fold0/swa.pt --plots=True --out=$(C)/validation

demo-tiles: $(SETUP) ## land with three labels and near infrared: train with two validation sets, average, validate
	@test -f $(T)/data/synthetic.txt || $(PYTHON) -m datasets.synthetic_satellite --data=$(T)/data
	$(MAKE) --no-print-directory RUN=demo-tiles DATA=$(T)/data PRESET=tiles-demo FOLDS=0 VARIANT=resize train \
		ARGS='--labels="1 2 5" --extra=nir --more_validation=$(T)/data/winter/val --validate_more_every=3'
	$(MAKE) --no-print-directory RUN=demo-tiles DATA=$(T)/data FOLDS=0 VARIANT=resize ARGS= swa
	$(PYTHON) -m inference.validate --checkpoint=$(T)/resize/fold0/swa.pt --plots=True --masks=True --out=$(T)/validation
	$(PYTHON) -m inference.validate --checkpoint=$(T)/resize/fold0/swa.pt --data=$(T)/data/winter/val --out=$(T)/winter

# The same small net with one choice changed at a time: runs/lessons-NAME. By default on imagined tiles.
LESSONS := ce dice focal combo ours no-norm no-augmentation
LESSON_TILES ?= 200
LESSON_EPOCHS ?= 8
LESSON_WIDTH ?= 8
LESSON_DATA := $(if $(filter command% environment%,$(origin DATA)),$(DATA),$(RUNS)/lessons/data)
LESSON_ce := --loss=ce
LESSON_dice := --loss=dice
LESSON_focal := --loss=focal
LESSON_combo := --loss=combo
LESSON_ours := --loss=lovasz+0.5ce
LESSON_no-norm := --norm=False
LESSON_no-augmentation := --augmentation=none

lessons: $(LESSONS:%=$(RUNS)/lessons-%/pad/fold0/final.pt) ## what losses, batch norm and augmentation are worth (LESSON_TILES, LESSON_EPOCHS, LESSON_WIDTH)
	$(PYTHON) -m postprocess.curves --runs="lessons-ce lessons-dice lessons-focal lessons-combo lessons-ours" --out=$(RUNS)/lessons/losses.png
	$(PYTHON) -m postprocess.curves --runs="lessons-combo lessons-no-norm lessons-no-augmentation" --out=$(RUNS)/lessons/ablations.png

$(RUNS)/lessons/data/layout.csv: | $(SETUP)
	$(PYTHON) -m datasets.synthetic --data=$(@D) --num_train=$$(($(LESSON_TILES)*10/9)) --num_test=20

$(LESSONS:%=$(RUNS)/lessons-%/pad/fold0/final.pt): $(RUNS)/lessons-%/pad/fold0/final.pt: | $(SETUP) $(if $(filter $(RUNS)/%,$(LESSON_DATA)),$(RUNS)/lessons/data/layout.csv)
	@test -f $(RUNS)/lessons-$*/folds.csv || $(PYTHON) -m datasets.folds --run=lessons-$* --data="$(LESSON_DATA)"
	$(PYTHON) -m training.train residual-unet --run=lessons-$* --data="$(LESSON_DATA)" --epochs=$(LESSON_EPOCHS) --limit_tiles=$(LESSON_TILES) --width=$(LESSON_WIDTH) $(LESSON_$*)

test: $(SETUP) ## lint and tests: CPU only, offline
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist loadfile $(ARGS)

faults: $(SETUP) ## kill -9, full disks, closed folders, Ctrl-C: what takes too long for make test
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist loadfile -rs tests/faults $(ARGS)

# ---------------------------------------------------------------------------- the stages

verify: $(SETUP) ## check the competition in DATA, file by file
	$(PYTHON) -m datasets.salt --data="$(DATA)"

# A split that is asked for by name is compared with the one that is there, and refused if it is another.
$(R)/folds.csv: $(if $(and $(filter train all plan,$(MAKECMDGOALS)),$(filter command% environment%,$(origin SCHEME) $(origin NUM_FOLDS))),FORCE) | $(SETUP) $(if $(filter mosaic,$(SCHEME)),$(R)/mosaics.csv)
	$(PYTHON) -m datasets.folds --run=$(RUN) --data="$(DATA)" --num_folds=$(NUM_FOLDS) --scheme=$(SCHEME)

plan: $(R)/folds.csv | $(SETUP) ## what the grid of FOLDS and VARIANT needs in memory and on disk, and what is done
	@$(PYTHON) -m training.plan $(PRESET) --run=$(RUN) --data="$(DATA)" --models="$(MODELS)" $(call args,train all plan)

find-lr: $(R)/folds.csv | $(SETUP) ## the loss over rising learning rates, as CSV and picture
	$(PYTHON) -m training.find_lr $(PRESET) --run=$(RUN) --data="$(DATA)" --variant=$(or $(VARIANT),pad) --fold=$(or $(FOLD),0) $(ARGS)

train: $(GRID:%=$(R)/%/final.pt) ## train FOLD=0 (or FOLDS="0 1", or all) in VARIANT=pad (or resize, or both)

$(MODELS:%=$(R)/%/final.pt): %/final.pt: $(call again,train) | $(SETUP) $(R)/folds.csv $(PLAN)
	$(PYTHON) -m training.train $(PRESET) $(model) $(call args,train all)

swa: missing $(MODELS:%=$(R)/%/swa.pt) ## average each model's best checkpoints

$(MODELS:%=$(R)/%/swa.pt): %/swa.pt: %/final.pt $(call again,swa)
	$(PYTHON) -m training.swa $(model) $(call args,swa)

ifneq ($(IMAGES),)
predict: $(SETUP) # IMAGES=FOLDER_OR_FILE CHECKPOINT=FILE: any images, no labels needed
	$(PYTHON) -m inference.segment --checkpoint="$(CHECKPOINT)" --images="$(IMAGES)" $(ARGS)
else
predict: missing $(MODELS:%=$(R)/%/test.csv) ## probabilities of held-out and test tiles; or of any IMAGES=... by CHECKPOINT=...
endif

$(MODELS:%=$(R)/%/test.csv): %/test.csv: %/swa.pt $(call again,predict)
	$(PYTHON) -m inference.predict $(model) $(call args,predict)

# The ensemble is made again when other models go in, not only when theirs are newer.
$(R)/models.txt: $(if $(filter-out $(shell cat "$(R)/models.txt" 2>/dev/null),$(MODELS))$(filter-out $(MODELS),$(shell cat "$(R)/models.txt" 2>/dev/null)),FORCE)
	@test -n "$(MODELS)" || { echo "error: $(R) has no trained model: run \`make train FOLD=0 RUN=$(RUN) PRESET=... DATA=...\` first" >&2; exit 1; }
	@mkdir -p $(@D) && echo "$(MODELS)" > $@

ensemble: missing $(R)/ensemble.json ## mean over the models

$(R)/ensemble.json: $(MODELS:%=$(R)/%/test.csv) $(R)/models.txt $(call again,ensemble)
	$(PYTHON) -m postprocess.ensemble --run=$(RUN) --data="$(DATA)" --models="$(MODELS)" $(call args,ensemble)

$(R)/threshold.json: $(R)/ensemble.json
	$(PYTHON) -m postprocess.threshold --run=$(RUN) --data="$(DATA)"

$(R)/mosaics.csv: $(call again,mosaics) | $(SETUP)
	$(PYTHON) -m datasets.mosaic --data="$(DATA)" --out=$(R)/mosaics.csv $(call args,mosaics)

mosaics: $(R)/mosaics.csv ## put tiles back where they were cut from

$(R)/rules.json: $(R)/threshold.json $(R)/mosaics.csv $(call again,submit)
	$(PYTHON) -m postprocess.rules --run=$(RUN) --data="$(DATA)" $(call args,submit)

$(R)/submission.csv: $(R)/rules.json
	$(eval MADE := yes)
	$(PYTHON) -m postprocess.submit --run=$(RUN) --data="$(DATA)"

# What the recipe above has not just printed, it prints when there is nothing to do.
MADE :=
show = $(if $(MADE),,@echo "Nothing to do: $(R)/submission.csv is up to date."; $(PYTHON) -m postprocess.submit --run=$(RUN) --data="$(DATA)" --show)

submit: missing $(R)/submission.csv ## threshold, rules and the submission CSV
	$(show)

all: $(R)/submission.csv ## every model of the grid, and the submission
	$(show)

bench: $(SETUP) ## speed and memory of all presets beside the plain formulations (ARGS="--only=resnet34")
	$(PYTHON) -m bench $(ARGS)

prune: $(SETUP) ## list checkpoints that no stage needs any more (ARGS=--remove removes them)
	$(PYTHON) -m training.prune --run=$(RUN) $(ARGS)

ABSENT := $(filter-out $(TRAINED),$(WHOLE))

missing: | $(SETUP)
	@if [ -z "$(MODELS)" ]; then echo "error: $(R) has no trained model: run \`make train FOLD=0 RUN=$(RUN) PRESET=... DATA=...\` first" >&2; exit 1; fi
	@if [ -n "$(ABSENT)" ] && [ -z "$(GIVEN)" ]; then echo "NOTE: $(words $(TRAINED)) of $(words $(TRAINED) $(ABSENT)) models are trained and used; missing: $(ABSENT)" >&2; fi

FORCE:
